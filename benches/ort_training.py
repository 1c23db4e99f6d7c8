"""A training step of ONNX Runtime with PER, over one without: both forms, both estimators, side by side in one run.

    tests/setup && cargo build --release
    .venv-ort-training/bin/python benches/ort_training.py [--rounds N] [--net NAME] 2>/dev/null > benches/results/ort_training.md

A step is Module(...) and lazy_reset_grad(): forward, backward, no optimizer. The variants take turns, A B C A B C …, in one process, and each
is compared with the vanilla step of its own turn: the median of these ratios is what counts. Before each timed step runs one that is not
timed, so that no variant finds the caches and waiting threads of the one before it.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable

# The training package imports its PyTorch-only half unless a module of that name is there already.
sys.modules["onnxruntime.training.optim"] = types.ModuleType("onnxruntime.training.optim")

import nets
import numpy as np
import onnx
import onnxruntime
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module

ROOT = pathlib.Path(__file__).parent.parent
OURS = os.environ.get("PER_INJECT", ROOT / "target/release/per-inject")

NETS: dict[str, tuple[str, Callable[[], onnx.ModelProto]]] = {
    "cnn11": ("11-layer CNN, batch 16", nets.cnn11),
    "cnn11/4": ("11-layer CNN, a quarter as wide, batch 16", lambda: nets.cnn11(0.25)),
    "perceptron": ("784-1024-1024-10, batch 128", nets.perceptron),
}
VIEWS = {"cnn11": ("channel", "flatten"), "cnn11/4": ("channel", "flatten"), "perceptron": ("flatten",)}


def inject(model: pathlib.Path, out: pathlib.Path, *options: str) -> pathlib.Path:
    subprocess.run([OURS, model, *options, "-o", out], check=True, stdout=subprocess.DEVNULL)
    return out


def artifacts_of(model: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The training model that generate_artifacts makes, beside its checkpoint."""
    graph = onnx.load(model)
    parameters = [w.name for w in graph.graph.initializer if w.name.endswith((".weight", ".bias"))]
    artifacts.generate_artifacts(graph, requires_grad=parameters, loss=None, artifact_directory=str(folder), prefix="")
    return folder / "training_model.onnx"


def variants(net: str, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Training models by name; every one has a `checkpoint` beside it."""
    source, vanilla = folder / "net.onnx", folder / "vanilla"
    onnx.save(NETS[net][1](), source)
    vanilla.mkdir()
    rewriting = inject(source, vanilla / "forward.onnx", "--for", "ort-training", "--layers", "none", "--coef", "0")
    made = {"vanilla": artifacts_of(rewriting, vanilla)}
    for view in VIEWS[net]:
        for estimator in ("exact", "sampled"):
            term = ["--layers", "all", "--coef", "3e-4", "--estimator", estimator, "--view", view]
            loss = folder / f"{view}-{estimator}-loss"
            loss.mkdir()
            forward = inject(source, loss / "forward.onnx", "--for", "ort-training", *term)
            made[f"{estimator}, {view}, loss form"] = artifacts_of(forward, loss)
            gradient = inject(made["vanilla"], vanilla / f"{view}-{estimator}-gradient.onnx", "--form", "gradient", *term)
            made[f"{estimator}, {view}, gradient form"] = gradient
    # Layers have rows of equal lengths in the first view only.
    term = ["--layers", "all", "--coef", "3e-4", "--share-slices", "--view", VIEWS[net][0]]
    gradient = inject(made["vanilla"], vanilla / "shared-gradient.onnx", "--form", "gradient", *term)
    made[f"sampled, {VIEWS[net][0]}, gradient form, shared slices"] = gradient
    return made


def module(model: pathlib.Path, threads: int) -> Module:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    made = Module(str(model), CheckpointState.load_checkpoint(str(model.parent / "checkpoint")), session_options=options)
    made.train()
    return made


def feeds(net: onnx.ModelProto) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    x, target = ([d.dim_value for d in value.type.tensor_type.shape.dim] for value in net.graph.input)
    return [random.standard_normal(x, dtype=np.float32), random.integers(0, 10, target)]


def step(made: Module, inputs: list[np.ndarray], clock: Callable[[], float]) -> float:
    start = clock()
    made(*inputs)
    made.lazy_reset_grad()
    return clock() - start


def compare(net: str, rounds: int, threads: int) -> None:
    # One thread's processor time is what a crowded machine changes least.
    clock = time.process_time if threads == 1 else time.perf_counter
    with tempfile.TemporaryDirectory() as name:
        models = variants(net, pathlib.Path(name))
        modules = {variant: module(path, threads) for variant, path in models.items()}
        inputs = feeds(onnx.load(pathlib.Path(name) / "net.onnx"))
    seconds = {variant: [] for variant in modules}
    for _ in range(rounds):
        for variant, made in modules.items():
            step(made, inputs, clock)
            seconds[variant].append(step(made, inputs, clock))
    print(f"\n## {NETS[net][0]}\n\n| variant | median | fastest | / vanilla | quartiles of the ratio |\n|---|---|---|---|---|")
    for variant, times in seconds.items():
        ratios = [t / vanilla for t, vanilla in zip(times, seconds["vanilla"])]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(
            f"| {variant} | {statistics.median(times) * 1e3:.2f} ms | {min(times) * 1e3:.2f} | {median:.3f} | {low:.3f} – {high:.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--net", choices=NETS, action="append", help="only this one; may be given more than once")
    parser.add_argument("--threads", type=int, default=2, help="with 1, processor time and not time on the wall")
    args = parser.parse_args()
    time_of = "processor time of 1 thread" if args.threads == 1 else f"{args.threads} threads"
    print(f"# Training steps of ONNX Runtime {onnxruntime.__version__}, CPU, {time_of}, 256 slices\n")
    print(f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}; {args.rounds} rounds. Load when the run began: {os.getloadavg()[0]:.1f}.")
    for net in args.net or NETS:
        compare(net, args.rounds, args.threads)


if __name__ == "__main__":
    main()
