"""The models of `models/`, their inputs, and PyTorch's float64 losses and gradients of `tests/data/`."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
DATA = ROOT / "tests" / "data"

NAMES = [
    "mlp_relu.ts13",
    "mlp_relu.ts17",
    "mlp_relu.dyn",
    "cnn11_elu.ts17",
    "cnn11_elu.dyn",
    "fixup_resnet20.ts17",
    "fixup_resnet20.dyn",
    "bn_resnet8.ts17",
    "seq_lstm_lm.ts17",
    "seq_lstm_lm.dyn",
    "gpt_gelu.ts17",
    "gpt_gelu.dyn",
]

KINDS = ["vanilla", "per_flatten", "per_channel"]


@dataclasses.dataclass(frozen=True)
class Gradients:
    """What PyTorch computed in float64: `loss` = `task_loss` + `coef`·Σ `per`, and d loss / d parameter by PyTorch's name."""

    loss: float
    task_loss: float
    per: np.ndarray
    coef: float
    parameters: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Reference:
    name: str

    @property
    def family(self) -> str:
        """The name without its exporter: `mlp_relu` of `mlp_relu.ts17`. Inputs and gradients belong to the family."""
        return self.name.split(".")[0]

    @property
    def path(self) -> pathlib.Path:
        return MODELS / f"{self.name}.onnx"

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        return onnx.load(self.path)

    @functools.cached_property
    def feeds(self) -> dict[str, np.ndarray]:
        with np.load(MODELS / f"{self.family}.inputs.npz") as arrays:
            return dict(arrays)

    def gradients(self, kind: str = "vanilla") -> Gradients:
        with np.load(DATA / f"{self.family}.{kind}.npz") as arrays:
            return Gradients(
                loss=float(arrays["loss"]),
                task_loss=float(arrays["task_loss"]),
                per=arrays["per"],
                coef=float(arrays["coef"]),
                parameters={key.removeprefix("grad:"): arrays[key] for key in arrays if key.startswith("grad:")},
            )

    @functools.cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """Every trainable parameter by PyTorch's name, before any exporter folded it."""
        # The TorchScript exporter keeps names and layouts, and every family has such an export.
        values = initializers(onnx.load(MODELS / f"{self.family}.ts17.onnx"))
        return {name: values[name] for name in self.gradients().parameters}

    @functools.cached_property
    def trainable(self) -> list[str]:
        """The initializers of this export that hold parameters, under whatever name and layout."""
        return list(self._held)

    @functools.cached_property
    def _held(self) -> dict[str, list[Layout]]:
        values = initializers(self.model)
        layouts = list(_layouts(self.parameters))
        held = {}
        for name, value in values.items():
            alike = [layout for layout in layouts if np.array_equal(layout.value, value)]
            # Equal parameters are told apart by name, unless the exporter merged them.
            if all(set(layout.parameters) <= values.keys() for layout in alike):
                alike = [layout for layout in alike if layout.parameters == (name,)] or alike
            if alike:
                held[name] = alike
        return held

    def errors(self, gradients: Mapping[str, np.ndarray], kind: str = "vanilla") -> dict[str, float]:
        """The largest absolute error of each parameter's gradient, over the largest entry of PyTorch's.

        `gradients` go by the names of this export's initializers. Parameters that the exporter merged are compared by the sum
        of their gradients, as are the copies of a parameter that it took apart. A gradient below a thousandth of the model's
        largest is measured against that thousandth: a bias before BatchNormalization has none but rounding noise.
        """
        expected = self.gradients(kind).parameters
        floor = 1e-3 * max(np.abs(gradient).max() for gradient in expected.values())
        # Parameters that no initializer tells apart form one group.
        group = {name: name for name in expected}
        for layouts in self._held.values():
            for position in range(len(layouts[0].parameters)):
                alike = {group[layout.parameters[position]] for layout in layouts}
                for name, member_of in group.items():
                    if member_of in alike:
                        group[name] = min(alike)
        got = {name: np.zeros(expected[name].shape) for name in set(group.values())}
        wanted = {name: np.zeros(expected[name].shape) for name in set(group.values())}
        for name, gradient in expected.items():
            wanted[group[name]] += gradient
        covered = set()
        for initializer, gradient in gradients.items():
            layout = self._held[initializer][0]
            assert gradient.shape == layout.value.shape, f"{initializer}: a gradient of shape {gradient.shape}"
            for name, part in zip(layout.parameters, layout.undo(np.asarray(gradient, np.float64))):
                got[group[name]] += part
                covered.add(group[name])
        missing = sorted(name for name in expected if group[name] not in covered)
        assert not missing, f"{self.name}: no gradient of {', '.join(missing)}"
        return {
            name: float(np.abs(got[name] - wanted[name]).max() / max(np.abs(wanted[name]).max(), floor)) for name in sorted(got)
        }


@dataclasses.dataclass(frozen=True)
class Layout:
    """A value an exporter may store in place of `parameters`, and the way back for its gradient."""

    parameters: tuple[str, ...]
    value: np.ndarray
    undo: object


def _layouts(parameters: Mapping[str, np.ndarray]):
    for name, value in parameters.items():
        yield Layout((name,), value, lambda gradient: [gradient])
        if value.ndim == 2:
            yield Layout((name,), value.T, lambda gradient: [gradient.T])
        if "weight_ih_l" in name or "weight_hh_l" in name:
            yield Layout((name,), _iofc(value)[None], lambda gradient: [_ifco(gradient[0])])
        if "bias_ih_l" in name:
            pair = (name, name.replace("bias_ih_l", "bias_hh_l"))
            packed = np.concatenate([_iofc(parameters[half]) for half in pair])[None]
            yield Layout(pair, packed, lambda gradient: [_ifco(half) for half in np.split(gradient[0], 2)])


def _iofc(gates: np.ndarray) -> np.ndarray:
    """PyTorch orders an LSTM's gates input, forget, cell, output; ONNX orders them input, output, forget, cell."""
    i, f, c, o = np.split(gates, 4)
    return np.concatenate([i, o, f, c])


def _ifco(gates: np.ndarray) -> np.ndarray:
    i, o, f, c = np.split(gates, 4)
    return np.concatenate([i, f, c, o])


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@functools.cache
def reference(name: str) -> Reference:
    """The model `models/<name>.onnx`; a missing file is an error, never a skip."""
    found = Reference(name)
    for path in [found.path, MODELS / f"{found.family}.inputs.npz", *(DATA / f"{found.family}.{kind}.npz" for kind in KINDS)]:
        assert path.is_file(), f"{path.relative_to(ROOT)} is missing"
    return found
