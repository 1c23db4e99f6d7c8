//! The path of gradients as ONNX Runtime's gradient builder follows it, and the operators that it can follow it through.

use super::model::NEWER;
use crate::analysis::Analysis;
use crate::graph::{Attributes, ValueId};
use crate::onnx::NodeProto;
pub use crate::rewrite::path::Path;
use crate::rewrite::site::Site;
use crate::wire::is_float;

/// The path to the loss (or to every output) as ONNX Runtime's gradient builder follows it.
pub fn path(analysis: &Analysis, loss: Option<ValueId>) -> Path {
    Path::following(analysis, loss, stops_gradient)
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
