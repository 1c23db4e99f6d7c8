//! Where gradients flow: which values depend on what is trained, and which lead to the loss.
//!
//! An operator that is not known, a call of a local function and the body of an If, Loop or Scan let gradients through: claiming that
//! they did not could lose a layer silently.

use std::collections::HashSet;

use super::infer::Types;
use super::{Graph, NodeId, ValueId};

/// Gradient paths of a graph.
#[derive(Debug, Clone)]
pub struct Reach {
    /// By value: whether it changes smoothly with what is trained.
    depends: Vec<bool>,
    trains: bool,
}

impl Reach {
    /// Follows gradients from the initializers that are trained, given by a flag for each in file order. Linear in the graph's size.
    pub fn of(graph: &Graph<'_>, types: &Types, trainable: &[bool]) -> Self {
        Self::with_bodies(graph, types, trainable, &HashSet::new())
    }

    /// As [`Reach::of`], where the bodies of some nodes, given by their positions, hold trained initializers of their own.
    pub fn with_bodies(graph: &Graph<'_>, types: &Types, trainable: &[bool], bodies: &HashSet<usize>) -> Self {
        let trains = trainable.contains(&true) || !bodies.is_empty();
        let mut reach = Reach { depends: vec![false; graph.value_count()], trains };
        for (value, _) in graph.initializer_values.iter().zip(trainable).filter(|(_, trained)| **trained) {
            reach.depends[value.index()] = true;
        }
        for node in graph.topological_order() {
            if bodies.contains(&node.index()) || differentiated(graph, types, *node).any(|v| reach.depends[v.index()]) {
                for slot in 0..graph.outputs_of(*node).len() {
                    if let Some(value) = smooth_output(graph, types, *node, slot) {
                        reach.depends[value.index()] = true;
                    }
                }
            }
        }
        reach
    }

    /// Whether anything is trained.
    pub fn trains(&self) -> bool {
        self.trains
    }

    /// Whether a value changes smoothly with a trained initializer.
    pub fn depends_on_trainable(&self, value: ValueId) -> bool {
        self.depends[value.index()]
    }

    /// By value: whether the loss changes smoothly with it. The loss itself counts.
    pub fn leads_to(&self, graph: &Graph<'_>, types: &Types, loss: ValueId) -> Vec<bool> {
        let mut leads = vec![false; graph.value_count()];
        leads[loss.index()] = true;
        for node in graph.topological_order().iter().rev() {
            let outputs = 0..graph.outputs_of(*node).len();
            if outputs.filter_map(|slot| smooth_output(graph, types, *node, slot)).any(|v| leads[v.index()]) {
                differentiated(graph, types, *node).for_each(|v| leads[v.index()] = true);
            }
        }
        leads
    }
}

/// Values that a node reads and that a gradient can flow back to.
fn differentiated<'a>(graph: &'a Graph<'_>, types: &'a Types, node: NodeId) -> impl Iterator<Item = ValueId> + 'a {
    let (domain, op) = (graph.node(node).domain(), graph.node(node).op_type());
    let inputs = (0u32..).zip(graph.inputs_of(node)).filter_map(|(slot, v)| v.map(|v| (slot, v)));
    let by_input = inputs.filter(move |(slot, _)| passes_gradient(domain, op, *slot)).map(|(_, v)| v);
    let inside = graph.captures_of(node).iter().map(|c| c.value);
    by_input.chain(inside).filter(|v| types.get(*v).is_float() != Some(false))
}

/// The output of a node, where gradients can flow from it.
fn smooth_output(graph: &Graph<'_>, types: &Types, node: NodeId, slot: usize) -> Option<ValueId> {
    let value = graph.output(node, slot)?;
    let beside = slot > 0
        && matches!(graph.node(node).op_type(), "Dropout" | "MaxPool" | "TopK" | "BatchNormalization" | "Unique");
    (!beside && types.get(value).is_float() != Some(false)).then_some(value)
}

