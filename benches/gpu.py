"""Training on a GPU: our step on ONNX Runtime's CUDA provider beside PyTorch eager, what PER adds to it, and whether it computes what the CPU does.

    cargo build --release
    PYTHON benches/gpu.py --torch PYTHON [--rounds N] > benches/results/gpu.md

The Python that runs it has onnx, numpy and onnxruntime-gpu, with the CUDA and cuDNN that this wants (pip install 'onnxruntime-gpu[cuda,cudnn]');
`--torch` names one with a PyTorch for the same card. Nets: the full-width 11-layer CNN and ResNet-110 by Fixup, batch 128, SGD.

- Step: forward pass, backward pass and SGD of a batch that lies on the device, with its parameters; loss and nothing else comes back. Peers
  are processes that take turns, are compared by the median of the ratios of one turn, and begin with the same weights; that both are the same
  network shows in their losses. TF32 is off in both, then on in both; cuDNN looks for the fastest algorithm in both.
- Loop: a step of `per-inject train`, from the difference of a longer and a shorter run, with everything that it does: batches from a file, random
  numbers, metrics, logs.
- Agreement: the losses of `per-inject train` on the device and on the CPU over the same batches, TF32 off.

`--device cpu` runs the same on the CPU: with --width, --depth, --batch, --steps and --rounds small, a check of this script where there is no card.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

import nets
import numpy as np
import onnx
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).parent.parent
OURS = os.environ.get("PER_INJECT", ROOT / "target/release/per-inject")
COMMON = ["--layers", "all", "--coef", "3e-4", "--view", "channel"]
TERMS = {
    "vanilla": [],
    "exact": [*COMMON, "--estimator", "exact"],
    "sampled-256": [*COMMON, "--estimator", "sampled", "--slices", "256"],
}
# Batches of an epoch; the shorter run goes through the first epoch.
EPOCH = 10


@dataclasses.dataclass
class Net:
    """A network with its data, in files, the learning rate at which it moves, and what step_nets.py calls it."""

    name: str
    rate: float
    torch: str
    model: pathlib.Path
    batch: pathlib.Path
    data: pathlib.Path


def made(args: argparse.Namespace, folder: pathlib.Path) -> list[Net]:
    random = np.random.default_rng(0)
    samples = EPOCH * args.batch
    arrays = {"x": random.standard_normal((samples, 3, 32, 32), dtype=np.float32), "target": random.integers(0, 10, samples)}
    data = folder / "data.npz"
    np.savez(data, **arrays)
    found = []
    width = "" if args.width == 1 else f", {args.width} as wide"
    for name, rate, torch, model in (
        (f"11-layer CNN{width}", 1e-4, f"cnn11:{args.width}", nets.cnn11(args.width, batch=args.batch)),
        (f"ResNet-{args.depth}", 0.05, f"fixup:{args.depth}", nets.fixup_resnet(args.depth, args.batch)),
    ):
        net = Net(name, rate, torch, *(folder / f"{torch.replace(':', '-')}.{end}" for end in ("onnx", "npz")), data)
        weights = [numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        onnx.save(model, net.model)
        np.savez(net.batch, **{n: a[: args.batch] for n, a in arrays.items()}, **{f"weight:{i}": w for i, w in enumerate(weights)})
        found.append(net)
    return found


def per_inject(*arguments: object) -> str:
    run = subprocess.run([str(a) for a in (OURS, *arguments)], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr.strip())
    return run.stdout


def missing_device(device: str) -> str | None:
    """Why the device cannot be had, as the CUDA driver says it."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return None
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError as error:
        return f"the CUDA driver cannot be loaded ({error})"
    count = ctypes.c_int()
    if (code := driver.cuInit(0)) or (code := driver.cuDeviceGetCount(ctypes.byref(count))):
        return f"the CUDA driver answers with error {code}"
    return None if count.value > int(index or 0) else f"the CUDA driver has {count.value} device(s), counted from 0"


