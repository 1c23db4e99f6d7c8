"""`per-inject diff` and two Python tools that compare ONNX files, side by side in one run; then our worst cases.

    benches/setup diff && cargo build --release
    .venv-benches/bin/python benches/diff.py [--rounds N] > benches/results/diff.md

Each tool does what it does of the structure alone, no model is run: `diffonnx` and `onnxdiffer` match messages that are equal with
their names, and score graph kernels besides, which is switched off here where they allow it. So the table has two columns: what a tool
reports for the edit, and how long that takes. A tool that takes longer than the limit is stopped, and not asked again at that size.
"""

import argparse
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
from onnx import TensorProto, helper

import graphs

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
OURS = ROOT / "target/release/per-inject"
LIMIT = 120
sys.path.insert(0, str(ROOT / "tests/python"))

from renaming import renamed  # noqa: E402

# Without graph kernels, which take minutes on a thousand nodes.
DIFFONNX = """
import sys, onnx
from diffonnx.static import StaticDiff
d = StaticDiff(onnx.load(sys.argv[1]), onnx.load(sys.argv[2]))
m = d._calculate_graph_matches()["nodes"]; d._calculate_root_matches()
print(f"{len(m.b_diff)} added, {len(m.a_diff)} removed")
"""
ONNXDIFFER = """
import sys, onnx
from onnxdiff.structs_parameters import OnnxDiff
d = OnnxDiff(onnx.load(sys.argv[1]), onnx.load(sys.argv[2]))
m = d._calculate_graph_matches()["nodes"]; d._calculate_root_matches()
print(f"{m.b_total - m.same} added, {m.a_total - m.same} removed")
"""


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8])


def model(nodes, output):
    graph = helper.make_graph(nodes, "main", [value("x")], [value(output)])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def chain(count, insert=()):
    """One operator again and again; at some places another one in between."""
    nodes, x = [], "x"
    for i in range(count):
        if i in insert:
            nodes.append(helper.make_node("Neg", [x], [f"new{i}"], f"new{i}"))
            x = f"new{i}"
        nodes.append(helper.make_node("Relu", [x], [f"v{i}"], f"n{i}"))
        x = f"v{i}"
    return model(nodes, x)


def fan(count):
    """All nodes alike: they read the same value, and one node reads them all."""
    nodes = [helper.make_node("Relu", ["x"], [f"v{i}"], f"n{i}") for i in range(count)]
    return model([*nodes, helper.make_node("Sum", [f"v{i}" for i in range(count)], ["y"])], "y")


def tangle(count, seed):
    """Few operators wired at random."""
    random, nodes, values = np.random.default_rng(seed), [], ["x"]
    operators = [("Relu", 1), ("Neg", 1), ("Exp", 1), ("Sigmoid", 1), ("Add", 2), ("Mul", 2), ("Sub", 2)]
    for i in range(count):
        op, inputs = operators[random.integers(len(operators))]
        reads = [values[-1 - int(min(len(values) - 1, random.integers(20)))] for _ in range(inputs)]
        nodes.append(helper.make_node(op, reads, [f"s{seed}v{i}"], f"s{seed}n{i}"))
        values.append(f"s{seed}v{i}")
    return model(nodes, values[-1])


def inserted(before, places):
    """With a node in front of some nodes."""
    after = onnx.ModelProto.FromString(before.SerializeToString())
    nodes = list(after.graph.node)
    for place in sorted(places, reverse=True):
        node = nodes[place]
        nodes.insert(place, helper.make_node("Neg", [node.input[0]], [f"new{place}"], f"new{place}"))
        node.input[0] = f"new{place}"
    del after.graph.node[:]
    after.graph.node.extend(nodes)
    return after


def trained(before):
    after = onnx.ModelProto.FromString(before.SerializeToString())
    for tensor in after.graph.initializer:
        tensor.raw_data = (np.frombuffer(tensor.raw_data, "<f4") * np.float32(1.01)).tobytes()
    return after


def run(command):
    """Wall seconds, and the last line that matters; `None` where it took too long."""
    start = time.perf_counter()
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return None, "stopped"
    seconds = time.perf_counter() - start
    if done.returncode:
        return seconds, "failed: " + (done.stderr.strip().splitlines() or ["?"])[-1][:80]
    nodes = re.search(r"^ nodes +\| (.*)$", done.stdout, re.M)
    same = "the same" if "are the same" in done.stdout else ""
    return seconds, nodes[1] if nodes else same or done.stdout.strip().splitlines()[-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    print(f"# Differences\n\n{os.cpu_count()} cores, {memory:.0f} GB, Linux {platform.release().split('-')[0]}; medians of {arguments.rounds} rounds after one to warm up.")
    print(f"Load when the run began: {os.getloadavg()[0]:.1f}. A tool is stopped after {LIMIT} s.")
    tools = {
        "per-inject": [OURS, "diff"],
        "diffonnx": [ROOT / ".venv-diffonnx/bin/python", "-c", DIFFONNX],
        "onnxdiffer": [ROOT / ".venv-onnxdiffer/bin/python", "-c", ONNXDIFFER],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)

        def save(name, model):
            path = folder / f"{name}.onnx"
            path.write_bytes(model.SerializeToString())
            return path

        def table(title, cases, used):
            print(f"\n## {title}\n\n| | tool | median | fastest | slowest | nodes |\n|---|---|---|---|---|---|", flush=True)
            stopped = set()
            for case, (a, b) in cases.items():
                times = {tool: [] for tool in used}
                said = {}
                for turn in range(arguments.rounds + 1):
                    for tool in [t for t in used if t not in stopped]:
                        seconds, said[tool] = run([*tools[tool], a, b])
                        if seconds is None:
                            stopped.add(tool)
                        elif turn:
                            times[tool].append(seconds)
                for tool in used:
                    taken = times[tool]
                    shown = [f"{f(taken):.2f} s" for f in (statistics.median, min, max)] if taken else [f"> {LIMIT} s", "", ""]
                    print(f"| {case} | {tool} | {' | '.join(shown)} | {said.get(tool, 'not asked again')} |", flush=True)

        for n in (1_000, 10_000, 100_000):
            residual = graphs.residual(n)
            one = inserted(residual, [n // 2])
            same = save("residual", residual)
            cases = {
                "the same file": (same, same),
                "one node inserted": (same, save("one", one)),
                "every name changed": (same, save("renamed", renamed(residual))),
                "every name changed, one node inserted": (same, save("renamed-one", renamed(one))),
            }
            table(f"{n:,} nodes", cases, list(tools))
        three = inserted(trained(residual), [4, n // 2, n - 100])
        fanned, chained = save("fan", fan(n)), save("chain", chain(n))
        worst = {
            "every name and weight changed, three nodes inserted": (same, save("three", renamed(three))),
            "nothing in common: residual against perceptron": (same, save("perceptron", graphs.perceptron(n))),
            "all nodes alike, one fewer": (fanned, save("fan-less", fan(n - 1))),
            "a chain of one operator, one fewer": (chained, save("chain-less", chain(n - 1))),
            "a chain of one operator, 500 others inserted": (chained, save("chain-more", chain(n, range(0, n, n // 500)))),
            "two random graphs of seven operators": (save("tangle1", tangle(n, 1)), save("tangle2", tangle(n, 2))),
        }
        table(f"Worst cases, {n:,} nodes", worst, ["per-inject"])


if __name__ == "__main__":
    main()
