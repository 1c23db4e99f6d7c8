//! A node where it stands: what a rule may look at.

use super::path::Path;
use crate::analysis::Analysis;
use crate::graph::types::{Dim, TensorType};
use crate::graph::{Attributes, NodeId, ValueId};
use crate::onnx::NodeProto;
use crate::regularizer::emit::Tensor;

/// Why a node cannot be rewritten, as the end of a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Refusal(reason.to_owned())
    }
}

/// What is asked of a node, or why it cannot be answered.
pub type Known<T> = Result<T, Refusal>;

/// A node with its graph.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    pub analysis: &'a Analysis<'a>,
    pub id: NodeId,
    pub node: &'a NodeProto,
    path: &'a Path,
}

impl<'a> Site<'a> {
    pub fn new(analysis: &'a Analysis<'a>, path: &'a Path, id: NodeId) -> Self {
        Site { analysis, id, node: analysis.graph.node(id), path }
    }

    /// Another node of the graph.
    pub fn at(&self, id: NodeId) -> Site<'a> {
        Site { id, node: self.analysis.graph.node(id), ..*self }
    }

    /// The operator set that gives the node its meaning.
    pub fn opset(&self) -> i64 {
        self.analysis.model.opset()
    }

    /// Whether a gradient has to pass the node.
    pub fn on_path(&self) -> bool {
        self.path.passes(self.id)
    }

    /// Whether the gradient of an input is computed.
    pub fn needs_gradient(&self, slot: usize) -> bool {
        self.analysis.graph.input(self.id, slot).is_some_and(|v| self.path.needs_gradient(v))
    }

    /// Whether an input depends on what is trained.
    pub fn depends_on_trained(&self, slot: usize) -> bool {
        self.analysis.graph.input(self.id, slot).is_some_and(|v| self.path.depends(v))
    }

    /// Values of the graph that the node's bodies read and whose gradients are computed, each once.
    pub fn captures_with_gradient(&self) -> Vec<ValueId> {
        let mut found: Vec<ValueId> = Vec::new();
        for capture in self.analysis.graph.captures_of(self.id) {
            if self.path.needs_gradient(capture.value) && !found.contains(&capture.value) {
                found.push(capture.value);
            }
        }
        found
    }

    /// A value of the graph.
    pub fn tensor(&self, value: ValueId) -> Tensor {
        Tensor { name: self.analysis.graph.name(value).to_owned(), ty: self.analysis.types.get(value).clone() }
    }

    /// Whether the gradient of an output is computed.
    pub fn gives_gradient(&self, slot: usize) -> bool {
        self.analysis.graph.output(self.id, slot).is_some_and(|v| self.path.needs_gradient(v))
    }

    /// Whether anything reads an output, or it is one of the graph's.
    pub fn is_read(&self, slot: usize) -> bool {
        let graph = &self.analysis.graph;
        graph.output(self.id, slot).is_some_and(|v| !graph.uses(v).is_empty() || graph.is_output(v))
    }

    /// Whether an input goes to other Slice or Gather nodes as well, so that ONNX Runtime may make them one Split.
    pub fn has_parts_of(&self, slot: usize) -> bool {
        let graph = &self.analysis.graph;
        let is_part = |node: NodeId| matches!(graph.node(node).op_type(), "Slice" | "Gather");
        let Some(value) = graph.input(self.id, slot) else { return false };
        graph.uses(value).iter().any(|u| u.node != self.id && is_part(u.node))
    }

    /// How many outputs the node has, without those left out at the end.
    pub fn outputs(&self) -> usize {
        self.node.output.iter().rposition(|o| !o.is_empty()).map_or(0, |i| i + 1)
    }

    /// An input; `None` where it is left out.
    pub fn input(&self, slot: usize) -> Option<Tensor> {
        let value = self.analysis.graph.input(self.id, slot)?;
        let name = self.analysis.graph.name(value).to_owned();
        Some(Tensor { name, ty: self.analysis.types.get(value).clone() })
    }

    /// Names of inputs that are initializers, with no reader but this node.
    pub fn parameters(&self) -> Vec<String> {
        let graph = &self.analysis.graph;
        let inputs = graph.inputs_of(self.id).iter().flatten();
        let is_own =
            |v: &&ValueId| graph.initializer(**v).is_some() && graph.uses(**v).iter().all(|u| u.node == self.id);
        inputs.filter(is_own).map(|v| graph.name(*v).to_owned()).collect()
    }

    /// An input that has to be there.
    pub fn required(&self, slot: usize) -> Known<Tensor> {
        self.input(slot).ok_or_else(|| Refusal(format!("its input {slot} is missing")))
    }

    /// All inputs that are there.
    pub fn inputs(&self) -> Vec<Tensor> {
        (0..self.node.input.len()).filter_map(|slot| self.input(slot)).collect()
    }

    /// What is known of an output.
    pub fn output_type(&self, slot: usize) -> TensorType {
        let value = self.analysis.graph.output(self.id, slot);
        value.map_or_else(TensorType::default, |v| self.analysis.types.get(v).clone())
    }

    /// An integer attribute.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.node.int(name).unwrap_or(default)
    }

    /// A float attribute.
    pub fn float(&self, name: &str, default: f32) -> f64 {
        f64::from(self.node.float(name).unwrap_or(default))
    }

    /// A constant input of integers.
    pub fn integers(&self, slot: usize) -> Option<Vec<i64>> {
        let whole = |v: f64| (v.fract() == 0.0 && v.abs() < 9e15).then_some(v as i64);
        self.numbers(slot)?.into_iter().map(whole).collect()
    }

    /// A constant input of numbers.
    pub fn numbers(&self, slot: usize) -> Option<Vec<f64>> {
        let graph = &self.analysis.graph;
        let value = graph.input(self.id, slot)?;
        // An initializer that is an input as well is a constant afterwards.
        graph.constant(value).or_else(|| graph.initial_values(value, LONGEST_LIST))
    }

    /// A list of integers that is an attribute in some operator sets and an input in others; `None` when it is neither.
    pub fn attribute_or_input(&self, name: &str, slot: usize) -> Known<Option<Vec<i64>>> {
        if let Some(values) = self.node.ints(name) {
            return Ok(Some(values.to_vec()));
        }
        match self.input(slot) {
            None => Ok(None),
            Some(_) => {
                let unknown = || Refusal(format!("its {name} are known only to the running graph"));
                self.integers(slot).map(Some).ok_or_else(unknown)
            }
        }
    }
}