class Peer:
    """A process that makes steps when it is told to."""

    def __init__(self, python: object, *arguments: object) -> None:
        command = [str(a) for a in (python, ROOT / "benches/gpu_peers.py", *arguments)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        answer = self.child.stdout.readline().strip()
        if answer != "ready":
            raise SystemExit(f"{arguments[0]} on {arguments[3]}: {answer or 'it crashed'}")

    def ask(self, what: str) -> float:
        print(what, file=self.child.stdin, flush=True)
        return float(self.child.stdout.readline())

    def end(self) -> None:
        self.child.stdin.close()
        self.child.wait()


def steps(net: Net, args: argparse.Namespace, tf32: str, folder: pathlib.Path) -> str:
    """A row of the table of steps."""
    peers = {}
    for term, options in TERMS.items():
        injected, step = folder / "injected.onnx", folder / f"{term}.step.onnx"
        if options:
            per_inject(net.model, *options, "-o", injected)
        per_inject("differentiate", injected if options else net.model, "--optimizer", "sgd", "-o", step)
        peers[term] = Peer(sys.executable, "ours", step, net.batch, args.device, tf32)
    if args.torch:
        peers["PyTorch"] = Peer(args.torch, "pytorch", net.torch, net.batch, args.device, tf32)
    losses = {name: peer.ask("loss") for name, peer in peers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for turn in range(args.rounds + 1):
        for name, peer in peers.items():
            took = peer.ask(f"steps {args.steps_a_turn}")
            # The first turn warms up.
            if turn:
                seconds[name].append(took)
    for peer in peers.values():
        peer.end()
    vanilla = seconds["vanilla"]
    cells = [net.name, tf32, f"{1e3 * statistics.median(vanilla):.2f} ms"]
    if args.torch:
        ratio = statistics.median(a / b for a, b in zip(vanilla, seconds["PyTorch"]))
        apart = abs(losses["vanilla"] - losses["PyTorch"])
        cells += [f"{1e3 * statistics.median(seconds['PyTorch']):.2f} ms", f"**{ratio:.2f}**", f"{apart:.0e}"]
    else:
        cells += ["", "", ""]
    cells += [f"{statistics.median(a / b for a, b in zip(seconds[term], vanilla)):.3f}" for term in ("exact", "sampled-256")]
    return "| " + " | ".join(cells) + " |"


def train(net: Net, args: argparse.Namespace, device: str, term: str, epochs: int, out: pathlib.Path, *options: object) -> str:
    """What a run prints."""
    course = ["--epochs", epochs, "--lr", net.rate, "--no-shuffle", "--checkpoint-every", 1_000_000, "--ort", args.ort]
    return per_inject("train", net.model, "--data", net.data, "--out", out, "--device", device, *course, *TERMS[term], *options)


def loop(net: Net, args: argparse.Namespace, folder: pathlib.Path) -> str:
    """A row of the table of loops."""
    epochs = (1, 1 + max(1, args.steps // EPOCH))
    seconds: dict[str, list[float]] = {term: [] for term in TERMS}
    for turn in range(args.rounds):
        for term in TERMS:
            both = []
            for count in epochs:
                start = time.perf_counter()
                train(net, args, args.device, term, count, folder / f"loop-{net.torch}-{turn}-{term}-{count}".replace(":", "-"), "--quiet")
                both.append(time.perf_counter() - start)
            seconds[term].append((both[1] - both[0]) / (EPOCH * (epochs[1] - epochs[0])))
    cells = [f"{1e3 * statistics.median(seconds['vanilla']):.2f} ms"]
    for term in ("exact", "sampled-256"):
        cells.append(f"{statistics.median(a / b for a, b in zip(seconds[term], seconds['vanilla'])):.3f}")
    return f"| {net.name} | " + " | ".join(cells) + " |"


def losses(out: pathlib.Path) -> np.ndarray:
    events = [json.loads(line)["values"] for line in (out / "log.jsonl").read_text().splitlines()]
    return np.array([float(values["loss"]) for values in events if "loss" in values])


def agreement(net: Net, args: argparse.Namespace, term: str, folder: pathlib.Path) -> str:
    """A row of the table of losses, and of where nodes are."""
    curves = []
    for name, device in (("device", args.device), ("host", "cpu")):
        out = folder / f"{name}-{net.torch}-{term}".replace(":", "-")
        told = train(net, args, device, term, max(1, args.steps // EPOCH), out, *(["--verbose"] if name == "device" else []))
        curves.append(losses(out))
        if name == "device":
            # Long sentences are wrapped.
            found = re.findall(r"(\d+) nodes? of the step on (\w+)", re.sub(r"\s+", " ", told))
            placed = {provider: int(count) for count, provider in found}
    assert len(curves[0]) == len(curves[1]) > 0 and placed, told
    on_cpu = sum(count for provider, count in placed.items() if "CPU" in provider)
    apart = np.abs(curves[0] - curves[1]).max()
    return f"| {net.name} | {term} | {apart:.1e} | {curves[1][0]:.4f} to {curves[1][-1]:.4f} | {on_cpu} of {sum(placed.values())} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100, help="steps whose losses are compared, and of the loop")
    parser.add_argument("--steps-a-turn", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=float, default=1.0, help="of the 11-layer CNN")
    parser.add_argument("--depth", type=int, default=110, help="of the residual network, 6n + 2")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has PyTorch")
    parser.add_argument("--ort", default=sys.prefix, help="where per-inject finds ONNX Runtime; this Python's environment")
    args = parser.parse_args()
    if problem := missing_device(args.device):
        raise SystemExit(f"there is no {args.device} here: {problem}; nothing was measured (--device cpu tries this script out)")
    cards = "" if args.device == "cpu" else subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.strip()
    print("# Training on a GPU\n" if args.device != "cpu" else "# A trial of benches/gpu.py on the CPU: no result\n")
    print(f"{args.device}{cards and ': ' + cards.splitlines()[0].split(' (UUID')[0]}, {os.cpu_count()} cores, Linux ", end="")
    print(f"{platform.release().split('-')[0]}; batch {args.batch}; {args.rounds} rounds.")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        found = made(args, folder)
        print("\n## Step\n\nBold: our time over PyTorch's. Losses: how far those of the second step are apart. Terms: a step with PER over one without.\n")
        print("| network | TF32 | vanilla | PyTorch eager | vanilla / PyTorch | losses | exact | sampled-256 |\n" + "|---" * 8 + "|", flush=True)
        for net in found:
            for tf32 in ("off", "on"):
                print(steps(net, args, tf32, folder), flush=True)
        print("\n## Loop of `per-inject train`\n\n| network | vanilla | exact | sampled-256 |\n|---|---|---|---|", flush=True)
        for net in found:
            print(loop(net, args, folder), flush=True)
        print(f"\n## Against the CPU, {max(1, args.steps // EPOCH) * EPOCH} steps\n")
        print("| network | term | losses apart, at most | loss, from to | nodes of the step on the CPU |\n|---|---|---|---|---|", flush=True)
        for net in found:
            for term in TERMS:
                print(agreement(net, args, term, folder), flush=True)


if __name__ == "__main__":
    main()
