//! The one table: what a tensor is that an operator reads at an input slot.

use super::Role;
use crate::onnx::NodeProto;

/// What a slot says of the float tensor in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// This, whatever the tensor.
    Is(Role),
    /// What the node's output is read as: the node only rearranges this input.
    Through,
    /// An operand of Add, Sub, Sum: a bias, positions, a mask or a constant.
    Added,
    /// An operand of Mul: a gain, a weight or a constant.
    Multiplied,
    /// A divisor.
    Divisor,
    /// Put side by side with activations: a learned token, or padding.
    Joined,
    /// A choice of Where.
    Chosen,
    /// Rows that are looked up.
    LookedUp,
    /// The argument of a function: a parameter, unless it is a single number.
    Argument,
}

/// The entry of a slot for float tensors.
pub(super) fn entry(domain: &str, op: &str, slot: u32) -> Entry {
    use Entry::{Added, Argument, Chosen, Divisor, Is, Joined, LookedUp, Multiplied, Through};
    let standard = matches!(domain, "" | "ai.onnx");
    if domain.starts_with("com.microsoft") {
        return microsoft(op, slot);
    }
    if !standard {
        return Argument;
    }
    match (op, slot) {
        (
            "Transpose" | "Reshape" | "Cast" | "CastLike" | "Identity" | "Squeeze" | "Unsqueeze" | "Slice" | "Split"
            | "Expand" | "Flatten" | "Tile" | "Pad" | "Dropout" | "QuantizeLinear" | "DequantizeLinear",
            0,
        ) => Through,
        ("Concat", _) => Joined,
        ("Conv" | "ConvTranspose" | "CausalConvWithState" | "DeformConv", 1) => Is(Role::Weight),
        ("Conv" | "ConvTranspose" | "CausalConvWithState", 2) | ("DeformConv", 3) => Is(Role::Bias),
        ("DeformConv", 4) => Is(Role::Mask),
        ("Gemm", 0 | 1) | ("MatMul" | "Einsum", _) => Is(Role::Weight),
        ("Gemm", 2) => Is(Role::Bias),
        (
            "BatchNormalization"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "LayerNormalization"
            | "RMSNormalization",
            1,
        ) => Is(Role::Scale),
        ("BatchNormalization" | "InstanceNormalization" | "GroupNormalization" | "LayerNormalization", 2) => {
            Is(Role::Shift)
        }
        ("BatchNormalization", 3 | 4) => Is(Role::State),
        // W, R and the peepholes P.
        ("LSTM" | "GRU" | "RNN", 1 | 2) | ("LSTM", 7) => Is(Role::Weight),
        ("LSTM" | "GRU" | "RNN", 3) => Is(Role::Bias),
        ("LSTM" | "GRU" | "RNN", 5) | ("LSTM", 6) => Is(Role::InitialState),
        ("PRelu", 1) => Is(Role::Weight),
        ("Gather" | "GatherElements" | "GatherND", 0) => LookedUp,
        ("Add" | "Sub" | "Sum" | "Mean", _) => Added,
        ("Mul", _) | ("Div", 0) => Multiplied,
        ("Div", 1) => Divisor,
        ("Where", 1 | 2) => Chosen,
        ("Attention", 3) => Is(Role::Mask),
        ("Attention", 4 | 5) => Is(Role::InitialState),
        ("RotaryEmbedding", 1 | 2) => Is(Role::Constant),
        // A triangle is cut out of masks.
        ("Trilu", 0) => Is(Role::Mask),
        ("Pow", 1)
        | ("Clip", 1..)
        | ("Pad" | "Dropout" | "Resize" | "Upsample" | "TopK", 1..)
        | ("OneHot", _)
        | ("Range", _) => Is(Role::Constant),
        ("Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Mod" | "Max" | "Min", _) => {
            Is(Role::Constant)
        }
        ("SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss", 1..) => Is(Role::Constant),
        ("QuantizeLinear" | "DequantizeLinear", 1..) => Is(Role::Quantization),
        ("CastLike" | "Shape" | "Size" | "RandomNormalLike" | "RandomUniformLike" | "EyeLike", _) => Is(Role::Constant),
        (name, _) if is_quantized(name) => Is(Role::Quantization),
        _ => Argument,
    }
}