/// Longest constant that rules look at.
const LONGEST_LIST: usize = 64;

/// Largest number of elements or positions that a rewriting writes into the file.
const LARGEST: i64 = 1 << 22;

/// A number of elements or positions that a rewriting is to write out, where that is reasonable.
pub fn written_out(n: i64) -> Known<i64> {
    if (0..=LARGEST).contains(&n) { Ok(n) } else { Err(Refusal(format!("{n} numbers would have to be written out"))) }
}

/// Whether the numbers of a node leave room to compute with them; no real model's do not.
pub fn is_reasonable(site: &Site) -> Known<()> {
    const BOUND: u64 = 1 << 24;
    let attributes = site.node.attribute.iter();
    let is_position = |name: &str| matches!(name, "starts" | "ends" | "ignore_index");
    let numbers = attributes.filter(|a| !is_position(a.name())).flat_map(|a| a.ints.iter().chain(a.i.as_ref()));
    if let Some(n) = numbers.copied().find(|n| n.unsigned_abs() > BOUND) {
        return Err(Refusal(format!("it has the number {n} among its attributes")));
    }
    let known = |t: Tensor| t.ty.dims.unwrap_or_default().iter().filter_map(Dim::known).max();
    let outputs =
        (0..site.node.output.len()).filter_map(|slot| site.output_type(slot).dims).flatten().filter_map(|d| d.known());
    match site.inputs().into_iter().filter_map(known).chain(outputs).max() {
        Some(n) if n > u64::from(u32::MAX) => Err(Refusal(format!("it has a dimension of {n}"))),
        _ => Ok(()),
    }
}

/// The rank of a tensor.
pub fn rank(x: &Tensor) -> Known<usize> {
    x.ty.rank().ok_or_else(|| Refusal(format!("the rank of {:?} is unknown", x.name)))
}

/// The rank of a tensor that has channels, and perhaps places.
pub fn rank_from(x: &Tensor, least: usize) -> Known<usize> {
    match rank(x)? {
        rank if rank >= least => Ok(rank),
        rank => Err(Refusal(format!("{:?} has rank {rank}, and {least} at least makes sense", x.name))),
    }
}

/// A dimension that has to be known.
pub fn size(x: &Tensor, axis: usize) -> Known<u64> {
    let dim = x.ty.dims.as_ref().and_then(|d| d.get(axis)).and_then(Dim::known);
    dim.ok_or_else(|| Refusal(format!("dimension {axis} of {:?} is known only to the running graph", x.name)))
}

/// An axis counted from the front.
pub fn axis(axis: i64, rank: usize) -> Known<usize> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    let found = usize::try_from(from_front).ok().filter(|a| *a < rank);
    found.ok_or_else(|| Refusal(format!("its axis {axis} is outside a tensor of rank {rank}")))
}

/// An extent as ONNX counts it.
pub fn extent(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
