"""`per-inject train` against ONNX Runtime training's own optimisers: the same start, the same batches, the same curve."""

import dataclasses
import os

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import models
import ort
import training

# tests/nightly asks for a thousand.
STEPS = int(os.environ.get("PER_INJECT_TEST_CURVE_STEPS", 100))


@dataclasses.dataclass(frozen=True)
class Case:
    model: str
    arrays: dict[str, np.ndarray]
    layers: str
    coef: float
    batch: int
    # The rate of each optimiser.
    rates: dict[str, float]
    # The most steps, by optimiser: where a run is chaotic, it keeps its digits no longer, and what is left to compare is luck.
    most: dict[str, int] = dataclasses.field(default_factory=dict)

    def steps(self, optimizer: str) -> int:
        return min(STEPS, self.most.get(optimizer, STEPS))

    @property
    def transposed(self) -> bool:
        return self.model.startswith("seq")


CASES = {
    "mlp": Case("mlp_relu.ts17", training.points(320, 1), "relu", 0.5, 32, {"sgd": 0.1, "adamw": 1e-3}),
    "fixup": Case("fixup_resnet20.ts17", training.images(16), "relu", 1e-2, 2, {"sgd": 0.02, "adamw": 1e-3}, {"adamw": 15}),
    "lstm": Case("seq_lstm_lm.ts17", training.sentences(80), "lstm", 0.1, 8, {"sgd": 0.5, "adamw": 1e-3}),
    "batchnorm": Case("bn_resnet8.ts17", training.images(16), "relu", 1e-2, 4, {"sgd": 0.05, "adamw": 1e-3}, {"sgd": 10, "adamw": 10}),
}

# ORT training computes 1 − β₂ᵗ in float32: of β₂ = 0.999 that leaves four digits in early steps, of this one six.
ADAMW = {"betas": [1 - 2**-3, 1 - 2**-5], "epsilon": 1e-4, "decay": 0.01}


def by_train(case, model, optimizer, extra, folder):
    np.savez(folder / "data.npz", **case.arrays)
    steps = case.steps(optimizer)
    epochs = -(-steps * case.batch // len(case.arrays["x"]))
    options = ["--data", folder / "data.npz", "--epochs", epochs, "--batch-size", case.batch, "--no-shuffle", "--quiet"]
    options += ["--optimizer", optimizer, "--lr", case.rates[optimizer]]
    if optimizer == "adamw":
        [beta1, beta2] = ADAMW["betas"]
        options += ["--beta1", beta1, "--beta2", beta2, "--epsilon", ADAMW["epsilon"], "--weight-decay", ADAMW["decay"]]
    training.train(model, folder / "run", *options, *extra)
    return training.losses(folder / "run")[:steps]


def moved(model, name):
    """The model with the first entry of an initializer moved to the next float32."""
    model = onnx.ModelProto.FromString(model)
    [tensor] = [t for t in model.graph.initializer if t.name == name]
    value = numpy_helper.to_array(tensor).copy()
    value.flat[0] = np.nextafter(value.flat[0], np.float32(np.inf))
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return model.SerializeToString()


@pytest.mark.parametrize("kind", ["vanilla", "per"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", CASES)
def test_the_loss_curve_is_ort_trainings_as_far_as_that_is_determined(reference, inject, name, optimizer, kind, tmp_path):
    """At most ten times as far from it as ORT training is from itself when one weight moves by one ulp: the first, one in the middle or one of
    the last parameter, whichever goes furthest. A single one may sit where little depends on it."""
    case = CASES[name]
    model = reference(case.model)
    extra = ["--layers", case.layers, "--estimator", "exact", "--coef", case.coef] if kind == "per" else []
    found = by_train(case, model.path, optimizer, extra, tmp_path)
    rewritten = inject(model.path, "--for", "ort-training", *(extra or ["--layers", "none", "--coef", 0])).data
    distinct = training.batches(case.arrays, case.batch, len(case.arrays["x"]) // case.batch, case.transposed)
    feeds = {key: np.stack([batch[key] for batch in distinct]) for key in case.arrays}
    settings = {"optimizer": optimizer, "rate": case.rates[optimizer], **ADAMW}
    curve = lambda start: ort.curve(start, feeds, model.trainable, case.steps(optimizer), **settings)
    expected = curve(rewritten)
    names = [model.trainable[i] for i in (0, len(model.trainable) // 2, -1)]
    beside = [curve(moved(rewritten, name)) for name in names]
    assert len(found) == len(expected) and np.isfinite(expected).all()
    apart, itself = np.abs(found - expected).max(), max(np.abs(curve - expected).max() for curve in beside)
    print(f"{name} {optimizer} {kind}: {apart:.1e} apart, ONNX Runtime training {itself:.1e} from itself; loss {expected[0]:.3f} to {expected[-1]:.3f}")
    assert apart <= 10 * itself
    # The curve goes somewhere: the first batch, and the same an epoch later.
    assert abs(expected[len(distinct)] - expected[0]) > 1e-3
