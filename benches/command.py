"""Whole commands, timed side by side in one run: ours, the Python libraries, and cp as the limit.

    benches/setup && cargo build --release
    .venv-benches/bin/python benches/command.py [--rounds N] [--quick] > benches/results/command.md

Commands take turns, each round in an order of its own, so that a drift of the machine hits all of them; medians and ratios are what counts.
Peak memory is that of anonymous pages, sampled; pages of the mapped file can be dropped by the system at any time and are not counted. User
time is the processors' in the command itself: it leaves out what the system takes to find free memory, which varies most.
"""

import argparse
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import typing

HERE = pathlib.Path(__file__).parent
OURS = HERE.parent / "target/release/per-inject"


class Cost(typing.NamedTuple):
    """What one run of a command took."""

    wall: float
    user: float
    megabytes: float


def run(command: list[str]) -> Cost:
    """Seconds, and the peak of anonymous memory."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0.0
    while True:
        try:
            status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
            peak = max([peak, *(float(l.split()[1]) / 1e3 for l in status.splitlines() if l.startswith("RssAnon"))])
        except OSError:
            pass
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.002)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {child.stderr.read().decode()}")
    return Cost(seconds, usage.ru_utime, peak)


def compare(title: str, commands: dict[str, list[str]], rounds: int, unit: str) -> None:
    """A table of medians, with ratios to the command called `unit`."""
    costs = {name: [] for name in commands}
    for turn in range(rounds + 1):
        # Another order in each round: what a command finds of free memory depends on the one before it.
        for name in random.Random(turn).sample(list(commands), len(commands)):
            cost = run([str(part) for part in commands[name]])
            if turn:  # the first one warms the page cache
                costs[name].append(cost)
    wall = {name: statistics.median(cost.wall for cost in taken) for name, taken in costs.items()}
    print(f"\n## {title}\n\n| command | median | fastest | slowest | / {unit} | user time | anonymous memory |\n|---|---|---|---|---|---|---|")
    for name, taken in costs.items():
        seconds = [cost.wall for cost in taken]
        user = statistics.median(cost.user for cost in taken)
        memory = max(cost.megabytes for cost in taken)
        print(
            f"| {name} | {wall[name]:.3f} s | {min(seconds):.3f} | {max(seconds):.3f} | {wall[name] / wall[unit]:.2f} "
            f"| {user:.3f} s | {memory:.0f} MB |",
            flush=True,
        )


def graph(folder: pathlib.Path, kind: str, nodes: int) -> pathlib.Path:
    path = folder / f"{kind}.{nodes}.onnx"
    if not path.exists():
        subprocess.run([sys.executable, HERE / "graphs.py", kind, str(nodes), path], check=True)
    return path


def inject(model: pathlib.Path, out: pathlib.Path, estimator: str = "exact") -> list:
    return [OURS, model, "--layers", "relu", "--coef", "3e-5", "--estimator", estimator, "-o", out]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="without the million nodes and the 1.6 GB")
    parser.add_argument("--folder", help="where the graphs go; needs 6 GB")
    args = parser.parse_args()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    print(f"# Whole commands\n\n{os.cpu_count()} cores, {memory:.0f} GB, Linux {platform.release().split('-')[0]}; {args.rounds} rounds after one to warm up.")
    print(f"Load when the run began: {os.getloadavg()[0]:.1f}. Binary: {OURS.stat().st_size / 1e6:.1f} MB.")
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = pathlib.Path(name)
        out = folder / "out.onnx"
        compare("`--help`", {"per-inject --help": [OURS, "--help"], "/bin/true": ["/bin/true"]}, args.rounds, "/bin/true")
        for kind in ("residual", "perceptron"):
            # A million nodes with half a million Relus would pass protobuf's 2 GiB, which per-inject refuses.
            sizes = [1_000, 10_000, 100_000] + ([] if args.quick or kind == "perceptron" else [1_000_000])
            commands = {f"{n:,} nodes, {e}": inject(graph(folder, kind, n), out, e) for n in sizes for e in ("exact", "sampled")}
            commands["cp of the injected 100,000 nodes"] = ["cp", folder / "injected.onnx", out]
            run([str(p) for p in inject(folder / f"{kind}.100000.onnx", folder / "injected.onnx")])
            one_in = {"residual": 4, "perceptron": 2}[kind]
            compare(f"Tapping every Relu: {kind}, one Relu in {one_in} nodes", commands, args.rounds, "100,000 nodes, exact")
        big = folder / "residual.100000.onnx"
        run([str(p) for p in inject(big, folder / "injected.onnx")])
        peers = {
            peer: [sys.executable, HERE / "peers.py", peer, 15, big, out] for peer in ("onnx", "onnx-ir", "onnx-graphsurgeon")
        }
        ours = {"inject, exact": inject(big, out), "inject, sampled": inject(big, out, "sampled")}
        others = {
            "inspect": [OURS, "inspect", big],
            "strip": [OURS, "strip", folder / "injected.onnx", "-o", out],
        }
        compare("100,000 nodes: the Python libraries (15 nodes per Relu)", ours | others | peers, min(args.rounds, 3), "inject, exact")
        if not args.quick:
            for path in folder.glob("*.onnx"):
                path.unlink()
            large = graph(folder, "large", 0)
            copies = {"inject": inject(large, out), "cp": ["cp", large, folder / "copy.onnx"]}
            compare("A model of 1.6 GB, inline weights", copies, args.rounds, "cp")


if __name__ == "__main__":
    main()
