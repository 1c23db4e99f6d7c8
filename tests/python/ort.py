"""Sessions of stock ONNX Runtime, and gradients of its training API."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAINING_PYTHON = ROOT / ".venv-ort-training" / "bin" / "python"

Model = str | os.PathLike | bytes | onnx.ModelProto

OPTIMISATION = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def session(model: Model, optimisation: str = "all") -> onnxruntime.InferenceSession:
    """A CPU session on one thread. A path keeps external data reachable; bytes do not."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = OPTIMISATION[optimisation]
    options.log_severity_level = 3
    if isinstance(model, onnx.ModelProto):
        model = model.SerializeToString()
    elif not isinstance(model, bytes):
        model = os.fspath(model)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class TrainingRefused(Exception):
    """ONNX Runtime's training API did not take the model; the message is what it printed."""


@dataclasses.dataclass(frozen=True)
class Step:
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]

    @property
    def loss(self) -> float:
        """The first output of the graph."""
        return float(next(iter(self.outputs.values())))


def gradients(model: Model, feeds: Mapping[str, np.ndarray], parameters: Iterable[str] | None = None) -> Step:
    """Outputs and d loss / d parameter of a forward graph whose first output is the loss, by ONNX Runtime's training API.

    `parameters` are names of initializers; left out, all of float32 except the running statistics of BatchNormalization.
    Runs in .venv-ort-training, in a process of its own: that API needs other versions, and now and then it crashes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = _train([(_prepare(folder, model, feeds, parameters), folder)])
        if run.returncode != 0:
            raise TrainingRefused(f"exit status {run.returncode}\n{run.stdout}{run.stderr}")
        return _step(folder)


def gradients_of_each(jobs: Iterable[tuple[Model, Mapping[str, np.ndarray], Iterable[str] | None]]) -> list[Step | TrainingRefused]:
    """`gradients` of many small models in one process: starting one takes longer than a step. A crash costs only the model's own."""
    with tempfile.TemporaryDirectory() as name:
        folders = []
        for number, job in enumerate(jobs):
            folder = pathlib.Path(name, str(number))
            folder.mkdir()
            folders.append((_prepare(folder, *job), folder))
        left = list(folders)
        while left:
            run = _train(left if len(left) > 1 else left * 2)
            done = lambda folder: (folder / "step.npz").exists() or (folder / "refused.txt").exists()
            left = [pair for pair in left if not done(pair[1])]
            if left:
                (left[0][1] / "refused.txt").write_text(f"exit status {run.returncode}\n{run.stdout}{run.stderr}")
                left = left[1:]
        refused = lambda folder: (folder / "refused.txt").exists()
        return [TrainingRefused((f / "refused.txt").read_text()) if refused(f) else _step(f) for _, f in folders]


@dataclasses.dataclass(frozen=True)
class Update:
    """The loss before one step of plain gradient descent with rate 1, and how far it moved each parameter: the gradient."""

    loss: float
    moved: dict[str, np.ndarray]


def descend(model: Model, feeds: Mapping[str, np.ndarray], parameters: Iterable[str], steps: int = 1, rate: float = 1.0) -> Update:
    """generate_artifacts with its SGD, Module, Optimizer; `loss` is that of the last step. In .venv-ort-training, as `gradients`."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = _prepare(folder, model, feeds, parameters)
        script = pathlib.Path(__file__).with_name("ort_descent.py")
        command = [TRAINING_PYTHON, script, path, folder, str(steps), str(rate)]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if run.returncode != 0:
            raise TrainingRefused(f"exit status {run.returncode}\n{run.stdout}{run.stderr}")
        with np.load(folder / "moved.npz") as arrays:
            moved = {key.removeprefix("moved:"): arrays[key] for key in arrays if key.startswith("moved:")}
            return Update(float(arrays["loss"]), moved)


def _prepare(folder: pathlib.Path, model: Model, feeds: Mapping[str, np.ndarray], parameters: Iterable[str] | None) -> pathlib.Path:
    path = folder / "model.onnx"
    if isinstance(model, onnx.ModelProto):
        model = model.SerializeToString()
    if isinstance(model, bytes):
        path.write_bytes(model)
    else:
        path = pathlib.Path(model)
    np.savez(folder / "feeds.npz", **feeds)
    (folder / "parameters.json").write_text(json.dumps(None if parameters is None else list(parameters)))
    return path


def _train(pairs: list[tuple[pathlib.Path, pathlib.Path]]) -> subprocess.CompletedProcess[str]:
    script = pathlib.Path(__file__).with_name("ort_gradients.py")
    command = [TRAINING_PYTHON, script, *(part for pair in pairs for part in pair)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")


def _step(folder: pathlib.Path) -> Step:
    with np.load(folder / "step.npz") as arrays:
        return Step(
            outputs={key.removeprefix("output:"): arrays[key] for key in arrays if key.startswith("output:")},
            gradients={key.removeprefix("grad:"): arrays[key] for key in arrays if key.startswith("grad:")},
        )
