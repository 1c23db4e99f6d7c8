//! Which rule differentiates which operator.

use super::adjoint::Adjoint;
use super::rules;
use crate::graph::Attributes;
use crate::onnx::NodeProto;
use crate::rewrite::site::{Known, Site};

/// How the gradient of one operator, or of a family, is taken.
///
/// Each rule's module has the equations. A rule is given the cotangents of a node's outputs and gives those of its inputs.
pub struct Rule {
    /// The operators, of ONNX's own domain.
    pub ops: &'static [&'static str],
    /// Writes the gradients.
    pub adjoint: fn(&mut Adjoint<'_, '_>) -> Known<()>,
}

/// Every rule.
const RULES: &[&[Rule]] = &[
    rules::activation::RULES,
    rules::arithmetic::RULES,
    rules::choice::RULES,
    rules::convolution::RULES,
    rules::flow::RULES,
    rules::gather::RULES,
    rules::layout::RULES,
    rules::loss::RULES,
    rules::normalization::RULES,
    rules::pieces::RULES,
    rules::pooling::RULES,
    rules::product::RULES,
    rules::recurrent::RULES,
    rules::reduction::RULES,
    rules::softmax::RULES,
    rules::unary::RULES,
];

/// Every rule, one after another.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().copied().flatten()
}

/// The rule of a node's operator, if it knows this form of it.
pub fn rule(site: &Site) -> Option<&'static Rule> {
    if !matches!(site.node.domain(), "" | "ai.onnx") || !is_known_form(site) {
        return None;
    }
    all().find(|rule| rule.ops.contains(&site.node.op_type()))
}

/// Whether the rule of the operator, if it has one, is for this form of it too.
fn is_known_form(site: &Site) -> bool {
    match site.node.op_type() {
        "Pad" => matches!(site.node.string("mode"), None | Some("constant")),
        "LSTM" | "GRU" | "RNN" => rules::recurrent::is_known_form(site),
        "ConvTranspose" => rules::convolution::is_plain(site),
        "SoftmaxCrossEntropyLoss" => !site.gives_gradient(1),
        _ => true,
    }
}

/// Operators that no gradient passes through at all.
pub const CONSTANT: &[&str] = &[
    "And",
    "ArgMax",
    "ArgMin",
    "Bernoulli",
    "BitShift",
    "Ceil",
    "ConstantOfShape",
    "Equal",
    "EyeLike",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "Hardmax",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "Multinomial",
    "NonZero",
    "Not",
    "Or",
    "RandomNormalLike",
    "RandomUniformLike",
    "Range",
    "Round",
    "Shape",
    "Sign",
    "Size",
    "Xor",
];

/// Whether no gradient passes from an operator's output to this input: it is an integer's or a condition's, or the function is piecewise
/// constant in it.
pub fn stops(node: &NodeProto, slot: usize) -> bool {
    if CONSTANT.contains(&node.op_type()) {
        return true;
    }
    match node.op_type() {
        "Where" | "If" => slot == 0,
        "Loop" | "OneHot" => slot < 2,
        "Gather" | "GatherElements" | "GatherND" | "Reshape" | "Expand" | "Tile" | "TopK" | "Squeeze" | "Unsqueeze"
        | "ReduceSum" | "ReduceMean" | "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
        | "ReduceMin" | "ReduceProd" | "ReduceSumSquare" | "Split" | "Trilu" | "CumSum" | "Scatter"
        | "ScatterElements" | "ScatterND" | "CastLike" | "ReverseSequence" | "Compress" | "CumProd" | "Col2Im"
        | "AffineGrid" | "CenterCropPad" => slot == 1,
        "MaxUnpool" => slot > 0,
        "RotaryEmbedding" => slot == 3,
        "Attention" => slot == 6,
        "Dropout" | "Slice" | "SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss" => slot > 0,
        "Pad" => slot != 0 && slot != 2,
        "BatchNormalization" => slot > 2,
        "Cast" => {
            let to = node.attribute.iter().find(|a| a.name() == "to").and_then(|a| i32::try_from(a.i()).ok());
            !crate::wire::is_float(to.unwrap_or_default())
        }
        _ => false,
    }
}
