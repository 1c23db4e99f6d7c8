"""What the loop of `per-inject train` adds to the bare step that it runs: data, copies, metrics, logs.

    benches/setup step && cargo build --release
    .venv-step/bin/python benches/train.py [--rounds N] > benches/results/train.md

On the perceptron 784-1024-1024-10 with a batch of 128. A run of two epochs and one of six take turns with 400 bare steps; their difference
over the steps that the longer one makes more is the loop's step, without start and end. Evaluation is off; the step graph holds the
gradient's norm in both.
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

import nets
import numpy as np
import onnx
import step_peers

ROOT = pathlib.Path(__file__).parent.parent
OURS = os.environ.get("PER_INJECT", ROOT / "target/release/per-inject")
SAMPLES, BATCH, EPOCHS = 12_800, 128, (2, 6)


def train(model: pathlib.Path, data: pathlib.Path, epochs: int, threads: int, out: pathlib.Path) -> float:
    start = time.perf_counter()
    subprocess.run(
        [OURS, "train", model, "--data", data, "--out", out, "--epochs", str(epochs), "--lr", "0.001", "--batch-size", str(BATCH)]
        + ["--threads", str(threads), "--ort", ROOT / ".venv-step", "--quiet"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    random = np.random.default_rng(0)
    steps = SAMPLES // BATCH * (EPOCHS[1] - EPOCHS[0])
    loop, bare = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model, data, step = folder / "net.onnx", folder / "data.npz", folder / "step.onnx"
        onnx.save(nets.perceptron(), model)
        arrays = {"x": random.standard_normal((SAMPLES, 784), dtype=np.float32), "target": random.integers(0, 10, SAMPLES)}
        np.savez(data, **arrays)
        command = [OURS, "differentiate", model, "--optimizer", "sgd", "--gradient-norm", "-o", step]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = step_peers.ours(step, {key: array[:BATCH] for key, array in arrays.items()}, [], args.threads)
        for turn in range(args.rounds):
            short, long = (train(model, data, epochs, args.threads, folder / f"{turn}-{epochs}") for epochs in EPOCHS)
            loop.append((long - short) / steps)
            start = time.perf_counter()
            for _ in range(steps):
                run()
            bare.append((time.perf_counter() - start) / steps)
    ratios = [a / b for a, b in zip(loop, bare)]
    print("# The loop of `per-inject train`\n")
    print(f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, {args.threads} threads; {args.rounds} rounds.\n")
    print("| a step of | median | fastest |\n|---|---|---|")
    for label, seconds in (("the loop", loop), ("the bare graph", bare)):
        print(f"| {label} | {statistics.median(seconds) * 1e3:.3f} ms | {min(seconds) * 1e3:.3f} ms |")
    print(f"\nLoop / bare: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}.")


if __name__ == "__main__":
    main()
