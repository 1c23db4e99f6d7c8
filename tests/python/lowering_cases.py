"""Every operator and form that `--for ort-training` rewrites, and forms of others that must go on working."""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, helper

from lowering import FLOAT, Case, node

RNG = np.random.default_rng(20)
f = lambda *shape: RNG.standard_normal(shape).astype(np.float32)
i64 = lambda *values: np.array(values, np.int64)
f32 = lambda *values: np.array(values, np.float32)


def unary(op, opset=17, name=None, x=None, **attributes):
    return Case(name or op, [node(op, "h", **attributes)], opset=opset, x=x, rewrites=[op])


def reduction(op, opset, rewrites=True, shape=(3, 4, 2), name="", x=None, **attributes):
    axes = attributes.pop("axes", None)
    words, constants = "h", {}
    since = 13 if op == "ReduceSum" else 18
    if axes is not None and opset >= since:
        words, constants = "h axes", {"axes": i64(*axes)}
    elif axes is not None:
        attributes["axes"] = list(axes)
    label = f"{op}-{opset}-{'all' if axes is None else ''.join(map(str, axes))}-keep{attributes.get('keepdims', 1)}{name}"
    refused = "number of its factors is known only to the running graph" if op == "ReduceProd" and axes is None else None
    return Case(label, [node(op, words, **attributes)], shape, constants, opset=opset, x=x, rewrites=[op] if rewrites else None, refused_open=refused)


UNKNOWN_LENGTH = "known only to the running graph"

EDGES = np.array([[-3.0, -1.0, -0.5, 0.25], [0.5, 1.0, 2.0, 3.5], [-20.0, 20.0, -90.0, 90.0]])

ACTIVATIONS = [
    unary("Elu"),
    unary("Elu", name="Elu-alpha", alpha=0.5, x=EDGES),
    unary("Selu", x=EDGES),
    unary("Selu", name="Selu-attributes", alpha=1.2, gamma=0.7),
    unary("Celu", x=EDGES),
    unary("Celu", name="Celu-alpha", alpha=2.0),
    unary("Softplus", x=EDGES),
    unary("Softsign", x=EDGES),
    unary("HardSigmoid"),
    unary("HardSigmoid", name="HardSigmoid-attributes", alpha=0.3, beta=0.4),
    unary("HardSwish", x=2 * EDGES),
    unary("Mish", opset=18, x=EDGES),
    unary("ThresholdedRelu", alpha=0.3),
    unary("Shrink", lambd=0.4, bias=0.2),
    Case("PRelu", [node("PRelu", "h p1")], (2, 3, 2, 2), {"p1": f(3, 1, 1)}, rewrites=["PRelu"]),
    Case("PRelu-one", [node("PRelu", "h p1")], (3, 4), {"p1": f32(0.25)}, rewrites=["PRelu"]),
    unary("Gelu", opset=20, name="Gelu-tanh", approximate="tanh"),
    Case("Gelu", [node("Gelu", "h")], opset=20),
    Case("LeakyRelu", [node("LeakyRelu", "h", alpha=0.2)]),
    unary("Swish", opset=24),
    unary("Swish", opset=24, name="Swish-alpha", alpha=1.7),
]

POINTS = np.linspace(-0.95, 0.95, 12).reshape(3, 4)
WIDE = np.array([[-1e4, -30.0, -2.5, -1.0], [-0.3, -1e-3, 1e-3, 0.3], [1.0, 2.4, 50.0, 1e5]])

FUNCTIONS = [
    unary("Atan", x=WIDE),
    unary("Tan", x=1.4 * POINTS),
    unary("Asin", x=POINTS),
    unary("Acos", x=POINTS),
    unary("Sinh", x=4 * POINTS),
    unary("Cosh", x=4 * POINTS),
    unary("Asinh", x=np.clip(WIDE, -100, 100)),
    unary("Acosh", x=1.2 + np.abs(4 * POINTS)),
    unary("Atanh", x=POINTS),
    *(
        Case(op, [node(op, "h", "g"), node("Mul", "h g")], rewrites=[op], x=np.array([[-1.7, 0.2, 2.6, 3.2]]))
        for op in ("Sign", "Floor", "Ceil", "Round")
    ),
    Case("Mod", [node("Mod", "h m", fmod=1)], initializers={"m": f32(0.7)}, rewrites=["Mod"]),
    *(Case(op, [node(op, "h")]) for op in ("Abs", "Neg", "Exp", "Erf", "Reciprocal", "Sin", "Cos", "Sigmoid", "Tanh", "Identity")),
    *(unary_positive for unary_positive in [Case(op, [node(op, "h")], x=1 + POINTS**2) for op in ("Log", "Sqrt")]),
    Case("Pow-2", [node("Pow", "h e")], initializers={"e": f32(2.0)}),
    Case("Pow-integer-exponent", [node("Pow", "h e")], initializers={"e": np.array(3, np.int64)}, rewrites=["Pow"]),
    Case("Pow-broadcast-base", [node("Pow", "p1 e", "w"), node("Mul", "h w")], (3, 4),
         {"p1": f32(0.7), "e": f32(1.0, 2.0, 3.0, 0.5)}, rewrites=["Pow"]),
    Case("CastLike", [node("CastLike", "h k")], initializers={"k": f32(0.0)}, opset=19, rewrites=["CastLike"]),
]