/// Operators of ONNX Runtime that exporters and its own optimiser write.
fn microsoft(op: &str, slot: u32) -> Entry {
    use Entry::{Argument, Is};
    match (op, slot) {
        ("FusedMatMul", _) | ("FusedGemm" | "FusedConv" | "Attention", 1) | ("FusedGemm", 0) => Is(Role::Weight),
        ("FusedGemm" | "FusedConv" | "Attention", 2) | ("MultiHeadAttention", 3) => Is(Role::Bias),
        ("BiasGelu" | "FastGelu" | "BiasDropout" | "BiasSoftmax" | "BiasAdd", 1) => Is(Role::Bias),
        ("Attention", 3) => Is(Role::Mask),
        ("BatchNormInternal", 3 | 4) => Is(Role::State),
        ("GroupNorm" | "SimplifiedLayerNormalization" | "LayerNormalization" | "BatchNormInternal", 1)
        | ("SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" | "SkipGroupNorm", 2)
        | ("EmbedLayerNormalization", 5) => match op {
            "SkipGroupNorm" => Is(Role::Shift),
            _ => Is(Role::Scale),
        },
        ("GroupNorm" | "LayerNormalization" | "BatchNormInternal", 2)
        | ("SkipLayerNormalization", 3)
        | ("EmbedLayerNormalization", 6) => Is(Role::Shift),
        ("SkipGroupNorm", 1) => Is(Role::Scale),
        ("SkipLayerNormalization", 4) | ("SkipSimplifiedLayerNormalization", 3) => Is(Role::Bias),
        ("EmbedLayerNormalization", 2..=4) => Is(Role::Embedding),
        (name, _) if is_quantized(name) => Is(Role::Quantization),
        _ => Argument,
    }
}

fn is_quantized(op: &str) -> bool {
    op.starts_with("QLinear")
        || op.starts_with("QAttention")
        || op.starts_with("QGemm")
        || op.contains("Integer")
        || op.contains("NBits")
        || op.contains("QuantizeLinear")
}

/// Whether the whole numbers at a slot are a shape, axes, indices or lengths.
pub(super) fn is_shape_slot(domain: &str, op: &str, slot: u32) -> bool {
    matches!(domain, "" | "ai.onnx")
        && matches!(
            (op, slot),
            (
                "Reshape"
                    | "Expand"
                    | "Tile"
                    | "Squeeze"
                    | "Unsqueeze"
                    | "Split"
                    | "TopK"
                    | "Trilu"
                    | "CumSum"
                    | "CumProd"
                    | "Slice"
                    | "Pad"
                    | "Gather"
                    | "GatherElements"
                    | "GatherND"
                    | "ScatterElements"
                    | "ScatterND"
                    | "Scatter",
                1..
            ) | ("ConstantOfShape" | "Range" | "Shape", _)
                | ("OneHot", 0 | 1)
                | ("Resize", 3)
                | ("LSTM" | "GRU" | "RNN", 4)
                | ("Loop", 0)
        )
        || matches!(op, name if name.starts_with("Reduce") && slot == 1)
}

/// What the ONNX specification calls an input, where that says more than its number.
pub(super) fn input_name(node: &NodeProto, slot: u32) -> Option<&'static str> {
    let names: &[&'static str] = match node.op_type() {
        "Conv" | "ConvTranspose" => &["X", "W", "B"],
        "Gemm" => &["A", "B", "C"],
        "MatMul" | "Add" | "Sub" | "Mul" | "Div" => &["A", "B"],
        "BatchNormalization" => &["X", "scale", "B", "mean", "var"],
        "LayerNormalization" | "RMSNormalization" => &["X", "Scale", "B"],
        "InstanceNormalization" => &["input", "scale", "B"],
        "GroupNormalization" => &["X", "scale", "bias"],
        "LSTM" => &["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"],
        "GRU" | "RNN" => &["X", "W", "R", "B", "sequence_lens", "initial_h"],
        "Gather" | "GatherElements" | "GatherND" => &["data", "indices"],
        "PRelu" => &["X", "slope"],
        "Pow" => &["X", "Y"],
        "Where" => &["condition", "X", "Y"],
        "Clip" => &["input", "min", "max"],
        "Dropout" => &["data", "ratio", "training_mode"],
        "Reshape" | "Expand" => &["data", "shape"],
        "Slice" => &["data", "starts", "ends", "axes", "steps"],
        "Pad" => &["data", "pads", "constant_value", "axes"],
        "Resize" => &["X", "roi", "scales", "sizes"],
        "Squeeze" | "Unsqueeze" => &["data", "axes"],
        "Split" => &["input", "split"],
        "Tile" => &["input", "repeats"],
        "SoftmaxCrossEntropyLoss" => &["scores", "labels", "weights"],
        "NegativeLogLikelihoodLoss" => &["input", "target", "weight"],
        "QuantizeLinear" => &["x", "y_scale", "y_zero_point"],
        "DequantizeLinear" => &["x", "x_scale", "x_zero_point"],
        name if name.starts_with("Reduce") => &["data", "axes"],
        _ => &[],
    };
    names.get(usize::try_from(slot).ok()?).copied()
}
