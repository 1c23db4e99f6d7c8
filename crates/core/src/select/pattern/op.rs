//! Operators as small codes, decided once per node: patterns compare codes, not strings.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::function::Functions;
use crate::graph::Attributes;
use crate::onnx::NodeProto;
use crate::select::Activation;

/// What a node is to the patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Abs,
    Add,
    /// Cast or CastLike.
    Cast,
    Clip,
    Constant,
    Div,
    Erf,
    Exp,
    Gemm,
    Greater,
    GreaterOrEqual,
    Identity,
    Less,
    LessOrEqual,
    Log,
    MatMul,
    Max,
    Min,
    Mul,
    Neg,
    Not,
    Pow,
    Reciprocal,
    Reshape,
    Slice,
    Split,
    Sqrt,
    Squeeze,
    Sub,
    Unsqueeze,
    Where,
    /// An activation as one node: an operator, or the call of a function that is one. Its input is input 0.
    Activation(Activation),
    /// The call of a local function that is no activation.
    Call(u32),
    Other,
}

static STANDARD: LazyLock<HashMap<&'static str, Op, foldhash::fast::RandomState>> = LazyLock::new(|| {
    use Activation as A;
    let plain = [
        ("Abs", Op::Abs),
        ("Add", Op::Add),
        ("Cast", Op::Cast),
        ("CastLike", Op::Cast),
        ("Clip", Op::Clip),
        ("Constant", Op::Constant),
        ("Div", Op::Div),
        ("Erf", Op::Erf),
        ("Exp", Op::Exp),
        ("Gemm", Op::Gemm),
        ("Greater", Op::Greater),
        ("GreaterOrEqual", Op::GreaterOrEqual),
        ("Identity", Op::Identity),
        ("Less", Op::Less),
        ("LessOrEqual", Op::LessOrEqual),
        ("Log", Op::Log),
        ("MatMul", Op::MatMul),
        ("Max", Op::Max),
        ("Min", Op::Min),
        ("Mul", Op::Mul),
        ("Neg", Op::Neg),
        ("Not", Op::Not),
        ("Pow", Op::Pow),
        ("Reciprocal", Op::Reciprocal),
        ("Reshape", Op::Reshape),
        ("Slice", Op::Slice),
        ("Split", Op::Split),
        ("Sqrt", Op::Sqrt),
        ("Squeeze", Op::Squeeze),
        ("Sub", Op::Sub),
        ("Sum", Op::Add),
        ("Unsqueeze", Op::Unsqueeze),
        ("Where", Op::Where),
    ];
    let activations = [
        ("Relu", A::Relu),
        ("LeakyRelu", A::LeakyRelu),
        ("PRelu", A::PRelu),
        ("Elu", A::Elu),
        ("Selu", A::Selu),
        ("Celu", A::Celu),
        ("Gelu", A::Gelu),
        ("Swish", A::Silu),
        ("Mish", A::Mish),
        ("HardSwish", A::HardSwish),
        ("HardSigmoid", A::HardSigmoid),
        ("Sigmoid", A::Sigmoid),
        ("Tanh", A::Tanh),
        ("Softplus", A::Softplus),
        ("Softsign", A::Softsign),
        ("ThresholdedRelu", A::ThresholdedRelu),
        ("LSTM", A::Lstm),
        ("GRU", A::Gru),
        ("RNN", A::Rnn),
    ];
    plain.into_iter().chain(activations.map(|(name, a)| (name, Op::Activation(a)))).collect()
});

/// The code of a node.
pub fn classify(node: &NodeProto, functions: &Functions<'_>) -> Op {
    if let Some(call) = functions.find(node) {
        return functions.activation_of_call(call, node).map_or(Op::Call(call), Op::Activation);
    }
    match node.domain() {
        "" | "ai.onnx" => match STANDARD.get(node.op_type()).copied().unwrap_or(Op::Other) {
            // Swish (opset 24) is x·σ(αx).
            Op::Activation(Activation::Silu) if !float_is(node, "alpha", 1.0, 1.0) => Op::Other,
            op => op,
        },
        "com.microsoft" => match node.op_type() {
            "Gelu" => Op::Activation(Activation::Gelu),
            "FastGelu" if node.input.get(1).is_none_or(String::is_empty) => Op::Activation(Activation::Gelu),
            // QuickGelu is x·σ(αx); ONNX Runtime writes SiLU so.
            "QuickGelu" if float_is(node, "alpha", 1.702, 1.0) => Op::Activation(Activation::Silu),
            // What the gradient builder makes of recurrent operators.
            "LSTMTraining" => Op::Activation(Activation::Lstm),
            "GRUTraining" => Op::Activation(Activation::Gru),
            _ => Op::Other,
        },
        _ => Op::Other,
    }
}

/// Whether a float attribute, or its default, is `wanted` up to float32's rounding. A reference to a function's attribute is not.
pub fn float_is(node: &NodeProto, name: &str, default: f32, wanted: f32) -> bool {
    let value = match node.attribute(name) {
        Some(a) if a.ref_attr_name.as_ref().is_some_and(|r| !r.is_empty()) => return false,
        Some(a) => a.f(),
        None => default,
    };
    (value - wanted).abs() <= 1e-5 * wanted.abs()
}
