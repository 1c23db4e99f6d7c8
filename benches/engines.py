"""A step of `per-inject train` on each engine: the same model, data and loop.

    tests/setup && cargo build --release && cargo build --profile wheel -p per-inject-python
    .venv/bin/python benches/engines.py [--rounds N] > benches/results/engines.md

For each model a run of few epochs and one of more take turns over the engines; the difference over the steps that the longer one makes more is a
step, without start and end. ONNX Runtime's training API runs inside the Python of .venv-ort-training, whose runtime is 1.19.2; `ort` is timed on that
one, too, so that engines and versions can be told apart. An engine that the program was built without is left out.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
OURS = pathlib.Path(os.environ.get("PER_INJECT", ROOT / "target/release/per-inject"))
LIBRARY = pathlib.Path(os.environ.get("PER_INJECT_NATIVE", ROOT / "target/wheel/lib_native.so"))
TRAINING_PYTHON = ROOT / ".venv-ort-training/bin/python"

sys.path.insert(0, str(ROOT / "tests/python"))
import training  # noqa: E402

# Model, data, batch, epochs of the shorter and of the longer run, and what selects its layers.
MODELS = {
    "mlp_relu": (training.points(3200, 1), 32, (2, 22), "relu"),
    "cnn11_elu": (training.images(64), 16, (1, 6), "elu"),
    "fixup_resnet20": (training.images(32), 8, (1, 6), "relu"),
    "bn_resnet8": (training.images(64), 16, (1, 6), "relu"),
    "seq_lstm_lm": (training.sentences(320), 8, (2, 12), "lstm"),
}
ENGINES = {
    "ort": lambda package: ([OURS, "train"], ["--engine", "ort", "--ort", ROOT / ".venv"]),
    "ort on 1.19.2": lambda package: ([TRAINING_PYTHON, package / "on_training.py", "train"], ["--engine", "ort"]),
    "ort-training": lambda package: ([TRAINING_PYTHON, "-m", "per_inject", "train"], ["--engine", "ort-training"]),
    "tract": lambda package: ([OURS, "train"], ["--engine", "tract"]),
}
# `--engine ort` takes the runtime of the process where the process has handed one over.
ON_TRAINING = """\
import sys
import onnxruntime
from per_inject import _native
onnxruntime.SessionOptions().register_custom_ops_library(_native.__file__)
sys.exit(_native.run(["per-inject", *sys.argv[1:]]))
"""


def seconds(engine: str, package: pathlib.Path, model: pathlib.Path, out: pathlib.Path, options: list[object]) -> float | None:
    """How long a run takes; None where the program has not the engine."""
    program, chosen = ENGINES[engine](package)
    environment = {**training.environment(), "PYTHONPATH": str(package)}
    start = time.perf_counter()
    run = subprocess.run(
        [str(word) for word in [*program, model, "--out", out, *chosen, *options]], env=environment, capture_output=True, text=True
    )
    took = time.perf_counter() - start
    if "was built without" in run.stderr:
        return None
    if run.returncode:
        raise SystemExit(f"{engine}, {model.name}: {run.stderr}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print("# A step of `per-inject train` on each engine\n")
    print(f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, {args.threads} thread(s), median of {args.rounds} rounds; in")
    print("brackets the ratio to `ort`, median of the rounds'. PER is the exact estimator, `--view channel`.\n")
    print("| model, batch | loss | " + " | ".join(ENGINES) + " |\n" + "|---" * (2 + len(ENGINES)) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shutil.copytree(ROOT / "python/per_inject", folder / "per_inject", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        shutil.copy(LIBRARY, folder / "per_inject" / "_native.abi3.so")
        (folder / "on_training.py").write_text(ON_TRAINING)
        for family, (arrays, batch, epochs, layers) in MODELS.items():
            np.savez(folder / "data.npz", **arrays)
            more = len(arrays["x"]) // batch * (epochs[1] - epochs[0])
            for kind, extra in {
                "vanilla": [],
                "exact": ["--layers", layers, "--estimator", "exact", "--view", "channel", "--coef", 1e-3],
            }.items():
                times: dict[str, list[float]] = {engine: [] for engine in ENGINES}
                for turn in range(args.rounds):
                    for engine in ENGINES:
                        both = []
                        for count in epochs:
                            options = ["--data", folder / "data.npz", "--epochs", count, "--batch-size", batch, "--lr", 1e-3, "--quiet"]
                            options += ["--threads", args.threads, "--metric", "none", "--keep", 1, *extra]
                            out = folder / f"{family}-{kind}-{engine}-{turn}-{count}".replace(" ", "-")
                            both.append(seconds(engine, folder, ROOT / f"models/{family}.ts17.onnx", out, options))
                        if None not in both:
                            times[engine].append((both[1] - both[0]) / more)
                cells = []
                for engine, taken in times.items():
                    if not taken:
                        cells.append("not built in")
                        continue
                    ratio = statistics.median(a / b for a, b in zip(taken, times["ort"]))
                    cells.append(f"{statistics.median(taken) * 1e3:.2f} ms ({ratio:.2f})")
                print(f"| `{family}`, {batch} | {kind} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
