"""Step graphs of `differentiate` on stock ONNX Runtime, against PyTorch's float64 gradients."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import models
from command import per_inject
from test_reference_values import ACTIVATION, LOSS_TOLERANCE, VIEWS

# Over the largest entry of each parameter's gradient; single precision in sums of up to 16,000 terms, 20 layers deep.
TOLERANCE = 1e-4


def differentiated(model, *options) -> bytes:
    """The step graph, checked by onnx, strict shape inference included."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "model.onnx"), Path(folder, "step.onnx")
        source.write_bytes(model if isinstance(model, bytes) else Path(model).read_bytes())
        per_inject("differentiate", source, "-o", target, *options)
        onnx.checker.check_model(str(target), full_check=True)
        onnx.shape_inference.infer_shapes(onnx.load(target), strict_mode=True, data_prop=True)
        restored = Path(folder, "restored.onnx")
        per_inject("strip", target, "-o", restored)
        assert restored.read_bytes() == source.read_bytes()
        return target.read_bytes()


def gradients(session, step: bytes, feeds: dict) -> tuple[float, dict]:
    run = session(step)
    names = [output.name for output in run.get_outputs()]
    values = dict(zip(names, run.run(None, feeds)))
    suffix = "_grad"
    return float(values["loss"]), {n.removesuffix(suffix): v for n, v in values.items() if n.endswith(suffix)}


@pytest.mark.parametrize("kind", models.KINDS)
@pytest.mark.parametrize("name", models.NAMES)
def test_loss_and_gradients_are_those_of_pytorch(reference, inject, session, name, kind):
    model = reference(name)
    expected = model.gradients(kind)
    source = model.path
    if kind != "vanilla":
        options = ["--layers", ACTIVATION[model.family], "--view", VIEWS[kind], "--estimator", "exact", "--coef", expected.coef]
        source = inject(model.path, *options).data
    loss, found = gradients(session, differentiated(source), model.feeds)
    assert loss == pytest.approx(expected.loss, rel=LOSS_TOLERANCE)
    held = {n: g for n, g in found.items() if n in model.trainable}
    errors = model.errors(held, kind)
    assert max(errors.values()) <= TOLERANCE, errors
