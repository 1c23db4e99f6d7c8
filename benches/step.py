"""A training step on the CPU: our step graphs on stock ONNX Runtime, ONNX Runtime training, PyTorch and onnx-ad, side by side in one run.

    tests/setup && benches/setup step && cargo build --release
    .venv-step/bin/python benches/step.py [--rounds N] [--net NAME] [--torch PYTHON] > benches/results/step.md

A step is forward pass, backward pass and plain SGD, of one batch; onnx-ad's has no SGD. Every peer is a process of its own. They take turns,
A B C A B C …, each with a step that is not timed before the one that is, and are compared by the median of the ratios of one turn.
`--torch` names a Python that has PyTorch (Debian: apt-get install python3-torch, then /usr/bin/python3); without it that column is empty.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import nets
import numpy as np
import onnx

ROOT = pathlib.Path(__file__).parent.parent
OURS = os.environ.get("PER_INJECT", ROOT / "target/release/per-inject")
PYTHON = {
    "ours": sys.executable,
    "ort_training": ROOT / ".venv-ort-training/bin/python",
    "onnx_ad": sys.executable,
}
EXPORTS = [
    "mlp_relu.ts17", "mlp_relu.dyn", "mlp_relu.ts13", "cnn11_elu.ts17", "cnn11_elu.dyn", "fixup_resnet20.ts17", "fixup_resnet20.dyn",
    "bn_resnet8.ts17", "seq_lstm_lm.ts17", "seq_lstm_lm.dyn", "gpt_gelu.ts17", "gpt_gelu.dyn",
]  # fmt: skip
WIDE = "cnn11"
TERMS = {
    f"{estimator}, {view}": ["--layers", "all", "--coef", "3e-4", "--estimator", estimator, "--view", view]
    for estimator in ("exact", "sampled", "structured")
    for view in ("channel", "flatten")
}


def per_inject(*arguments) -> str:
    return subprocess.run([OURS, *arguments], check=True, capture_output=True, text=True).stdout


class Peer:
    """A process that makes steps when it is told to; `refused` says why it does not."""

    def __init__(self, name: str, model: pathlib.Path, data: pathlib.Path, parameters: list[str], threads: int) -> None:
        script, names = ROOT / "benches/step_peers.py", json.dumps(parameters)
        if name == "ort_training":
            # In a process of its own, whose memory is not counted; a failure shows when they are read.
            subprocess.run([PYTHON[name], script, "artifacts", model, "-", names, "-"], stderr=subprocess.DEVNULL)
        command = [PYTHON[name], script, name, model, data, names, str(threads)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        answer = self.child.stdout.readline().strip()
        self.refused = None if answer == "ready" else answer.removeprefix("refused: ") or "it crashed"

    def ask(self, what: str) -> float:
        print(what, file=self.child.stdin, flush=True)
        return float(self.child.stdout.readline())


def take_turns(peers: dict[str, Peer], rounds: int) -> dict[str, list[float]]:
    seconds = {name: [] for name in peers}
    for turn in range(rounds + 1):
        for name, peer in peers.items():
            # Threads of the one before it go to sleep first.
            time.sleep(0.02)
            taken = peer.ask("step")
            if turn:
                seconds[name].append(taken)
    return seconds


def ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs))


def source(net: str, folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The model and its batch."""
    if net != WIDE:
        name = net.split(".")[0]
        return ROOT / f"models/{net}.onnx", ROOT / f"models/{name}.inputs.npz"
    model, data, random = folder / f"{net}.onnx", folder / f"{net}.npz", np.random.default_rng(1)
    onnx.save(nets.cnn11(), model)
    np.savez(data, x=random.standard_normal((16, 3, 32, 32), dtype=np.float32), target=random.integers(0, 10, 16))
    return model, data


