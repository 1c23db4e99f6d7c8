"""What the loop of `per-inject train` adds to the bare step that it runs: data, copies, metrics, logs.

    benches/setup step && cargo build --release
    .venv-step/bin/python benches/train.py [--rounds N] > benches/results/train.md

On the perceptron 784-1024-1024-10 with a batch of 128, and on the 11-layer CNN with a batch of 16, whose images are read and brought into
place while it computes: a loop that waited for them would show here. A run of a few epochs and one of more take turns with as many bare
steps; their difference over the steps that the longer one makes more is the loop's step, without start and end. Evaluation is off; the step
graph holds the gradient's norm in both.
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
# By name: the network, the shape of a sample, the batch, batches of an epoch, epochs of the two runs.
NETS = {
    "784-1024-1024-10": (nets.perceptron, (784,), 128, 100, (2, 6)),
    "11-layer CNN": (nets.cnn11, (3, 32, 32), 16, 10, (2, 8)),
}


def train(model: pathlib.Path, data: pathlib.Path, epochs: int, batch: int, threads: int, out: pathlib.Path) -> float:
    start = time.perf_counter()
    subprocess.run(
        [OURS, "train", model, "--data", data, "--out", out, "--epochs", str(epochs), "--lr", "0.001", "--batch-size", str(batch)]
        + ["--threads", str(threads), "--ort", ROOT / ".venv-step", "--quiet"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - start


def measure(name: str, rounds: int, threads: int) -> tuple[list[float], list[float]]:
    """Seconds of a step of the loop and of the bare graph, by round."""
    net, shape, batch, batches, epochs = NETS[name]
    random = np.random.default_rng(0)
    samples, steps = batches * batch, batches * (epochs[1] - epochs[0])
    loop, bare = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model, data, step = folder / "net.onnx", folder / "data.npz", folder / "step.onnx"
        onnx.save(net(), model)
        arrays = {"x": random.standard_normal((samples, *shape), dtype=np.float32), "target": random.integers(0, 10, samples)}
        np.savez(data, **arrays)
        command = [OURS, "differentiate", model, "--optimizer", "sgd", "--gradient-norm", "-o", step]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = step_peers.ours(step, {key: array[:batch] for key, array in arrays.items()}, [], threads)
        for turn in range(rounds):
            short, long = (train(model, data, n, batch, threads, folder / f"{turn}-{n}") for n in epochs)
            loop.append((long - short) / steps)
            start = time.perf_counter()
            for _ in range(steps):
                run()
            bare.append((time.perf_counter() - start) / steps)
    return loop, bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--net", choices=NETS, action="append")
    args = parser.parse_args()
    print("# The loop of `per-inject train`\n")
    print(f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, {args.threads} threads; {args.rounds} rounds; ", end="")
    print(f"load when the run began: {os.getloadavg()[0]:.1f}.\n")
    print("| network | loop, median | fastest | bare graph, median | fastest | loop / bare, median | from | to |\n|---|---|---|---|---|---|---|---|")
    for name in args.net or NETS:
        loop, bare = measure(name, args.rounds, args.threads)
        ratios = [a / b for a, b in zip(loop, bare)]
        times = " | ".join(f"{1e3 * f(seconds):.3f} ms" for seconds in (loop, bare) for f in (statistics.median, min))
        print(f"| {name} | {times} | {statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} |", flush=True)


if __name__ == "__main__":
    main()
