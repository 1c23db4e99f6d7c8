"""The Python package, built as the binary is, inside the Python that has onnxruntime-training-cpu."""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import subprocess
import tempfile

import ort
import training


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    subprocess.run(["cargo", "build", "--quiet", "--package", "per-inject-python"], cwd=training.ROOT, check=True, stdin=subprocess.DEVNULL)
    folder = tempfile.TemporaryDirectory()
    package = pathlib.Path(folder.name, "per_inject")
    shutil.copytree(training.ROOT / "python" / "per_inject", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(pathlib.Path(os.environ["PER_INJECT"]).parent / "lib_native.so", package / "_native.abi3.so")
    return folder


def train(model: object, out: object, *options: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The finished process of `python -m per_inject train`, on one thread. With `check` it must have succeeded."""
    words = ["-m", "per_inject", "train", model, "--out", out, "--threads", 1, *options]
    environment = training.environment() | {"PYTHONPATH": _folder().name}
    run = subprocess.run([ort.TRAINING_PYTHON, *map(str, words)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert "panicked" not in run.stderr, run.stderr
    if check:
        assert run.returncode == 0, run.stderr
    return run
