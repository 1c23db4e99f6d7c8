"""What the loop of `per-inject train` adds to the bare step that it runs: data, copies, metrics, logs.

    benches/setup step && cargo build --release
    .venv-step/bin/python benches/train.py [--rounds N] > benches/results/train.md

On the perceptron 784-1024-1024-10 with a batch of 128, and on the 11-layer CNN with a batch of 16. The loop's step is the time from one step to the
next, as the run's own log has it, over all epochs but the first; evaluation is off, and a run writes one checkpoint, at its end.

A bare step runs the step graph of `per-inject differentiate` on ONNX Runtime, with the gradient's norm as the loop has it and without its metrics,
on parameters that stay in the runtime's buffers. It is handed the batches of an epoch in turn, which lie in memory, gathered before the clock starts: the
same one again and again would stay in the processor's cache, which no training has.

Machines change their pace within seconds, so half of a round's bare steps are made before the loop and half after it.
"""

from __future__ import annotations

import argparse
import json
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
# By name: the network, the shape of a sample, the batch, batches of an epoch, epochs.
NETS = {
    "784-1024-1024-10": (nets.perceptron, (784,), 128, 100, 5),
    "11-layer CNN": (nets.cnn11, (3, 32, 32), 16, 10, 4),
}


def train(model: pathlib.Path, data: pathlib.Path, epochs: int, batch: int, threads: int, out: pathlib.Path) -> np.ndarray:
    """When each step was over, in seconds."""
    subprocess.run(
        [OURS, "train", model, "--data", data, "--out", out, "--epochs", str(epochs), "--lr", "0.001", "--batch-size", str(batch)]
        + ["--checkpoint-every", "1000000", "--threads", str(threads), "--ort", ROOT / ".venv-step", "--quiet"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return np.array([event["time"] for event in events if "loss" in event["values"]])


def measure(name: str, rounds: int, threads: int) -> tuple[list[float], list[float]]:
    """Seconds of a step of the loop and of the bare graph, by round."""
    net, shape, batch, batches, epochs = NETS[name]
    random = np.random.default_rng(0)
    loop, bare = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model, data, step = folder / "net.onnx", folder / "data.npz", folder / "step.onnx"
        onnx.save(net(), model)
        arrays = {"x": random.standard_normal((batches * batch, *shape), dtype=np.float32), "target": random.integers(0, 10, batches * batch)}
        np.savez(data, **arrays)
        command = [OURS, "differentiate", model, "--optimizer", "sgd", "--gradient-norm", "-o", step]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = step_peers.ours(step, arrays, [], threads, batch)

        def half() -> float:
            # Threads that slept wake up first.
            run()
            start = time.perf_counter()
            for _ in range(batches):
                run()
            return (time.perf_counter() - start) / batches

        half()
        for turn in range(rounds):
            before = half()
            times = train(model, data, epochs, batch, threads, folder / str(turn))
            loop.append((times[-1] - times[batches - 1]) / (len(times) - batches))
            bare.append((before + half()) / 2)
    return loop, bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
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
