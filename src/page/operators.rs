//! Families of operators, by which a picture is coloured.

/// The family of an operator, as the page's style sheet names it.
pub fn family(op: &str) -> &'static str {
    match op {
        "Conv" | "ConvTranspose" | "ConvInteger" | "QLinearConv" | "DeformConv" | "Gemm" | "MatMul"
        | "MatMulInteger" | "QLinearMatMul" | "FusedMatMul" | "Einsum" | "LSTM" | "GRU" | "RNN" | "Attention"
        | "MultiHeadAttention" => "layer",
        "Relu" | "LeakyRelu" | "PRelu" | "Elu" | "Selu" | "Celu" | "Gelu" | "FastGelu" | "BiasGelu" | "Sigmoid"
        | "HardSigmoid" | "HardSwish" | "Swish" | "Silu" | "Mish" | "Tanh" | "Softplus" | "Softsign"
        | "ThresholdedRelu" | "Softmax" | "LogSoftmax" | "Hardmax" | "Erf" | "Clip" | "Shrink" => "activation",
        "BatchNormalization"
        | "LayerNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "LpNormalization"
        | "RMSNormalization"
        | "MeanVarianceNormalization"
        | "LRN"
        | "Dropout" => "normalisation",
        "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" | "LpPool" | "GlobalLpPool"
        | "MaxRoiPool" | "RoiAlign" | "MaxUnpool" => "pool",
        "Reshape" | "Flatten" | "Transpose" | "Squeeze" | "Unsqueeze" | "Concat" | "Split" | "Slice" | "Gather"
        | "GatherND" | "GatherElements" | "Expand" | "Pad" | "Tile" | "Shape" | "Size" | "Cast" | "CastLike"
        | "Identity" | "Resize" | "DepthToSpace" | "SpaceToDepth" | "ScatterND" | "ScatterElements" | "OneHot"
        | "Upsample" => "shape",
        "Constant" | "ConstantOfShape" | "Range" | "EyeLike" | "RandomNormal" | "RandomNormalLike"
        | "RandomUniform" | "RandomUniformLike" | "Bernoulli" | "Multinomial" => "constant",
        "SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss" | "Gradient" => "loss",
        "If" | "Loop" | "Scan" | "SequenceMap" => "control",
        _ => "other",
    }
}