SUMS = [
    Case("Sum-1", [node("Sum", "h")], rewrites=["Sum"]),
    Case("Sum-3", [node("Sum", "h p1 p2")], initializers={"p1": f(4), "p2": f(1, 1)}, rewrites=["Sum"]),
    Case("Mean-3", [node("Mean", "h p1 h")], initializers={"p1": f(3, 1)}, rewrites=["Mean"]),
    Case("Max-1", [node("Max", "h")]),
    Case("Max-3", [node("Max", "h p1 p2")], initializers={"p1": f(4), "p2": f(1, 1)}),
    Case("Min-2", [node("Min", "h p1")], initializers={"p1": f(3, 1)}),
    Case("Clip", [node("Clip", "h lo hi")], initializers={"lo": np.float32(-0.5), "hi": np.float32(0.4)}),
    Case("Clip-upper", [node("Clip", "h - hi")], initializers={"hi": np.float32(0.4)}),
    Case("Clip-none", [node("Clip", "h")]),
    Case("Where", [node("Less", "h q", "m"), node("Where", "m h k")], initializers={"q": f32(0.1), "k": f32(0.3)}),
    Case("Where-broadcast", [node("Less", "h q", "m"), node("Where", "m h p1")], initializers={"q": f32(0.1), "p1": f(4)},
         rewrites=["Where"]),
    Case("Einsum-matmul", [node("Einsum", "h p1", equation="ij,jk->ik")], initializers={"p1": f(4, 2)}, rewrites=["Einsum"]),
    Case("Einsum-heads", [node("Einsum", "h p1", equation="bthd,bshd->bhts")], (2, 3, 2, 2), {"p1": f(2, 5, 2, 2)}, rewrites=["Einsum"]),
    Case("Einsum-implicit", [node("Einsum", "h p1", equation="bij, bjk")], (2, 3, 4), {"p1": f(2, 4, 2)}, rewrites=["Einsum"]),
    Case("Einsum-ellipsis", [node("Einsum", "h p1", equation="...ij,jk->...ik")], (2, 3, 4), {"p1": f(4, 2)}, rewrites=["Einsum"]),
    Case("Einsum-outer", [node("Einsum", "h p1", equation="i,j->ij")], (3,), {"p1": f(4)}, rewrites=["Einsum"]),
    Case("Einsum-inner", [node("Einsum", "h p1", equation="i,i->")], (3,), {"p1": f(3)}, rewrites=["Einsum"]),
    Case("Einsum-multiply", [node("Einsum", "h p1", equation="ij,ij->ij")], initializers={"p1": f(3, 4)}, rewrites=["Einsum"]),
    Case("Einsum-transpose", [node("Einsum", "h", equation="ij->ji")], rewrites=["Einsum"]),
    Case("Einsum-sum", [node("Einsum", "h", equation="ijk->j")], (2, 3, 4), rewrites=["Einsum"]),
    Case("Einsum-two-contracted", [node("Einsum", "h p1", equation="bhtd,hde->bte")], (2, 2, 3, 2), {"p1": f(2, 2, 4)}, rewrites=["Einsum"]),
    Case("Einsum-three", [node("Einsum", "h p1 p2", equation="ij,jk,kl->il")], initializers={"p1": f(4, 2), "p2": f(2, 3)}, rewrites=["Einsum"]),
    Case("Einsum-diagonal", [node("Einsum", "h", equation="ii->i")], (3, 3), rewrites=["Einsum"], refused_open=UNKNOWN_LENGTH),
    Case("Einsum-trace", [node("Einsum", "h", equation="bii->b")], (2, 3, 3), rewrites=["Einsum"]),
    Case("Einsum-diagonal-apart", [node("Einsum", "h p1", equation="bibj,ij->bj")], (2, 3, 2, 4), {"p1": f(3, 4)}, rewrites=["Einsum"], refused_open=UNKNOWN_LENGTH),
    Case("Einsum-diagonal-of-a-parameter", [node("Einsum", "h p1", equation="bi,ijj->bi")], (2, 3), {"p1": f(3, 4, 4)}, rewrites=["Einsum"]),
    Case("Einsum-diagonal-thrice", [node("Einsum", "h", equation="biii->bi")], (2, 3, 3, 3), rewrites=["Einsum"]),
    Case("Mul-a-parameter-twice", [node("Mul", "p1 p1", "w"), node("Mul", "h w")], initializers={"p1": f(3, 4)}, rewrites=["Mul"]),
    Case("Add-a-parameter-twice", [node("Add", "p1 p1", "w"), node("Mul", "h w")], initializers={"p1": f(3, 4)}, rewrites=["Add"]),
    Case("ReduceSumSquare-of-a-parameter", [node("ReduceSumSquare", "p1", "w", axes=[1]), node("Mul", "h w")], initializers={"p1": f(3, 4)}, rewrites=["ReduceSumSquare"]),
    Case("MatMul-vector", [node("MatMul", "h p1")], initializers={"p1": f(4)}, rewrites=["MatMul"]),
    Case("MatMul-batched", [node("MatMul", "h p1")], (2, 3, 4), {"p1": f(4, 2)}),
    Case("MatMul-vector-left", [node("MatMul", "p1 h")], initializers={"p1": f(3)}, rewrites=["MatMul"]),
    Case("Gemm-no-bias", [node("Gemm", "h p1", transB=1, alpha=0.5)], initializers={"p1": f(2, 4)}),
    Case("Gemm-bias", [node("Gemm", "h p1 p2", beta=2.0)], initializers={"p1": f(4, 2), "p2": f(2)}),
    Case("CumSum", [node("CumSum", "h a")], initializers={"a": np.array(1, np.int64)}, rewrites=["CumSum"]),
    Case("CumSum-exclusive-reverse", [node("CumSum", "h a", exclusive=1, reverse=1)], (2, 3, 4), {"a": np.array(-2, np.int64)}, rewrites=["CumSum"]),
    Case("CumSum-batch", [node("CumSum", "h a", exclusive=1)], initializers={"a": np.array(0, np.int64)}, rewrites=["CumSum"]),
]