/// Whether a gradient can flow from an operator's output to this input. The only list of what blocks gradients, element types aside.
pub fn passes_gradient(domain: &str, op: &str, slot: u32) -> bool {
    if !matches!(domain, "" | "ai.onnx") {
        return true;
    }
    let blocks = match op {
        // Steps, comparisons and what depends on the shape only.
        "Shape"
        | "Size"
        | "Equal"
        | "Less"
        | "LessOrEqual"
        | "Greater"
        | "GreaterOrEqual"
        | "And"
        | "Or"
        | "Xor"
        | "Not"
        | "IsNaN"
        | "IsInf"
        | "ArgMax"
        | "ArgMin"
        | "Hardmax"
        | "NonZero"
        | "Floor"
        | "Ceil"
        | "Round"
        | "Sign"
        | "BitShift"
        | "BitwiseAnd"
        | "BitwiseOr"
        | "BitwiseXor"
        | "BitwiseNot"
        | "ConstantOfShape"
        | "EyeLike"
        | "RandomNormalLike"
        | "RandomUniformLike"
        | "Bernoulli"
        | "Multinomial"
        | "Range"
        | "NonMaxSuppression"
        | "DynamicQuantizeLinear"
        | "MelWeightMatrix"
        | "HannWindow"
        | "HammingWindow"
        | "BlackmanWindow"
        | "TfIdfVectorizer"
        | "StringNormalizer" => true,
        // Shapes, axes, indices, repeats.
        "Reshape" | "Expand" | "Tile" | "Squeeze" | "Unsqueeze" | "Split" | "Slice" | "Gather" | "GatherElements"
        | "GatherND" | "TopK" | "Trilu" | "CumSum" | "CumProd" | "Resize" | "Upsample" | "Dropout" | "CastLike"
        | "Compress" | "ReverseSequence" | "RoiAlign" | "MaxRoiPool" | "MaxUnpool" => slot > 0,
        "ScatterElements" | "ScatterND" | "Scatter" | "TensorScatter" => slot == 1 || slot > 2,
        "Pad" => slot == 1 || slot == 3,
        "OneHot" => slot < 2,
        "Where" | "If" => slot == 0,
        "Loop" => slot < 2,
        "LSTM" | "GRU" | "RNN" => slot == 4,
        // Labels and class weights.
        "SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss" => slot > 0,
        // Running statistics, scales and zero points.
        "BatchNormalization" => slot > 2,
        "QuantizeLinear" | "DequantizeLinear" => slot > 0,
        _ => op.starts_with("Reduce") && slot > 0,
    };
    !blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{Net, open_model};
    use crate::onnx::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};
    use crate::wire::Model;

    /// Which of the named values depend on initializer `w`, and which lead to `loss`.
    fn both(model: &Model, names: &[&str]) -> (Vec<bool>, Vec<bool>) {
        let graph = Graph::of(model).unwrap();
        let types = Types::of(&graph, model);
        let trained: Vec<bool> = graph.initializers.iter().map(|i| i.name.starts_with('w')).collect();
        let reach = Reach::of(&graph, &types, &trained);
        let leads = reach.leads_to(&graph, &types, graph.find("loss").unwrap());
        let values = || names.iter().map(|n| graph.find(n).unwrap());
        (values().map(|v| reach.depends_on_trainable(v)).collect(), values().map(|v| leads[v.index()]).collect())
    }

    #[test]
    fn gradients_stop_at_shapes_comparisons_and_indices() {
        let net = Net::new()
            .input("x", 1, "N 4")
            .weight("w", &[4, 4])
            .numbers("axes", &[0])
            .node("MatMul", &["x", "w"], &["h"], vec![])
            .node("Shape", &["h"], &["s"], vec![])
            .node("Greater", &["h", "x"], &["m"], vec![])
            .node("Where", &["m", "h", "x"], &["c"], vec![])
            .node("ArgMax", &["c"], &["i"], vec![])
            .node("Reshape", &["c", "s"], &["r"], vec![])
            .node("Floor", &["h"], &["f"], vec![])
            .node("Add", &["r", "f"], &["a"], vec![])
            .node("ReduceSum", &["a"], &["loss"], vec![]);
        let (depends, leads) = both(&net.build(), &["x", "h", "s", "m", "c", "i", "r", "f", "a", "loss"]);
        assert_eq!(depends, [false, true, false, false, true, false, true, false, true, true]);
        assert_eq!(leads, [true, true, false, false, true, false, true, true, true, true]);
    }

    #[test]
    fn unknown_operators_and_captures_by_bodies_let_gradients_through() {
        let inner = NodeProto {
            op_type: Some("Neg".into()),
            input: vec!["h".into()],
            output: vec!["n".into()],
            ..Default::default()
        };
        let output = ValueInfoProto { name: Some("n".into()), ..Default::default() };
        let body = GraphProto { node: vec![inner], output: vec![output], ..Default::default() };
        let branch = |name: &str| AttributeProto {
            name: Some(name.into()),
            g: Some(Box::new(body.clone())),
            ..Default::default()
        };
        let net = Net::new()
            .input("x", 1, "N 4")
            .input("c", 9, "")
            .weight("w", &[4])
            .node_of("my.domain", "Mystery", &["x", "w"], &["h"], vec![])
            .node("If", &["c"], &["y"], vec![branch("then_branch"), branch("else_branch")])
            .node("ReduceSum", &["y"], &["loss"], vec![]);
        assert_eq!(
            both(&net.build(), &["h", "y", "loss", "w", "c"]),
            (vec![true, true, true, true, false], vec![true, true, true, true, false])
        );
    }

    #[test]
    fn in_a_reference_model_what_is_computed_reaches_the_loss_and_labels_do_not() {
        let model = open_model("gpt_gelu.ts17");
        let graph = Graph::of(&model).unwrap();
        let types = Types::of(&graph, &model);
        let roles = crate::graph::role::roles(&graph, &types);
        let reach = Reach::of(&graph, &types, &crate::graph::role::apply_overrides(&roles, None, None));
        let leads = reach.leads_to(&graph, &types, graph.outputs[0]);
        for (name, on_path) in
            [("/b/b.0/f1/Add_output_0", true), ("/Reshape_1_output_0", false), ("/b/b.0/Shape_output_0", false)]
        {
            let value = graph.find(name).unwrap();
            assert_eq!((reach.depends_on_trainable(value), leads[value.index()]), (on_path, on_path), "{name}");
        }
        assert!(roles.iter().all(|r| r.role.is_trainable() && leads[r.value.index()]));
    }
}