def compare(net: str, rounds: int, threads: int) -> list[float | None]:
    """A row of the table; the ratios to ONNX Runtime training and to PyTorch."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model, data = source(net, folder)
        step = folder / f"{net}.step.onnx"
        report = json.loads(per_inject("differentiate", model, "--optimizer", "sgd", "--json", "-o", step))
        parameters = [p["name"] for p in report["parameters"]]
        peers = {"ours": Peer("ours", step, data, parameters, threads)}
        plain = folder / f"{net}.onnx"
        if plain != model:
            plain.write_bytes(model.read_bytes())
        peers["ort_training"] = Peer("ort_training", plain, data, parameters, threads)
        note = ""
        if peers["ort_training"].refused:
            rewritten = folder / f"{net}.rewritten.onnx"
            per_inject(model, "--for", "ort-training", "--layers", "none", "--coef", "0", "-o", rewritten)
            peers["ort_training"] = Peer("ort_training", rewritten, data, parameters, threads)
            note = "\\*"
        if "pytorch" in PYTHON:
            peers["pytorch"] = Peer("pytorch", plain, data, parameters, threads)
        peers["onnx_ad"] = Peer("onnx_ad", plain, data, parameters, threads)
        for name, peer in peers.items():
            if peer.refused:
                print(f"{net}, {name}: {peer.refused}", file=sys.stderr)
        seconds = take_turns({n: p for n, p in peers.items() if not p.refused}, rounds)
        memory = {n: peers[n].ask("end") / 1e6 for n in seconds}
    row, ratios = [f"{statistics.median(seconds['ours']) * 1e3:.2f} ms, {memory['ours']:.0f} MB"], []
    for name in ("ort_training", "pytorch", "onnx_ad"):
        if name not in seconds:
            row.append("refused" if name in peers else "")
            ratios.append(None)
            continue
        ratios.append(ratio(seconds["ours"], seconds[name]))
        mark = note if name == "ort_training" else ""
        row.append(f"**{ratios[-1]:.2f}** ({statistics.median(seconds[name]) * 1e3:.2f} ms, {memory[name]:.0f} MB){mark}")
    print(f"| {net} | " + " | ".join(row) + " |", flush=True)
    return ratios


def terms(net: str, rounds: int, threads: int) -> None:
    """What PER costs a step of ours."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model, data = source(net, folder)
        peers = {}
        for term, options in {"vanilla": None, **TERMS}.items():
            step, injected = folder / f"{term}.step.onnx", model
            if options:
                injected = folder / f"{term}.onnx"
                per_inject(model, *options, "-o", injected)
            per_inject("differentiate", injected, "--optimizer", "sgd", "-o", step)
            peers[term] = Peer("ours", step, data, [], threads)
        seconds = take_turns(peers, rounds)
        for peer in peers.values():
            peer.ask("end")
    print(f"\n### {net}\n\n| term | median | / vanilla | quartiles |\n|---|---|---|---|")
    for term, times in seconds.items():
        low, median, high = statistics.quantiles([a / b for a, b in zip(times, seconds["vanilla"])], n=4, method="inclusive")
        print(f"| {term} | {statistics.median(times) * 1e3:.2f} ms | {median:.3f} | {low:.3f} – {high:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--net", choices=[*EXPORTS, WIDE], action="append", help="only this one; may be given more than once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has PyTorch")
    parser.add_argument("--only", choices=("peers", "terms"))
    args = parser.parse_args()
    if args.torch:
        PYTHON["pytorch"] = args.torch
    print("# A training step on the CPU\n")
    print(
        f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, {args.threads} threads; {args.rounds} rounds. "
        f"Load when the run began: {os.getloadavg()[0]:.1f}."
    )
    asked = args.net or [*EXPORTS, WIDE]
    if args.only != "terms":
        print("\n## Peers\n\nBold: our time over theirs. \\* after `per-inject --for ort-training`: refused as exported.\n")
        print("| model | ours | / ORT training | / PyTorch | / onnx-ad |\n|---|---|---|---|---|", flush=True)
        ratios = [compare(net, args.rounds, args.threads)[0] for net in asked]
        known = [r for r in ratios if r]
        if known:
            print(f"\nGeometric mean against ONNX Runtime training: {statistics.geometric_mean(known):.3f}, at most {max(known):.2f}.")
    if args.only != "peers":
        print("\n## What PER costs: a step with it over one without")
        for net in [n for n in asked if n == WIDE or n in ("cnn11_elu.ts17", "bn_resnet8.ts17")]:
            terms(net, args.rounds, args.threads)


if __name__ == "__main__":
    main()
