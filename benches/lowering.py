"""Forward time of operators, and of the models, and of what `--for ort-training` writes in their place: python benches/lowering.py > benches/results/lowering.md

What ONNX Runtime can differentiate is not rewritten, so the native operator is no alternative in training: it is what an exported model
runs. Runs in .venv on stock ONNX Runtime, one thread, of which processor time counts: it changes little on a crowded machine. Native and
rewritten graph take turns; the ratio is the median of those of single turns. PER_INJECT names the binary.
"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "python"))

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import ort
from injection import inject
from lowering import node
from models import NAMES, reference

RNG = np.random.default_rng(0)
MAPS, SMALL = (16, 96, 32, 32), (8, 64, 16, 16)
RUNS = 31


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


# (operator, nodes from h to y, shape of h, initializers, operator set)
CASES = [
    *((op, [node(op, "h")], MAPS, {}, 18) for op in ("Elu", "Selu", "Softplus", "Mish", "HardSigmoid", "HardSwish", "Atan")),
    ("PRelu", [node("PRelu", "h p1")], MAPS, {"p1": f(96, 1, 1)}, 17),
    ("InstanceNormalization", [node("InstanceNormalization", "h p1 p2")], MAPS, {"p1": f(96), "p2": f(96)}, 17),
    ("GroupNormalization", [node("GroupNormalization", "h p1 p2", num_groups=8)], MAPS, {"p1": f(96), "p2": f(96)}, 21),
    ("LRN", [node("LRN", "h", size=5)], MAPS, {}, 17),
    ("GlobalMaxPool", [node("GlobalMaxPool", "h")], MAPS, {}, 17),
    ("AveragePool, dilated", [node("AveragePool", "h", kernel_shape=[3, 3], dilations=[2, 2])], MAPS, {}, 19),
    ("ReduceMax", [node("ReduceMax", "h", axes=[1])], MAPS, {}, 17),
    ("Resize, nearest", [node("Resize", "h - s", mode="nearest")], SMALL, {"s": np.array([1, 1, 2, 2], np.float32)}, 17),
    ("Resize, linear", [node("Resize", "h - s", mode="linear")], SMALL, {"s": np.array([1, 1, 2, 2], np.float32)}, 17),
    ("SpaceToDepth", [node("SpaceToDepth", "h", blocksize=2)], SMALL, {}, 17),
    ("DepthToSpace", [node("DepthToSpace", "h", blocksize=2)], SMALL, {}, 17),
    ("ConvTranspose, stride 2", [node("ConvTranspose", "h p1", strides=[2, 2], pads=[1, 1, 1, 1])], SMALL, {"p1": f(64, 32, 4, 4)}, 17),
    ("Einsum bthd,bshd->bhts", [node("Einsum", "h p1", equation="bthd,bshd->bhts")], (8, 64, 8, 32), {"p1": f(8, 64, 8, 32)}, 17),
    ("GRU, both ways", [node("GRU", "h p1 p2 p3", hidden_size=64, direction="bidirectional")], (32, 16, 64),
     {"p1": f(2, 192, 64), "p2": f(2, 192, 64), "p3": f(2, 384)}, 17),
    ("RNN", [node("RNN", "h p1 p2", hidden_size=64)], (32, 16, 64), {"p1": 0.1 * f(1, 64, 64), "p2": 0.1 * f(1, 64, 64)}, 17),
]


def model(nodes, shape, initializers, opset):
    body = [node("Mul", "x p0", "h"), *nodes, node("ReduceMean", "y", "loss", keepdims=0)]
    tensors = {"p0": np.ones(1, np.float32), **initializers}
    graph = helper.make_graph(
        body,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 20 else 10)


def turns(models, feeds):
    """Milliseconds of each model, one row a turn."""
    sessions = [ort.session(m) for m in models]
    times = []
    for _ in range(RUNS + 1):
        turn = []
        for session in sessions:
            start = time.process_time()
            session.run(None, feeds)
            turn.append(1e3 * (time.process_time() - start))
        times.append(turn)
    return np.array(times[1:])


def main():
    print("| operator | native, ms | rewritten, ms | ratio | its quartiles |\n|---|---|---|---|---|")
    for label, nodes, shape, initializers, opset in CASES:
        native = model(nodes, shape, initializers, opset)
        row(label, native, {"x": f(*shape)}, "--coef", 0, "--wrt", "re:^p")
    print("\n| model | native, ms | rewritten, ms | ratio | its quartiles |\n|---|---|---|---|---|")
    for each in map(reference, NAMES):
        row(each.name, each.model, each.feeds, "--layers", "none")


def row(label, native, feeds, *options):
    rewritten = inject(native, "--for", "ort-training", *options, check=False).model
    times = turns([native, rewritten], feeds)
    (before, after), ratios = np.median(times, axis=0), times[:, 1] / times[:, 0]
    low, ratio, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    print(f"| {label} | {before:.2f} | {after:.2f} | {ratio:.2f} | {low:.2f} – {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
