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


@dataclasses.dataclass(frozen=True)
class Artifacts:
    """What `generate_artifacts` made of a forward graph: the training model and the checkpoint with its parameters."""

    training_model: bytes
    checkpoint: bytes


@dataclasses.dataclass(frozen=True)
class Steps(Step):
    losses: np.ndarray


def artifacts(model: Model, parameters: Iterable[str] | None = None, frozen: Iterable[str] = ()) -> Artifacts:
    """ONNX Runtime's training artifacts of a forward graph whose first output is the loss.

    `parameters` are names of initializers; left out, all of float32 except running statistics and those that are `frozen`.
    """
    with tempfile.TemporaryDirectory() as folder:
        request = {"parameters": None if parameters is None else list(parameters), "frozen": list(frozen)}
        pathlib.Path(folder, "request.json").write_text(json.dumps(request))
        _run("ort_artifacts.py", _saved(model, folder), folder)
        made = [pathlib.Path(folder, name).read_bytes() for name in ["made_training_model.onnx", "made_checkpoint"]]
        return Artifacts(*made)


def steps(
    model: Model, checkpoint: bytes, feeds: Mapping[str, np.ndarray], count: int = 1, rate: float = 0.0, varying: Iterable[str] = ()
) -> Steps:
    """`count` steps of a training model, all on the same batch, with plain SGD in between; outputs and gradients of the last.

    Of what `varying` names, inputs or parameters, `feeds` holds one value a step.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.savez(pathlib.Path(folder, "feeds.npz"), **feeds)
        pathlib.Path(folder, "checkpoint").write_bytes(checkpoint)
        pathlib.Path(folder, "request.json").write_text(json.dumps({"steps": count, "rate": rate, "varying": list(varying)}))
        _run("ort_steps.py", _saved(model, folder), pathlib.Path(folder, "checkpoint"), folder)
        with np.load(pathlib.Path(folder, "step.npz")) as arrays:
            return Steps(**_outputs_and_gradients(arrays), losses=arrays["losses"])


def gradients(model: Model, feeds: Mapping[str, np.ndarray], parameters: Iterable[str] | None = None) -> Step:
    """Outputs and d loss / d parameter of a forward graph whose first output is the loss, by ONNX Runtime's training API.

    `parameters` are names of initializers; left out, all of float32 except the running statistics of BatchNormalization.
    Runs in .venv-ort-training, in a process of its own: that API needs other versions, and now and then it crashes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _run("ort_gradients.py", _prepare(folder, model, feeds, parameters), folder)
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
            crash = _crash("ort_gradients.py", *(part for pair in left for part in pair), "--many")
            done = lambda folder: (folder / "step.npz").exists() or (folder / "refused.txt").exists()
            left = [pair for pair in left if not done(pair[1])]
            if left:
                (left[0][1] / "refused.txt").write_text(crash)
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
        _run("ort_descent.py", path, folder, steps, rate)
        with np.load(folder / "moved.npz") as arrays:
            moved = {key.removeprefix("moved:"): arrays[key] for key in arrays if key.startswith("moved:")}
            return Update(float(arrays["loss"]), moved)


def curves(
    model: Model, feeds: Mapping[str, np.ndarray], parameters: Iterable[str], steps: int, moved: Iterable[str] = (), **settings: object
) -> np.ndarray:
    """The losses of `steps` steps by generate_artifacts, Module and Optimizer; `feeds` holds batches, stacked. `settings`: see ort_curve.py.

    A row for the model as it is, then one for each parameter in `moved`, with its first entry moved to the next float32.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        np.savez(folder / "feeds.npz", **feeds)
        request = {"parameters": list(parameters), "steps": steps, "moved": list(moved), **settings}
        (folder / "request.json").write_text(json.dumps(request))
        _run("ort_curve.py", _saved(model, folder), folder)
        return np.load(folder / "losses.npy")


def _prepare(folder: pathlib.Path, model: Model, feeds: Mapping[str, np.ndarray], parameters: Iterable[str] | None) -> pathlib.Path:
    """Writes what a script reads; returns the model's file."""
    np.savez(folder / "feeds.npz", **feeds)
    (folder / "parameters.json").write_text(json.dumps(None if parameters is None else list(parameters)))
    return _saved(model, folder)


def _saved(model: Model, folder: pathlib.Path | str) -> pathlib.Path:
    """A file with the model: its own, where it is one."""
    if isinstance(model, onnx.ModelProto):
        model = model.SerializeToString()
    if not isinstance(model, bytes):
        return pathlib.Path(model)
    path = pathlib.Path(folder, "model.onnx")
    path.write_bytes(model)
    return path


def _run(script: str, *arguments: object) -> None:
    """Runs a script beside this file by .venv-ort-training."""
    if crash := _crash(script, *arguments):
        raise TrainingRefused(crash)


def _crash(script: str, *arguments: object) -> str:
    """What the script printed where it failed, else nothing."""
    run = subprocess.run(
        [TRAINING_PYTHON, pathlib.Path(__file__).with_name(script), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    return f"exit status {run.returncode}\n{run.stdout}{run.stderr}" if run.returncode else ""


def _step(folder: pathlib.Path) -> Step:
    with np.load(folder / "step.npz") as arrays:
        return Step(**_outputs_and_gradients(arrays))


def _outputs_and_gradients(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    parts = {"outputs": "output:", "gradients": "grad:"}
    return {
        part: {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)} for part, prefix in parts.items()
    }
