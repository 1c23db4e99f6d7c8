//! What is measured beside the loss, inside the graph, so that only numbers come out: how many labels were guessed right, and of how many.
//!
//! The loss tells what is what: scores and labels are what SoftmaxCrossEntropyLoss or NegativeLogLikelihoodLoss reads.

use serde::{Deserialize, Serialize};

use crate::graph::infer::Types;
use crate::graph::types::TensorType;
use crate::graph::{Attributes, Graph, NodeId, ValueId};
use crate::naming;
use crate::onnx::ValueInfoProto;
use crate::onnx::tensor_proto::DataType;
use crate::patch::Change;
use crate::regularizer::emit::{Tensor, int};
use crate::rewrite::builder::Builder;
use crate::wire::Model;

/// What is measured beside the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Accuracy where labels have one axis, perplexity where they have more, nothing where the loss does not show scores and labels.
    #[default]
    Auto,
    /// The share of labels whose score is the highest.
    Accuracy,
    /// exp of the mean task loss.
    Perplexity,
    /// Nothing.
    None,
}

impl Metric {
    /// The name on the command line and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Auto => "auto",
            Metric::Accuracy => "accuracy",
            Metric::Perplexity => "perplexity",
            Metric::None => "none",
        }
    }

    /// Whether more of it is better.
    pub fn grows(self) -> bool {
        self == Metric::Accuracy
    }
}

/// Scores and labels that a graph was found to have.
#[derive(Debug)]
pub struct Counted {
    /// What [`Metric::Auto`] stands for here.
    pub metric: Metric,
    /// Output: how many labels have the highest score, float32.
    pub correct: String,
    /// Output: how many labels count, float32.
    pub labels: String,
    /// Adds the two outputs.
    pub change: Change,
}

/// Looks for scores and labels behind a loss; `None` where it does not show them.
pub fn count(model: &Model, graph: &Graph<'_>, loss: &str) -> Option<Counted> {
    let node = loss_node(graph, graph.find(loss)?)?;
    let types = Types::of(graph, model);
    let tensor = |value: ValueId| Tensor { name: graph.name(value).to_owned(), ty: types.get(value).clone() };
    let (scores, labels) = (tensor(graph.input(node, 0)?), tensor(graph.input(node, 1)?));
    if labels.ty.elem == 0 {
        return None;
    }
    let (root, _) = naming::free_root(model, graph);
    let mut b = Builder::new(model.opset(), &root, "metric", Vec::new());
    let float = DataType::Float as i32;
    let ty = TensorType { elem: DataType::Int64 as i32, dims: labels.ty.dims.clone() };
    let best = b.one("ArgMax", &[&scores], vec![int("axis", 1), int("keepdims", 0)], ty);
    let best = b.cast(&best, labels.ty.elem);
    // An ignored label is no class, so no score of it is the highest: it is never right.
    let right = b.compare("Equal", &best, &labels);
    let right = b.cast(&right, float);
    let correct = b.reduce("ReduceSum", &right, None, false);
    let all = match graph.node(node).int("ignore_index") {
        Some(ignored) => {
            let ignored = b.number(ignored as f64, &Tensor { ty: integer(), ..labels.clone() });
            let ignored = b.cast(&ignored, labels.ty.elem);
            let is_ignored = b.compare("Equal", &labels, &ignored);
            let counts = b.one("Not", &[&is_ignored], Vec::new(), is_ignored.ty.clone());
            let counts = b.cast(&counts, float);
            b.reduce("ReduceSum", &counts, None, false)
        }
        None => {
            let size = b.one("Size", &[&labels], Vec::new(), TensorType { dims: Some(Vec::new()), ..integer() });
            b.cast(&size, float)
        }
    };
    let axes = graph_input_rank(graph, &types, graph.input(node, 1)?);
    let metric = if axes == Some(1) { Metric::Accuracy } else { Metric::Perplexity };
    let outputs: Vec<ValueInfoProto> = [&correct, &all].iter().filter_map(|t| t.ty.declare(&t.name)).collect();
    let emission = b.finish(&[], &[]);
    let change = Change {
        reason: "labels that are guessed right are counted".into(),
        nodes: emission.nodes.into(),
        value_info: emission.value_info.into_iter().filter(|v| !outputs.iter().any(|o| o.name() == v.name())).collect(),
        initializers: emission.constants.into_values().collect(),
        outputs,
        ..Change::default()
    };
    Some(Counted { metric, correct: correct.name, labels: all.name, change })
}

fn integer() -> TensorType {
    TensorType { elem: DataType::Int64 as i32, dims: None }
}

/// The node that makes a loss of scores and labels: the value's own, or one that it is a copy of.
fn loss_node(graph: &Graph<'_>, mut value: ValueId) -> Option<NodeId> {
    for _ in 0..graph.nodes.len() {
        let (id, _) = graph.producer(value)?;
        let node = graph.node(id);
        match node.op_type() {
            "SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss" if node.string("reduction") != Some("none") => {
                return Some(id);
            }
            "Identity" | "Cast" | "Reshape" | "Squeeze" => value = graph.input(id, 0)?,
            _ => return None,
        }
    }
    None
}

/// How many axes the input has whose elements labels are: exporters flatten sequences before the loss.
fn graph_input_rank(graph: &Graph<'_>, types: &Types, mut value: ValueId) -> Option<usize> {
    for _ in 0..graph.nodes.len() {
        let Some((id, _)) = graph.producer(value) else { break };
        value = graph.input(id, 0)?;
    }
    types.get(value).rank()
}
