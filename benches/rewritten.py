"""Operators that ONNX Runtime cannot differentiate, against what `--for ort-training` writes for them: the forward pass, side by side.

    tests/setup && cargo build --release
    .venv/bin/python benches/rewritten.py [--rounds N] > benches/results/rewritten.md

Where ONNX Runtime has the gradient of an operator, nothing is rewritten. So the native operator is no alternative in training; it is what an
exported model runs, and what a kernel of its own could reach. Operators take turns; the median of the ratios within a turn is what counts.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

ROOT = pathlib.Path(__file__).parent.parent
OURS = os.environ.get("PER_INJECT", ROOT / "target/release/per-inject")
SHAPE = (16, 192, 32, 32)  # the largest activation of the 11-layer CNN at batch 16

# (label, operator, attributes, constants after x)
OPERATORS = [
    ("Elu", "Elu", {}, {}),
    ("Selu", "Selu", {}, {}),
    ("Celu", "Celu", {}, {}),
    ("Softplus", "Softplus", {}, {}),
    ("Softsign", "Softsign", {}, {}),
    ("HardSigmoid", "HardSigmoid", {}, {}),
    ("HardSwish", "HardSwish", {}, {}),
    ("Mish", "Mish", {}, {}),
    ("PRelu", "PRelu", {}, {"slope": np.full((192, 1, 1), 0.25, np.float32)}),
    ("ThresholdedRelu", "ThresholdedRelu", {}, {}),
    ("Atan", "Atan", {}, {}),
    ("Sinh", "Sinh", {}, {}),
    ("Sum of 3", "Sum", {}, {"a": np.ones(SHAPE, np.float32), "b": np.ones(SHAPE, np.float32)}),
    ("GlobalMaxPool", "GlobalMaxPool", {}, {}),
    ("ReduceMax, axis 1", "ReduceMax", {}, {"axes": np.array([1], np.int64)}),
    ("ReduceSumSquare, axis 1", "ReduceSumSquare", {}, {"axes": np.array([1], np.int64)}),
    ("InstanceNormalization", "InstanceNormalization", {}, {n: np.ones(192, np.float32) for n in ("scale", "bias")}),
    ("DepthToSpace", "DepthToSpace", {"blocksize": 2}, {}),
]  # fmt: skip


def model(op: str, attributes: dict, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """x·w through the operator, to a loss; w is there to be trained."""
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["h"]),
        helper.make_node(op, ["h", *constants], ["y"], "under_test", **attributes),
        helper.make_node("ReduceMean", ["y"], ["loss"], keepdims=0),
    ]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in {"w": np.ones(1, np.float32), **constants}.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    graph = helper.make_graph(nodes, "net", [x], [helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])], tensors)
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def session(path: pathlib.Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=2, help="with 1, processor time and not time on the wall")
    args = parser.parse_args()
    clock = time.process_time if args.threads == 1 else time.perf_counter
    time_of = "processor time of 1 thread" if args.threads == 1 else f"{args.threads} threads"
    print(f"# Operators and their rewritings, ONNX Runtime {onnxruntime.__version__}, CPU, {time_of}, float32 {list(SHAPE)}\n")
    print(f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}; {args.rounds} rounds. Load when the run began: {os.getloadavg()[0]:.1f}.")
    print("Each time is that of the operator between a Mul and a ReduceMean, less that of these two.")
    print("\n| operator | native | rewritten | nodes | rewritten / native |\n|---|---|---|---|---|")
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        native, rewritten, bare = folder / "native.onnx", folder / "rewritten.onnx", folder / "bare.onnx"
        for label, op, attributes, constants in OPERATORS:
            onnx.save(model(op, attributes, constants), native)
            onnx.save(model("Identity", {}, {}), bare)
            arguments = [native, "--for", "ort-training", "--layers", "none", "--coef", "0", "-o", rewritten]
            subprocess.run([OURS, *arguments], check=True, stdout=subprocess.DEVNULL)
            nodes = len(onnx.load(rewritten).graph.node) - 2
            sessions = [session(path, args.threads) for path in (bare, native, rewritten)]
            times: list[list[float]] = []
            for _ in range(args.rounds + 1):
                times.append([])
                for made in sessions:
                    start = clock()
                    made.run(None, {"x": x})
                    times[-1].append(clock() - start)
            of = [(n - b, r - b) for b, n, r in times[1:]]
            ratio = statistics.median(r / n if n > 0 else float("inf") for n, r in of)
            medians = [statistics.median(t[i] for t in of) * 1e3 for i in (0, 1)]
            print(f"| {label} | {medians[0]:.2f} ms | {medians[1]:.2f} ms | {nodes} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
