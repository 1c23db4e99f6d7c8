//! Which rule infers the outputs of which operator.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::integers;
use super::layout::Making;
use super::site::Site;
use super::{
    constant, convolution, flow, loss, matmul, normalization, pointwise, pooling, recurrent, reduction, resize, select,
    shaping,
};
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;

/// How the outputs of an operator follow from its inputs.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// The first output has the element type of this input and these dimensions.
    Like(usize, fn(&Site<'_, '_>) -> Option<Vec<Dim>>),
    /// The first output has this element type and these dimensions.
    Typed(DataType, fn(&Site<'_, '_>) -> Option<Vec<Dim>>),
    /// Every output on its own.
    Each(fn(&Site<'_, '_>) -> Vec<TensorType>),
}

/// All that is known of an operator, found by one look-up a node.
pub(super) struct Operator {
    pub rule: Rule,
    pub layout: Making,
    /// Whether it takes part in shape arithmetic.
    pub integers: bool,
}

/// What is known of an operator.
pub(super) fn operator(domain: &str, op: &str) -> Option<&'static Operator> {
    match domain {
        "" | "ai.onnx" => STANDARD.get(op),
        "com.microsoft" => MICROSOFT.get(op),
        _ => None,
    }
}

type Table = HashMap<&'static str, Operator, foldhash::fast::RandomState>;

/// Rules by operator name, from lists of names that share one.
fn table(groups: &[(&'static str, Rule)], arithmetic: bool) -> Table {
    let operator = |name: &'static str, rule: Rule| {
        // An operator that is known and has no layout of its own hands on that of its inputs.
        let layout = Making::of(name).unwrap_or(Making::Joined);
        (name, Operator { rule, layout, integers: arithmetic && integers::takes_part(name) })
    };
    groups.iter().flat_map(|(names, rule)| names.split_whitespace().map(move |name| operator(name, *rule))).collect()
}

static STANDARD: LazyLock<Table> = LazyLock::new(|| {
    use Rule::{Each, Like, Typed};
    table(
        &[
            // One input, same shape and type.
            (
                "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh CumProd CumSum Elu Erf Exp Floor Gelu \
             GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization LRN LeakyRelu Log LogSoftmax \
             LpNormalization MeanVarianceNormalization Mish Neg PRelu RMSNormalization Reciprocal Relu ReverseSequence \
             RotaryEmbedding Round Scatter ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus \
             Softsign Sqrt Swish Tan Tanh TensorScatter ThresholdedRelu Trilu",
                Like(0, pointwise::same),
            ),
            ("IsInf IsNaN Not", Typed(DataType::Bool, pointwise::same)),
            ("Dropout", Each(pointwise::dropout)),
            ("Cast", Each(pointwise::cast)),
            ("CastLike", Like(1, pointwise::same)),
            ("Bernoulli EyeLike RandomNormalLike RandomUniformLike", Each(pointwise::like_with_dtype)),
            ("QuantizeLinear DequantizeLinear", Each(pointwise::quantize)),
            // Several inputs that broadcast.
            (
                "Add BitShift BitwiseAnd BitwiseOr BitwiseXor Div Max Mean Min Mod Mul Pow Sub Sum",
                Each(pointwise::broadcast_all),
            ),
            (
                "And Equal Greater GreaterOrEqual Less LessOrEqual Or Xor",
                Typed(DataType::Bool, pointwise::broadcast_dims),
            ),
            ("Where", Each(pointwise::choose)),
            // Sliding windows.
            ("Conv DeformConv", Like(0, convolution::conv)),
            ("ConvTranspose", Like(0, convolution::transposed)),
            ("MaxPool", Each(pooling::max_pool)),
            ("AveragePool LpPool", Like(0, pooling::pool)),
            ("GlobalAveragePool GlobalLpPool GlobalMaxPool", Like(0, pooling::global)),
            ("DepthToSpace", Like(0, resize::depth_to_space)),
            ("SpaceToDepth", Like(0, resize::space_to_depth)),
            ("Resize Upsample", Like(0, resize::resize)),
            ("GridSample", Like(0, resize::grid_sample)),
            // Products.
            ("Gemm", Like(0, matmul::gemm)),
            ("MatMul", Like(0, matmul::matmul)),
            ("Einsum", Like(0, matmul::einsum)),
            // Normalisation and losses.
            ("BatchNormalization", Each(normalization::batch)),
            ("LayerNormalization", Each(normalization::layer)),
            ("SoftmaxCrossEntropyLoss", Each(loss::softmax_cross_entropy)),
            ("NegativeLogLikelihoodLoss", Like(0, loss::negative_log_likelihood)),
            // Recurrent.
            ("LSTM", Each(recurrent::lstm)),
            ("GRU RNN", Each(recurrent::gru)),
            // Reductions.
            (
                "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare",
                Like(0, reduction::reduce),
            ),
            ("ArgMax ArgMin", Typed(DataType::Int64, reduction::arg)),
            ("Det", Like(0, reduction::determinant)),
            ("TopK", Each(reduction::top_k)),
            // Shapes of the same elements.
            ("Reshape", Like(0, shaping::reshape)),
            ("Flatten", Like(0, shaping::flatten)),
            ("Transpose", Like(0, shaping::transpose)),
            ("Squeeze", Like(0, shaping::squeeze)),
            ("Unsqueeze", Like(0, shaping::unsqueeze)),
            ("Expand", Like(0, shaping::expand)),
            ("Tile", Like(0, shaping::tile)),
            ("Pad", Like(0, shaping::pad)),
            ("Concat", Each(shaping::concat)),
            ("Split", Each(shaping::split)),
            // Some of the elements.
            ("Slice", Like(0, select::slice)),
            ("Gather", Like(0, select::gather)),
            ("GatherElements", Like(0, select::gather_elements)),
            ("GatherND", Like(0, select::gather_nd)),
            ("NonZero", Typed(DataType::Int64, select::non_zero)),
            ("OneHot", Like(2, select::one_hot)),
            ("If", Each(flow::branches)),
            ("Scan", Each(flow::scan)),
            ("Loop", Each(flow::repeat)),
            // Out of nothing.
            ("Constant", Each(constant::constant)),
            ("ConstantOfShape", Each(constant::constant_of_shape)),
            ("RandomNormal RandomUniform", Each(constant::random)),
            ("Range", Like(0, constant::range)),
            ("Shape", Typed(DataType::Int64, constant::shape)),
            ("SequenceLength Size", Typed(DataType::Int64, |_| Some(Vec::new()))),
        ],
        true,
    )
});

static MICROSOFT: LazyLock<Table> = LazyLock::new(|| {
    table(
        &[
            ("BiasGelu FastGelu Gelu QuickGelu", Rule::Like(0, pointwise::same)),
            ("FusedMatMul", Rule::Like(0, matmul::fused)),
            // What ONNX Runtime makes of operators whose gradient it takes.
            ("BatchNormInternal", Rule::Like(0, pointwise::same)),
            ("LSTMTraining", Rule::Each(recurrent::lstm)),
            ("GRUTraining", Rule::Each(recurrent::gru)),
        ],
        false,
    )
});
