"""Runs `per-inject train` and reads what it leaves, without code that it shares with it."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"

TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64, "I32": np.int32}


def command(model: object, out: object, *options: object) -> list[str]:
    return [os.environ["PER_INJECT"], "train", *map(str, [model, "--out", out, "--ort", VENV, "--threads", 1, *options])]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("PER_INJECT_", "ORT_", "VIRTUAL_ENV", "CONDA"))}


def train(model: object, out: object, *options: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The finished process. With `check` it must have succeeded."""
    run = subprocess.run(command(model, out, *options), env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert "panicked" not in run.stderr, run.stderr
    if check:
        assert run.returncode == 0, run.stderr
    return run


def start(model: object, out: object, *options: object) -> subprocess.Popen[bytes]:
    """A process of its own, quiet, to be signalled."""
    arguments = command(model, out, "--quiet", *options)
    return subprocess.Popen(arguments, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def refusal(model: object, out: object, *options: object) -> str:
    """The sentence with which a run is refused."""
    run = train(model, out, "--quiet", *options, check=False)
    assert run.returncode == 1 and run.stdout == "", run
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


def tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8 : 8 + size])
    head.pop("__metadata__", None)
    body = memoryview(raw)[8 + size :]
    read = lambda entry: np.frombuffer(body[slice(*entry["data_offsets"])], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return {name: read(entry) for name, entry in head.items()}


def position(path: pathlib.Path) -> dict:
    """Where the run of a checkpoint was."""
    raw = path.read_bytes()
    head = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return json.loads(head["__metadata__"]["per-inject"])["position"]


def checkpoints(out: pathlib.Path) -> dict[int, pathlib.Path]:
    """The checkpoints of a run, by the steps behind them."""
    found = {re.fullmatch(r"step-(\d+)\.safetensors", path.name): path for path in (out / "checkpoints").glob("step-*")}
    return {int(match[1]): path for match, path in found.items()}


def records(out: pathlib.Path, kind: str) -> list[dict]:
    """What the log holds of one kind, values as floats."""
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [{**line, "values": {k: float(v) for k, v in line["values"].items()}} for line in lines if line["kind"] == kind]


def steps(out: pathlib.Path) -> list[dict[str, float]]:
    """The values of every step."""
    return [record["values"] for record in records(out, "train") if "loss" in record["values"]]


def epochs(out: pathlib.Path) -> list[dict[str, float]]:
    """The means of every epoch."""
    found = [record["values"] for record in records(out, "train") if "epoch/loss" in record["values"]]
    return [{name.removeprefix("epoch/"): value for name, value in values.items()} for values in found]


def evaluations(out: pathlib.Path) -> list[dict[str, float]]:
    """The means of every evaluation."""
    return [record["values"] for record in records(out, "eval")]


def losses(out: pathlib.Path, key: str = "loss") -> np.ndarray:
    return np.array([values[key] for values in steps(out)])


def weights(model: pathlib.Path) -> dict[str, np.ndarray]:
    """The initializers of a model, external ones included."""
    return {t.name: numpy_helper.to_array(t, str(model.parent)) for t in onnx.load(model, load_external_data=False).graph.initializer}


def points(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Points of ten classes for the MLP, which a linear layer tells apart."""
    chooser = np.random.default_rng(0).standard_normal((64, 10))
    x = np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)
    return {"x": x, "y": (x @ chooser).argmax(1)}


def images(rows: int, seed: int = 3) -> dict[str, np.ndarray]:
    """Images whose brightest quarter is their class."""
    chance = np.random.default_rng(seed)
    y = chance.integers(0, 4, rows)
    x = chance.standard_normal((rows, 3, 32, 32)).astype(np.float32)
    for image, label in zip(x, y):
        row, column = divmod(int(label), 2)
        image[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 1.5
    return {"x": x, "y": y}


def sentences(rows: int, seed: int = 4) -> dict[str, np.ndarray]:
    """Sequences whose next token is three further on."""
    x = (np.arange(9) * 3 + np.random.default_rng(seed).integers(0, 200, (rows, 1))) % 200
    return {"x": x, "y": (x + 3) % 200}


def batches(arrays: Mapping[str, np.ndarray], size: int, steps: int, transposed: bool = False) -> list[dict[str, np.ndarray]]:
    """Batches in the order of the data, the last of an epoch left incomplete."""
    rows = len(arrays["x"])
    cut = lambda array, first: array[first : first + size].T.copy() if transposed else array[first : first + size]
    epoch = [{name: cut(array, first) for name, array in arrays.items()} for first in range(0, rows, size)]
    return [epoch[step % len(epoch)] for step in range(steps)]


def is_writing(process: subprocess.Popen) -> bool:
    """Whether a process has a file open that has no name yet: a checkpoint is being written."""
    folder = pathlib.Path(f"/proc/{process.pid}/fd")
    try:
        links = [os.readlink(entry) for entry in folder.iterdir()]
    except OSError:
        return False
    return any("/checkpoints/" in link for link in links)


def kill_while_writing(process: subprocess.Popen, delay: float) -> bool:
    """Kills the process while it writes a checkpoint, the first one after `delay` seconds. False where it ended before."""
    time.sleep(delay)
    while process.poll() is None:
        if is_writing(process):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
    return False


def kill_after(process: subprocess.Popen, delay: float) -> bool:
    """Kills the process after so many seconds. False where it ended before."""
    try:
        process.wait(delay)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True


def drive(step: pathlib.Path, batches: list[Mapping[str, np.ndarray]], rate: float) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses and the end state of a step graph of `per-inject differentiate`, driven by Python."""
    graph = onnx.load(step).graph
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(str(step), options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    carried = [name.removesuffix("_next") for name in outputs if name.endswith("_next")]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in carried}
    inputs = {value.name: value for value in graph.input}
    for name in set(carried) - values.keys():
        values[name] = np.zeros([d.dim_value for d in inputs[name].type.tensor_type.shape.dim], np.float32)
    losses = []
    for count, batch in enumerate(batches):
        feeds = {**batch, **values, "learning_rate": np.array(rate, np.float32)}
        if "step" in inputs:
            feeds["step"] = np.array(count, np.int64)
        results = dict(zip(outputs, session.run(None, feeds)))
        values = {name: results[f"{name}_next"] for name in carried}
        losses.append(float(results[outputs[0]]))
    return losses, values
