//! The path of gradients as ONNX Runtime's gradient builder follows it, and the operators that it can follow it through.

use super::model::NEWER;
use super::site::Site;
use crate::analysis::Analysis;
use crate::graph::{Attributes, NodeId, ValueId};
use crate::onnx::NodeProto;
use crate::wire::is_float;

/// Nodes and values between what is trained and the loss.
#[derive(Debug)]
pub struct Path {
    nodes: Vec<bool>,
    /// By value: whether it depends on what is trained.
    depends: Vec<bool>,
    /// By value: whether its gradient is computed.
    values: Vec<bool>,
}

impl Path {
    /// Follows edges forward from the trained initializers and backward from the loss (or from every output), as ONNX Runtime's gradient
    /// builder does.
    pub fn of(analysis: &Analysis, loss: Option<ValueId>) -> Self {
        Self::following(analysis, loss, stops_gradient)
    }

    /// The same where `stops` says which inputs of an operator no gradient passes to.
    pub fn following(analysis: &Analysis, loss: Option<ValueId>, stops: fn(&NodeProto, usize) -> bool) -> Self {
        let to = loss.map_or_else(|| analysis.graph.outputs.clone(), |loss| vec![loss]);
        Self::between(analysis, &analysis.trained_values(), &to, stops)
    }

    /// The same from some values to others.
    pub fn between(
        analysis: &Analysis,
        from: &[ValueId],
        to: &[ValueId],
        stops: fn(&NodeProto, usize) -> bool,
    ) -> Self {
        let graph = &analysis.graph;
        let mut depends = vec![false; graph.value_count()];
        from.iter().for_each(|v| depends[v.index()] = true);
        let carries = |node: NodeId| {
            let operator = graph.node(node);
            let inputs = graph.inputs_of(node).iter().enumerate();
            inputs.filter(move |(slot, _)| !stops(operator, *slot)).filter_map(|(_, value)| *value)
        };
        let captured = |node: NodeId| graph.captures_of(node).iter().map(|c| c.value);
        for node in graph.topological_order() {
            if carries(*node).chain(captured(*node)).any(|v| depends[v.index()]) {
                graph.outputs_of(*node).iter().flatten().for_each(|v| depends[v.index()] = true);
            }
        }
        let mut leads = vec![false; graph.value_count()];
        to.iter().for_each(|v| leads[v.index()] = true);
        let mut nodes = vec![false; graph.nodes.len()];
        for node in graph.topological_order().iter().rev() {
            if graph.outputs_of(*node).iter().flatten().any(|v| leads[v.index()]) {
                let from: Vec<ValueId> = carries(*node).chain(captured(*node)).collect();
                nodes[node.index()] = from.iter().any(|v| depends[v.index()]);
                from.iter().for_each(|v| leads[v.index()] = true);
            }
        }
        let is_tensor_of_floats = |v: ValueId| analysis.types.get(v).is_float() != Some(false);
        let values = graph.values().map(|v| depends[v.index()] && leads[v.index()] && is_tensor_of_floats(v)).collect();
        Path { nodes, depends, values }
    }

    /// Whether a gradient has to pass a node.
    pub fn passes(&self, node: NodeId) -> bool {
        self.nodes[node.index()]
    }

    /// Whether a value depends on what is trained, along edges that carry gradients.
    pub fn depends(&self, value: ValueId) -> bool {
        self.depends[value.index()]
    }

    /// Whether the gradient of a value is computed.
    pub fn needs_gradient(&self, value: ValueId) -> bool {
        self.values[value.index()]
    }
}

/// Inputs at which the gradient builder stops.
fn stops_gradient(node: &NodeProto, slot: usize) -> bool {
    match node.op_type() {
        "Not" | "And" | "Or" | "Xor" | "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "IsInf"
        | "IsNaN" | "NonZero" | "Shape" | "Size" | "ConstantOfShape" | "OneHot" | "Range" => true,
        "Where" => slot == 0,
        "Pow" | "Gather" | "GatherElements" | "GatherND" | "Reshape" | "Expand" | "Scatter" | "ScatterElements"
        | "ScatterND" | "Tile" | "TopK" | "Squeeze" | "Unsqueeze" | "ReduceSum" | "ReduceMean" | "ReduceL2"
        | "ReduceLogSumExp" | "Split" => slot == 1,
        "Dropout" | "SoftmaxCrossEntropyLoss" | "Clip" | "Slice" | "Pad" => slot > 0,
        "Trilu" => slot == 1,
        "BatchNormalization" => slot > 2,
        "Cast" => !is_float(node.int("to").and_then(|to| i32::try_from(to).ok()).unwrap_or_default()),
        _ => false,
    }
}

/// Operators of the default domain that the gradient builder has a rule for.
const DIFFERENTIABLE: &[&str] = &[
    "Abs",
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Conv",
    "Cos",
    "Div",
    "Dropout",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "GRU",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "Pad",
    "Pow",
    "Reciprocal",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "ScatterElements",
    "ScatterND",
    "Sigmoid",
    "Sin",
    "Slice",
    "Softmax",
    "SoftmaxCrossEntropyLoss",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
];

/// The same for ONNX Runtime's own operators.
const DIFFERENTIABLE_OF_ORT: &[&str] =
    &["BiasGelu", "ConcatTraining", "FastGelu", "FusedMatMul", "Gelu", "QuickGelu", "SimplifiedLayerNormalization"];

/// Why a node that no rule rewrites is not taken; `None` when it is.
pub fn refusal(site: &Site) -> Option<String> {
    let op = site.node.op_type();
    let is_standard = matches!(site.node.domain(), "" | "ai.onnx");
    if is_standard && NEWER.contains(&op) {
        return Some(format!("ONNX Runtime 1.19.2 does not know {op}, and no exact rewriting is known"));
    }
    if !site.on_path() {
        return None;
    }
    let known = match site.node.domain() {
        "" | "ai.onnx" => DIFFERENTIABLE,
        "com.microsoft" => DIFFERENTIABLE_OF_ORT,
        _ => &[],
    };
    if known.contains(&op) {
        return None;
    }
    let whose = match site.node.domain() {
        "" | "ai.onnx" => String::new(),
        domain => format!(" of {domain:?}"),
    };
    Some(format!("no gradient of {op}{whose} is registered, and no exact rewriting is known"))
}
