"""Every model that ships in the two `onnx` wheels, and the data of ONNX's operator tests."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Counted in onnx 1.23.2 and 1.16.2; only the older wheel has the operator tests.
MODELS_IN = {".venv": 149, ".venv-ort-training": 1431}


def _wheel(environment: str) -> pathlib.Path:
    found = list(ROOT.glob(f"{environment}/lib/python3.*/site-packages/onnx"))
    assert len(found) == 1, f"expected one onnx package in {environment}, found {found}: run tests/setup"
    return found[0]


@functools.cache
def corpus() -> tuple[pathlib.Path, ...]:
    """The paths of all 1,580 models, always in the same order."""
    paths = []
    for environment, expected in MODELS_IN.items():
        found = sorted(_wheel(environment).rglob("*.onnx"))
        assert len(found) == expected, f"expected {expected} models in {environment}, found {len(found)}"
        paths += found
    return tuple(paths)


def node_tests() -> list[pathlib.Path]:
    """The `model.onnx` of each of ONNX's operator tests."""
    return [path for path in corpus() if path.parent.parent.name == "node"]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One `test_data_set_*`: tensors by the graph's names, and how many values are sequences or optionals, which are not read."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    skipped: int


def node_test_data(path: pathlib.Path) -> list[DataSet]:
    """The data sets beside a test's `model.onnx`."""
    graph = onnx.load(path, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    fed = [value for value in graph.input if value.name not in stored]
    sets = []
    for folder in sorted(path.parent.glob("test_data_set_*")):
        inputs, input_skips = _values(folder, "input", fed)
        outputs, output_skips = _values(folder, "output", graph.output)
        sets.append(DataSet(inputs, outputs, input_skips + output_skips))
    return sets


def _values(folder: pathlib.Path, kind: str, declared) -> tuple[dict[str, np.ndarray], int]:
    values, skipped = {}, 0
    for position, value in enumerate(declared):
        file = folder / f"{kind}_{position}.pb"
        if value.type.WhichOneof("value") == "tensor_type":
            values[value.name] = numpy_helper.to_array(onnx.load_tensor(file))
        else:
            skipped += 1
    return values, skipped
