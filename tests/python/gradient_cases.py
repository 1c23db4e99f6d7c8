"""Operators that `differentiate` alone knows, or forms of them, with a batch that is fixed and one that is open."""

from __future__ import annotations

import numpy as np

from lowering import Case, node

RNG = np.random.default_rng(23)
f = lambda *shape: RNG.standard_normal(shape).astype(np.float32)
i64 = lambda *values: np.array(values, np.int64)

CASES = [
    Case("Attention", [node("Attention", "h h h", is_causal=1)], (2, 3, 4, 8), opset=23),
    Case("Attention-mask", [node("Attention", "h p1 p2 p3", scale=0.3, softcap=2.0)], (2, 3, 4, 8), {"p1": f(2, 3, 5, 8), "p2": f(2, 3, 5, 6), "p3": f(4, 5)}, opset=23),
    Case(
        "Attention-groups",
        [node("MatMul", "h p1", "k"), node("MatMul", "h p2", "v"), node("Attention", "h k v", q_num_heads=4, kv_num_heads=2, is_causal=1)],
        (2, 3, 16),
        {"p1": f(16, 8), "p2": f(16, 6)},
        opset=23,
    ),
    Case(
        "Attention-past",
        [node("Attention", "h h h - p1 p2", "y present_k present_v", is_causal=1)],
        (2, 3, 4, 8),
        {"p1": f(2, 3, 2, 8), "p2": f(2, 3, 2, 8)},
        opset=24,
        has_kernel=False,
    ),
    Case(
        "Attention-padding",
        [node("Attention", "h h h - - - lengths", is_causal=1)],
        (2, 3, 4, 8),
        {"lengths": i64(4, 2)},
        opset=24,
        has_kernel=False,
    ),
    Case("RotaryEmbedding", [node("RotaryEmbedding", "h p1 p2 i")], (2, 3, 4, 8), {"p1": f(9, 4), "p2": f(9, 4)}, {"i": np.array([[0, 3, 3, 8], [1, 2, 3, 4]])}, opset=23),
    Case(
        "RotaryEmbedding-part",
        [node("RotaryEmbedding", "h p1 p2 i", num_heads=2, interleaved=1, rotary_embedding_dim=4)],
        (2, 3, 12),
        {"p1": f(9, 2), "p2": f(9, 2)},
        {"i": np.array([[0, 3, 8], [1, 2, 3]])},
        opset=23,
    ),
    *(
        Case(f"GridSample-{mode}-{padding}", [node("GridSample", "h p1", mode=mode, padding_mode=padding, align_corners=aligned)], (2, 3, 4, 5), {"p1": f(2, 2, 3, 2)}, opset=20)
        for mode, padding, aligned in [("linear", "zeros", 0), ("linear", "reflection", 1), ("cubic", "border", 0), ("cubic", "reflection", 0), ("nearest", "zeros", 1)]
    ),
    Case("Col2Im", [node("Col2Im", "h image block", strides=[2, 1], pads=[1, 0, 0, 1], dilations=[1, 2])], (2, 12, 4), {"image": i64(4, 3), "block": i64(2, 2)}, opset=18),
    Case("AffineGrid", [node("AffineGrid", "h size", align_corners=1)], (2, 2, 3), {"size": i64(2, 1, 3, 4)}, opset=20),
    Case("CenterCropPad", [node("CenterCropPad", "h shape", axes=[1, 2])], (2, 5, 4), {"shape": i64(2, 7)}, opset=18),
    Case("Compress", [node("Compress", "h chosen", axis=1)], (2, 4, 3), {"chosen": np.array([True, False, True, True])}),
    Case("Compress-flat", [node("Compress", "h chosen")], (2, 4), {"chosen": np.array([True, False, True, True, False, True])}),
    Case("OneHot", [node("OneHot", "i depth p1", "o"), node("Mul", "o h")], (2, 3), {"p1": f(2), "depth": np.array(3)}, {"i": i64(2, 0)}),
    Case(
        "SequenceConstruct",
        [node("Exp", "h", "e"), node("SequenceConstruct", "h e p1", "items"), node("SequenceAt", "items last", "a"), node("SequenceAt", "items middle", "b"), node("Mul", "a b")],
        (2, 3),
        {"p1": f(2, 3), "last": np.array(-1), "middle": np.array(1)},
    ),
    # The parts of an Elu, but for a constant that gives the result an axis more.
    Case("Elu-of-another-rank", [node("Clip", "h - zero", "low"), node("Exp", "low", "e"), node("Sub", "e one", "bent"), node("Max", "h bent")], (2, 3), {"zero": np.float32(0), "one": np.ones((1, 1, 1), np.float32)}),
    Case("CumProd", [node("CumProd", "h axis", reverse=1)], (2, 4), {"axis": np.array(1)}, opset=26, x=np.array([[0.0, 2.0, 0.5, -1.0], [1.0, 0.0, 0.0, 3.0]]), has_kernel=False),
    Case("Pad-trained", [node("Pad", "h widths p1")], (2, 4), {"widths": i64(0, 1, 0, -1), "p1": f()}),
    Case("Pad-runtime", [node("Pad", "h pads")], (2, 4), feeds={"pads": i64(0, 1, 0, -2)}),
    # Weights outside of a picture go to its border, or are left out.
    *(
        Case(f"Resize-antialias-{mode}-{where}-{'inside' if inside else 'border'}", [node("Resize", "h - sc", mode=mode, antialias=1, coordinate_transformation_mode=where, exclude_outside=inside)], (1, 2, 8, 6), {"sc": np.array([1, 1, height, width], np.float32)}, opset=18)
        for mode in ("linear", "cubic")
        for where, height, width in (("half_pixel", 0.6, 0.4), ("asymmetric", 0.3, 1.5), ("align_corners", 0.25, 0.5))
        for inside in (0, 1)
    ),
    Case("ReverseSequence", [node("ReverseSequence", "h lengths", batch_axis=0, time_axis=1)], (2, 4, 3), feeds={"lengths": i64(3, 2)}),
    # Of so many channels and places that a convolution takes the place of other forms.
    Case("Conv-wide", [node("Conv", "h p1", pads=[1, 0, 2, 1], strides=[2, 1])], (2, 16, 5, 6), {"p1": f(2, 16, 3, 3)}),
    Case("Conv-wide-rest", [node("Conv", "h p1", dilations=[2, 1], strides=[3, 2])], (2, 16, 8, 8), {"p1": f(2, 16, 3, 3)}),
    Case("Conv-wide-line", [node("Conv", "h p1", pads=[2, 1])], (2, 44, 5), {"p1": f(2, 44, 3)}),
    Case("Conv-wide-cube", [node("Conv", "h p1", pads=[1, 0, 1, 1, 0, 0])], (2, 5, 3, 3, 4), {"p1": f(2, 5, 3, 3, 3)}),
    Case("Conv-wide-transposed", [node("ConvTranspose", "h p1", pads=[1, 0, 0, 1], strides=[1, 2])], (2, 3, 3, 4), {"p1": f(3, 16, 3, 3)}),
    Case(
        "Conv-wide-remainder",
        [node("Conv", "h p1", "channels"), node("Conv", "channels p2", dilations=[2, 1], strides=[2, 2])],
        (1, 1, 12, 14),
        {"p1": f(16, 1, 1, 1), "p2": f(2, 16, 3, 3)},
    ),
    Case(
        "Conv-turned",
        [node("Conv", "h p1", "channels"), node("Conv", "channels p2", pads=[1, 0, 0, 2], dilations=[1, 2])],
        (1, 1, 16, 16),
        {"p1": f(16, 1, 1, 1), "p2": f(2, 16, 3, 2)},
    ),
    Case("Elu-points", [node("Elu", "h")], x=np.array([[-1e-8, 1e-8, -80.0, 80.0]])),
    Case("MaxPool-halves", [node("MaxPool", "h", kernel_shape=[2, 2], strides=[2, 2])], (2, 3, 4, 6)),
    Case("MaxPool-columns", [node("MaxPool", "h", kernel_shape=[2, 2], storage_order=1)], (2, 3, 4, 5)),
    Case("MaxPool-rest", [node("MaxPool", "h", kernel_shape=[2, 2], strides=[2, 2])], (2, 3, 5, 5)),
    Case("MaxUnpool", [node("MaxPool", "h", "m i", kernel_shape=[2, 2], strides=[2, 2]), node("MaxUnpool", "m i", kernel_shape=[2, 2], strides=[2, 2])], (2, 3, 4, 4)),
    Case("AveragePool-all", [node("AveragePool", "h", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], ceil_mode=1, count_include_pad=1)], (2, 3, 6, 5), opset=19),
    *(
        Case(f"ScatterElements-{reduction}", [node("ScatterElements", "h i p1", axis=1, reduction=reduction)], (2, 4), {"p1": f(2, 3)}, {"i": np.array([[0, 2, 2], [3, 3, 1]])}, opset=18)
        for reduction in ("none", "add", "mul", "max", "min")
        if reduction != "none"
    ),
    Case("ScatterND-mul-zeros", [node("ScatterND", "h i p1", reduction="mul")], (4, 2), {"p1": np.array([[0, 2], [0, 3], [0, 0.5]], np.float32)}, {"i": np.array([[1], [1], [3]])}, opset=18, x=np.array([[1.0, 2], [3, 0], [4, 5], [2, 0]])),
    Case("GatherND-batch", [node("GatherND", "h i", batch_dims=1)], (2, 4, 3), feeds={"i": np.array([[[0], [2], [2]], [[3], [1], [1]]])}),
    Case("GatherElements-13", [node("GatherElements", "h i", axis=1)], (2, 4), feeds={"i": np.array([[0, 3, 3], [-1, 1, 1]])}, opset=13, refused_open="needs operator set 16"),
    Case("Gather-13-axis1", [node("Gather", "h i", axis=1)], (2, 4, 3), feeds={"i": np.array([[0, 3], [3, -1]])}, opset=13, refused_open="needs operator set 16"),
    Case("LayerNormalization-statistics", [node("LayerNormalization", "h p1", "n m r"), node("Sum", "n m r")], (2, 3, 4), {"p1": f(4)}),
    Case("BatchNormalization-statistics", [node("BatchNormalization", "h p1 p2 m v", "n nm nv", training_mode=1), node("Add", "nm nv", "s"), node("ReduceSum", "s", "t", keepdims=0), node("Add", "n t")], (3, 2, 4), {"p1": f(2), "p2": f(2), "m": f(2), "v": f(2) ** 2}, has_kernel=False),
]