REDUCTIONS = [
    reduction(op, opset, op not in ("ReduceMean", "ReduceSum", "ReduceL2", "ReduceLogSumExp") or (op in ("ReduceL2", "ReduceLogSumExp") and opset == 13 and options.get("keepdims") == 0), x=x, **options)
    for op in ("ReduceMax", "ReduceMin", "ReduceL1", "ReduceSumSquare", "ReduceLogSum", "ReduceProd", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceLogSumExp")
    for x in [np.abs(np.random.default_rng(5).standard_normal((3, 4, 2))) + 0.1 if op == "ReduceLogSum" else None]
    for opset, options in ((13, dict(axes=(1,), keepdims=0)), (18, dict(axes=(-1, 1))), (18, dict(axes=(1, 2), keepdims=0)), (13, dict(keepdims=0)), (17, dict(axes=(2,))))
]

LABELS = i64(1, 0, 3)
LOSSES = [
    Case("SoftmaxCrossEntropyLoss", [node("SoftmaxCrossEntropyLoss", "h t")], feeds={"t": LABELS}, rewrites=["SoftmaxCrossEntropyLoss"]),
    Case("SoftmaxCrossEntropyLoss-two-outputs", [node("SoftmaxCrossEntropyLoss", "h t", "y lp")], feeds={"t": LABELS}),
    Case("SoftmaxCrossEntropyLoss-12", [node("SoftmaxCrossEntropyLoss", "h t", reduction="sum")], feeds={"t": LABELS}, opset=12, rewrites=["SoftmaxCrossEntropyLoss"]),
    Case("SoftmaxCrossEntropyLoss-none", [node("SoftmaxCrossEntropyLoss", "h t", reduction="none")], feeds={"t": LABELS}, rewrites=["SoftmaxCrossEntropyLoss"]),
    Case("SoftmaxCrossEntropyLoss-weights-ignored", [node("SoftmaxCrossEntropyLoss", "h t w", ignore_index=0)], feeds={"t": LABELS},
         initializers={"w": f32(0.5, 1, 2, 0.7)}, rewrites=["SoftmaxCrossEntropyLoss"]),
    Case("SoftmaxCrossEntropyLoss-maps", [node("SoftmaxCrossEntropyLoss", "h t")], (2, 4, 3), feeds={"t": np.array([[0, 1, 3], [2, 2, 0]])}, rewrites=["SoftmaxCrossEntropyLoss"]),
    Case("SoftmaxCrossEntropyLoss-int32", [node("SoftmaxCrossEntropyLoss", "h t")], feeds={"t": LABELS.astype(np.int32)}, rewrites=["SoftmaxCrossEntropyLoss"]),
    Case("SoftmaxCrossEntropyLoss-log-prob", [node("SoftmaxCrossEntropyLoss", "h t", "l lp"), node("Add", "l lp")], feeds={"t": LABELS}, rewrites=["SoftmaxCrossEntropyLoss"]),
    *(
        Case(f"NegativeLogLikelihoodLoss-{name}", [node("NegativeLogLikelihoodLoss", words, **attributes)], shape, dict(weights), {"t": labels}, opset, rewrites=["NegativeLogLikelihoodLoss"])
        for name, words, shape, labels, weights, opset, attributes in [
            ("mean", "h t", (3, 4), LABELS, {}, 13, {}),
            ("sum", "h t", (3, 4), LABELS, {}, 17, {"reduction": "sum"}),
            ("none", "h t", (3, 4), LABELS, {}, 17, {"reduction": "none"}),
            ("weights", "h t w", (3, 4), LABELS, {"w": f32(0.5, 1, 2, 0.7)}, 17, {}),
            ("ignored", "h t w", (3, 4), LABELS, {"w": f32(0.5, 1, 2, 0.7)}, 17, {"ignore_index": 3}),
            ("ignored-negative", "h t", (3, 4), i64(1, -100, 3), {}, 17, {"ignore_index": -100}),
            ("maps", "h t", (2, 4, 3), np.array([[0, 1, 3], [2, 2, 0]]), {}, 17, {"ignore_index": 2}),
            ("int32", "h t", (3, 4), LABELS.astype(np.int32), {}, 17, {}),
        ]
    ),
]

NORMALISATIONS = [
    Case("InstanceNormalization", [node("InstanceNormalization", "h p1 p2", epsilon=1e-3)], (2, 3, 4, 2), {"p1": f(3), "p2": f(3)}, rewrites=["InstanceNormalization"]),
    Case("GroupNormalization-21", [node("GroupNormalization", "h p1 p2", num_groups=2)], (2, 4, 3), {"p1": f(4), "p2": f(4)}, opset=21, rewrites=["GroupNormalization"]),
    Case("GroupNormalization-18", [node("GroupNormalization", "h p1 p2", num_groups=2)], (2, 4, 3, 2), {"p1": f(2), "p2": f(2)}, opset=18, rewrites=["GroupNormalization"]),
    Case("LayerNormalization", [node("LayerNormalization", "h p1 p2")], initializers={"p1": f(4), "p2": f(4)}, rewrites=["LayerNormalization"]),
    Case("LayerNormalization-no-bias", [node("LayerNormalization", "h p1", axis=1)], (2, 3, 2), {"p1": f(3, 2)}, rewrites=["LayerNormalization"]),
    Case("LpNormalization-2", [node("LpNormalization", "h", axis=1)], rewrites=["LpNormalization"]),
    Case("LpNormalization-1", [node("LpNormalization", "h", axis=-2, p=1)], (2, 3, 2), rewrites=["LpNormalization"]),
    Case("LRN", [node("LRN", "h", size=3, alpha=0.3, beta=0.6, bias=1.5)], (2, 5, 2, 2), rewrites=["LRN"]),
    Case("LRN-line", [node("LRN", "h", size=5, alpha=0.3)], (2, 5, 3, 1), rewrites=["LRN"]),
    Case("MeanVarianceNormalization", [node("MeanVarianceNormalization", "h")], (2, 3, 2, 2), rewrites=["MeanVarianceNormalization"]),
    Case("RMSNormalization", [node("RMSNormalization", "h p1")], (2, 3, 4), {"p1": f(4)}, opset=23, rewrites=["RMSNormalization"]),
    *(
        Case(f"BatchNormalization-{name}", [node("BatchNormalization", "h p1 p2 m v", outputs, **attributes)], shape,
             {"p1": f(3), "p2": f(3), "m": f(3), "v": 1 + f(3) ** 2}, opset=opset, rewrites=rewrites)
        for name, shape, opset, outputs, attributes, rewrites in [
            ("training", (4, 3, 2, 2), 17, "y rm rv", {"training_mode": 1}, None),
            ("training-vectors", (4, 3), 17, "y rm rv", {"training_mode": 1}, None),
            ("frozen", (4, 3, 2, 2), 17, "y", {}, ["BatchNormalization"]),
            ("frozen-vectors", (4, 3), 15, "y", {"epsilon": 1e-3}, ["BatchNormalization"]),
            ("frozen-13", (4, 3, 2), 13, "y", {}, ["BatchNormalization"]),
        ]
    ),
]

MOVES = [
    Case("Transpose", [node("Transpose", "h")], (2, 3, 4), rewrites=["Transpose"]),
    Case("DepthToSpace", [node("DepthToSpace", "h", blocksize=2)], (2, 8, 2, 3), rewrites=["DepthToSpace"]),
    Case("DepthToSpace-CRD", [node("DepthToSpace", "h", blocksize=2, mode="CRD")], (1, 4, 2, 3), rewrites=["DepthToSpace"]),
    Case("SpaceToDepth", [node("SpaceToDepth", "h", blocksize=2)], (2, 2, 4, 2), rewrites=["SpaceToDepth"]),
    Case("Split", [node("Split", "h s", "a b", axis=1), node("Concat", "b a", axis=1)], initializers={"s": i64(1, 3)}),
    Case("Split-unused", [node("Split", "h s", "a b", axis=1), node("Identity", "b")], initializers={"s": i64(1, 3)}, rewrites=["Split"]),
    Case("Split-equal-unused", [node("Split", "h", "a b", axis=-1), node("Identity", "b")], rewrites=["Split"]),
    Case("Split-18", [node("Split", "h", "a b", axis=1, num_outputs=2), node("Mul", "b a")], opset=18),
    Case("Split-12", [node("Split", "h", "a b", axis=1, split=[1, 3]), node("Concat", "b a", axis=1)], opset=12),
    Case("Slice", [node("Slice", "h s e a k")], initializers={"s": i64(0), "e": i64(2**63 - 1), "a": i64(-1), "k": i64(2)}),
    Case("Slice-reversed", [node("Slice", "h s e a k")], initializers={"s": i64(-1), "e": i64(-(2**31)), "a": i64(1), "k": i64(-1)}, rewrites=["Slice"]),
    Case("Slice-beside-a-dead-end", [node("Slice", "h s e a", "u"), node("Size", "u", "n"), node("Cast", "n", "m", to=FLOAT), node("Slice", "h e z a", "v"), node("Mul", "v m")],
         initializers={"s": i64(0), "e": i64(1), "z": i64(4), "a": i64(1)}, rewrites=["Slice"]),
    Case("Gather-beside-a-dead-end", [node("Gather", "h s", "u", axis=1), node("Size", "u", "n"), node("Cast", "n", "m", to=FLOAT), node("Slice", "h e z a", "v"), node("Mul", "v m")],
         initializers={"s": np.array(0, np.int64), "e": i64(1), "z": i64(4), "a": i64(1)}, rewrites=["Gather"]),
    Case("Split-beside-its-size", [node("Split", "h s", "a b", axis=1), node("Size", "a", "n"), node("Cast", "n", "m", to=FLOAT), node("Mul", "b m")], initializers={"s": i64(1, 3)}, rewrites=["Split"]),
    Case("Pad", [node("Pad", "h q")], initializers={"q": i64(0, 1, 0, 2)}),
    Case("Pad-value", [node("Pad", "h q v")], initializers={"q": i64(0, 1, 0, 2), "v": np.float32(1.5)}),
    Case("Pad-negative", [node("Pad", "h q")], initializers={"q": i64(0, 1, 0, -2)}),
    Case("Pad-axes", [node("Pad", "h q - a")], initializers={"q": i64(1, 2), "a": i64(-1)}, opset=18, rewrites=["Pad"]),
    *(Case(f"Pad-{mode}", [node("Pad", "h q", mode=mode)], (2, 3, 4), {"q": i64(0, 1, 2, 0, 2, 1)}, opset=19, rewrites=["Pad"]) for mode in ("reflect", "edge", "wrap")),
    Case("Gather", [node("Gather", "h k", axis=1)], initializers={"k": i64(2, 0, 2)}),
    Case("GatherElements", [node("GatherElements", "h k", axis=1)], initializers={"k": np.array([[0, 3], [1, 1], [2, 0]])}),
    Case("ScatterElements", [node("ScatterElements", "h k p1", axis=1)], initializers={"k": np.array([[0, 3], [1, 2], [2, 0]]), "p1": f(3, 2)}),
    Case("Tile", [node("Tile", "h r")], initializers={"r": i64(2, 3)}),
    Case("Expand", [node("Unsqueeze", "h a", "u"), node("Expand", "u s")], (3, 2), {"a": i64(1), "s": i64(3, 4, 2)}),
    Case("Squeeze-all", [node("Squeeze", "h")], (3, 1, 2)),
    Case("Flatten", [node("Flatten", "h", axis=2)], (2, 3, 2)),
    Case("TopK", [node("TopK", "h k", "y i", axis=1)], initializers={"k": i64(2)}),
    Case("Trilu", [node("Trilu", "h")], (2, 3, 3)),
    *(
        Case(f"Resize-{name}", [node("Resize", f"h - {'sc' if scales else '- ' + 'sz'}", **attributes)], shape,
             {"sc": f32(*scales)} if scales else {"sz": i64(*sizes)}, opset=13, rewrites=["Resize"],
             refused_open=None if scales else "known only to the running graph")
        for name, shape, scales, sizes, attributes in [
            ("nearest", (2, 2, 3, 2), (1, 1, 2, 3), None, {"mode": "nearest"}),
            ("nearest-asymmetric-floor", (2, 2, 3), (1, 1, 2), None, {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
            ("nearest-down", (2, 2, 6, 4), (1, 1, 0.5, 0.5), None, {"mode": "nearest"}),
            ("nearest-sizes", (1, 2, 3, 4), None, (1, 2, 5, 6), {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
            ("linear", (2, 2, 3, 2), (1, 1, 2, 2), None, {"mode": "linear"}),
            ("linear-corners", (1, 2, 3, 4), None, (1, 2, 5, 7), {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
            ("cubic", (1, 1, 4, 5), (1, 1, 2, 1), None, {"mode": "cubic"}),
        ]
    ),
]

WINDOWS = [
    Case("GlobalMaxPool", [node("GlobalMaxPool", "h")], (2, 3, 2, 4), rewrites=["GlobalMaxPool"]),
    Case("GlobalLpPool", [node("GlobalLpPool", "h", p=3)], (2, 3, 4), rewrites=["GlobalLpPool"]),
    Case("LpPool", [node("LpPool", "h", kernel_shape=[2, 2], p=2)], (2, 2, 4, 3), rewrites=["LpPool"]),
    Case("GlobalAveragePool", [node("GlobalAveragePool", "h")], (2, 3, 2, 2)),
    *(
        Case(f"AveragePool-{name}", [node("AveragePool", "h", **attributes)], shape, opset=opset,
             rewrites=["AveragePool"] if name == "dilated" else None, rewrites_open=["AveragePool"])
        for name, shape, opset, attributes in [
            ("plain", (2, 2, 4, 4), 17, dict(kernel_shape=[2, 2], strides=[2, 2])),
            ("one", (2, 2, 4, 5), 17, dict(kernel_shape=[1, 1], strides=[2, 2])),
            ("overlapping", (2, 2, 5, 4), 17, dict(kernel_shape=[3, 2], strides=[2, 1])),
            ("padded", (2, 2, 4, 4), 17, dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1])),
            ("padded-counted", (2, 2, 4, 4), 17, dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)),
            ("line", (2, 3, 6), 17, dict(kernel_shape=[2], strides=[2])),
            ("ceil", (2, 2, 5, 5), 17, dict(kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)),
            ("same", (2, 2, 5, 4), 17, dict(kernel_shape=[2, 2], auto_pad="SAME_UPPER")),
            ("dilated", (2, 2, 7, 5), 19, dict(kernel_shape=[2, 2], dilations=[2, 1], strides=[2, 1], pads=[1, 0, 1, 0])),
        ]
    ),
    Case("MaxPool", [node("MaxPool", "h", kernel_shape=[2, 2], strides=[2, 2])], (2, 2, 4, 4)),
    Case("MaxPool-dilated-ceil", [node("MaxPool", "h", kernel_shape=[2, 2], dilations=[2, 2], strides=[2, 2], ceil_mode=1)], (2, 2, 6, 5)),
    Case("Conv", [node("Conv", "h p1 p2", pads=[1, 1, 1, 1])], (2, 2, 3, 3), {"p1": f(3, 2, 3, 3), "p2": f(3)}),
    Case("Conv-grouped-strided", [node("Conv", "h p1", strides=[2, 1], group=2)], (2, 4, 4, 3), {"p1": f(4, 2, 2, 2)}),
    Case("Conv-same", [node("Conv", "h p1", auto_pad="SAME_UPPER")], (2, 2, 4, 4), {"p1": f(2, 2, 2, 2)}, rewrites=["Conv"]),
    Case("Conv-same-lower", [node("Conv", "h p1", auto_pad="SAME_LOWER", strides=[2, 2])], (2, 2, 5, 4), {"p1": f(2, 2, 2, 2)}, rewrites=["Conv"]),
    Case("Conv-line-dilated", [node("Conv", "h p1", dilations=[2])], (2, 2, 6), {"p1": f(2, 2, 2)}),
    *(
        Case(f"ConvTranspose-{name}", [node("ConvTranspose", words, **attributes)], shape, weights, rewrites=["ConvTranspose"])
        for name, words, shape, weights, attributes in [
            ("plain", "h p1 p2", (2, 2, 3, 2), {"p1": f(2, 3, 2, 2), "p2": f(3)}, {}),
            ("strided", "h p1", (2, 2, 3, 2), {"p1": f(2, 3, 2, 2)}, dict(strides=[2, 2])),
            ("padded", "h p1 p2", (1, 2, 3, 2), {"p1": f(2, 2, 3, 3), "p2": f(2)}, dict(strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])),
            ("grouped", "h p1", (1, 4, 3), {"p1": f(4, 2, 3)}, dict(strides=[2], group=2)),
            ("dilated", "h p1", (1, 2, 3, 3), {"p1": f(2, 2, 2, 3)}, dict(dilations=[2, 1], pads=[1, 0, 0, 1])),
            ("dilated-strided", "h p1", (1, 1, 4), {"p1": f(1, 2, 3)}, dict(dilations=[2], strides=[3])),
            ("uneven", "h p1", (1, 2, 4), {"p1": f(2, 1, 4)}, dict(strides=[3], pads=[2, 1])),
            ("output-shape", "h p1", (1, 1, 3, 3), {"p1": f(1, 2, 3, 3)}, dict(strides=[3, 2], output_shape=[10, 8])),
            ("output-shape-odd", "h p1", (1, 1, 3, 3), {"p1": f(1, 2, 3, 3)}, dict(strides=[3, 2], output_shape=[8, 6])),
            ("same-upper", "h p1", (1, 1, 3, 3), {"p1": f(1, 2, 3, 3)}, dict(strides=[2, 2], auto_pad="SAME_UPPER")),
            ("same-lower", "h p1", (1, 1, 3, 3), {"p1": f(1, 2, 3, 3)}, dict(strides=[2, 2], auto_pad="SAME_LOWER")),
        ]
    ),
]

RECURRENT = [
    Case(f"{op}-{name}", [node(op, words, outputs, hidden_size=3, **attributes)], (4, 2, 2),
         {n: 0.5 * v for n, v in {"p1": f(d, g * 3, 2), "p2": f(d, g * 3, 3), "p3": f(d, 2 * g * 3)}.items() if n in words}, rewrites=rewrites,
         refused_open="known only to the running graph" if op == "RNN" else None)
    for op, g in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
    for d, name, words, outputs, attributes, rewrites in [
        *([(1, "linear-before-reset", "h p1 p2 p3", "y", {"linear_before_reset": 1}, [op])] if op == "GRU" else []),
        (1, "both-outputs", "h p1 p2 p3", "s y", {}, [op]),
        (2, "last-bidirectional", "h p1 p2 p3", "- y", {"direction": "bidirectional"}, [op]),
        (1, "bare", "h p1 p2", "y", {}, [op]),
        (1, "bias", "h p1 p2 p3", "y", {}, [op]),
        (1, "last", "h p1 p2 p3", "- y", {}, [op]),
        (2, "bidirectional", "h p1 p2 p3", "y", {"direction": "bidirectional"}, [op]),
        (1, "reverse", "h p1 p2 p3", "y", {"direction": "reverse"}, [op]),
    ]
]

RECURRENT += [
    Case(f"{op}-{name}", [node(op, words, "y", hidden_size=3)], (4, 2, 2), {w: 0.5 * f(1, g * 3, {"w": 2, "p": 2}.get(w[0], 3)) for w in words.split()[1:]}, rewrites=[op])
    for op, g in (("LSTM", 4), ("GRU", 3))
    for name, words in (("frozen", "h w r"), ("frozen-recurrence", "h p1 r"))
]

# Forms that the kernels of training do not have: unrolled, where the sequence's length is fixed.
UNROLLED = [
    Case(f"{op}-{name}", [node(op, words, outputs, hidden_size=3, **attributes)], shape,
         {n: v for n, v in {"p1": 0.5 * f(d, g * 3, 2), "p2": 0.5 * f(d, g * 3, 3), "p3": 0.5 * f(d, 2 * g * 3), "p4": 0.5 * f(*state), "p5": 0.5 * f(*state), "p6": 0.5 * f(d, 9),
                            "n": np.array(lengths, np.int32)}.items() if n in words.split()},
         rewrites=[op], refused_open=refused, has_kernel="layout" not in attributes)
    for op, g in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
    for d, name, words, outputs, attributes, shape, state, lengths, refused in [
        (1, "lengths", "h p1 p2 p3 n", "y", {}, (4, 3, 2), (1, 3, 3), [4, 2, 3], UNKNOWN_LENGTH),
        (1, "lengths-last", "h p1 p2 - n p4", "- y", {}, (4, 3, 2), (1, 3, 3), [1, 4, 0], UNKNOWN_LENGTH),
        (1, "lengths-reverse", "h p1 p2 p3 n p4", "y", {"direction": "reverse"}, (4, 3, 2), (1, 3, 3), [2, 4, 1], UNKNOWN_LENGTH),
        (2, "lengths-bidirectional", "h p1 p2 p3 n p4", "- y", {"direction": "bidirectional"}, (4, 3, 2), (2, 3, 3), [2, 4, 3], UNKNOWN_LENGTH),
        (1, "clip", "h p1 p2 p3", "y", {"clip": 0.6}, (4, 2, 2), (1, 2, 3), [], UNKNOWN_LENGTH),
        (1, "layout", "h p1 p2 p3 - p4", "y", {"layout": 1}, (2, 4, 2), (2, 1, 3), [], None),
        (2, "layout-last", "h p1 p2 p3", "- y", {"layout": 1, "direction": "bidirectional"}, (2, 4, 2), (2, 2, 3), [], None),
        (2, "activations", "h p1 p2 p3", "y", {"direction": "bidirectional", "activations": {"LSTM": ["Sigmoid", "Relu", "Tanh"] * 2, "GRU": ["Sigmoid", "Relu", "Sigmoid", "Tanh"], "RNN": ["Relu", "Sigmoid"]}[op]}, (4, 2, 2), (2, 2, 3), [], UNKNOWN_LENGTH),
        *([(1, "input-forget", "h p1 p2 p3", "y", {"input_forget": 1}, (4, 2, 2), (1, 2, 3), [], UNKNOWN_LENGTH),
           (1, "peepholes-clip", "h p1 p2 p3 - p4 p5 p6", "y", {"clip": 0.8}, (4, 2, 2), (1, 2, 3), [], UNKNOWN_LENGTH),
           (1, "lengths-cell", "h p1 p2 p3 n", "a b y", {}, (4, 3, 2), (1, 3, 3), [4, 2, 3], UNKNOWN_LENGTH)] if op == "LSTM" else []),
        *([(1, "late-reset-lengths", "h p1 p2 p3 n", "y", {"linear_before_reset": 1}, (4, 3, 2), (1, 3, 3), [4, 2, 3], UNKNOWN_LENGTH)] if op == "GRU" else []),
    ]
]

DROPOUTS = [
    Case("Dropout-eval", [node("Dropout", "h")], opset=13, rewrites=["Dropout"]),
    Case("Dropout-eval-ratio", [node("Dropout", "h r")], initializers={"r": np.float32(0.4)}, opset=13, rewrites=["Dropout"]),
    Case("Dropout-ratio-zero", [node("Dropout", "h r t")], initializers={"r": np.float32(0.0), "t": np.array(True)}, opset=13, rewrites=["Dropout"]),
]

SOFTMAXES = [
    *(Case(f"{op}-{opset}-{axis}", [node(op, "h", axis=axis)], (2, 3, 4), opset=opset) for op in ("Softmax", "LogSoftmax") for opset, axis in ((12, 1), (13, 1), (13, -1), (12, 2))),
]

def function(name, inputs, nodes, attributes=(), defaults=()):
    made = helper.make_function("my.layers", name, inputs, ["y"], nodes, [helper.make_opsetid("", 17), helper.make_opsetid("my.layers", 1)], attributes)
    made.attribute_proto.extend(defaults)
    return made


def scaled_elu():
    """Elu with an attribute that has a default, and a call of it."""
    elu = node("Elu", "x", "y")
    reference = helper.make_attribute("alpha", 0.0)
    reference.Clear()
    reference.name, reference.ref_attr_name, reference.type = "alpha", "slope", AttributeProto.FLOAT
    elu.attribute.append(reference)
    return function("Bend", ["x"], [elu], defaults=[helper.make_attribute("slope", 0.5)])


DENSE = function("Dense", ["x", "w"], [node("MatMul", "x w", "t"), node("Relu", "t", "y")])
BLOCK = function("Block", ["x", "w"], [node("Dense", "x w", "t", domain="my.layers"), node("Bend", "t", "y", domain="my.layers", slope=0.3)])

CALLS = [
    Case("call", [node("Dense", "h p1", domain="my.layers")], initializers={"p1": f(4, 2)}, functions=[DENSE], rewrites=["Dense"]),
    Case("call-attribute-default", [node("Bend", "h", domain="my.layers")], functions=[scaled_elu()], rewrites=["Bend"]),
    Case("call-attribute", [node("Bend", "h", domain="my.layers", slope=2.0)], functions=[scaled_elu()], rewrites=["Bend"]),
    Case("call-nested-twice", [node("Block", "h p1", "a", domain="my.layers"), node("Block", "a p2", domain="my.layers")],
         initializers={"p1": f(4, 3), "p2": f(3, 2)}, functions=[DENSE, scaled_elu(), BLOCK], rewrites=["Block"]),
]

OLD = [
    *(
        Case(f"{name}-{opset}", nodes, shape, constants, opset=opset, rewrites=rewrites)
        for opset in (7, 8, 9, 10, 11)
        for name, nodes, shape, constants, rewrites in [
            ("Elu", [node("Elu", "h")], (3, 4), {}, ["Elu"]),
            ("Gemm", [node("Gemm", "h p1 p2", "g"), node("Softmax", "g", axis=1)], (3, 4), {"p1": f(4, 2), "p2": f(2)}, None),
            *([("Clip", [node("Clip", "h", min=-0.5, max=0.4)], (3, 4), {}, ["Clip"]),
               ("Pad", [node("Pad", "h", pads=[0, 1, 0, 2], value=0.5)], (3, 4), {}, ["Pad"])] if opset < 11 else
              [("Clip", [node("Clip", "h lo hi")], (3, 4), {"lo": np.float32(-0.5), "hi": np.float32(0.4)}, None)]),
            ("Dropout", [node("Dropout", "h", ratio=0.3)], (3, 4), {}, ["Dropout"]),
            ("Conv", [node("Conv", "h p1", "g", pads=[1, 1, 1, 1]), node("MaxPool", "g", kernel_shape=[2, 2])], (2, 2, 4, 4), {"p1": f(3, 2, 3, 3)}, None),
            ("ReduceSum", [node("ReduceSum", "h", axes=[1], keepdims=0)], (3, 4, 2), {}, None),
            ("Unsqueeze", [node("Unsqueeze", "h", "u", axes=[1]), node("Squeeze", "u", axes=[1])], (3, 4), {}, None),
            *([("Slice", [node("Slice", "h", axes=[1], starts=[1], ends=[3])], (3, 4), {}, ["Slice"])] if opset < 10 else []),
        ]
    ),
    Case("Upsample-9", [node("Upsample", "h s", mode="nearest")], (2, 2, 2, 3), {"s": f32(1, 1, 2, 2)}, opset=9, rewrites=["Upsample"]),
]

CASES = [*CALLS, *OLD, *ACTIVATIONS, *FUNCTIONS, *SUMS, *REDUCTIONS, *LOSSES, *NORMALISATIONS, *MOVES, *WINDOWS, *RECURRENT, *UNROLLED, *DROPOUTS, *SOFTMAXES]
