"""What the other tests stand on: the reference data, the two runtimes and the corpus are there and agree with each other."""

import json
import math

import numpy as np
import onnx
import onnxruntime
import pytest

import corpus as wheels
import models
import ort

# The loss in float32 against float64: a few units in the last place, times the depth of the network.
LOSS_TOLERANCE = 2e-6

# The worst gradient measured is 7.3e-6 of its largest entry (Fixup, 20 layers deep); other CPUs sum in another order.
GRADIENT_TOLERANCE = 2e-4


def test_the_pinned_versions_are_installed():
    assert onnx.__version__ == "1.23.2"
    assert onnxruntime.__version__ == "1.32.0"


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("optimisation", ["all", "disabled"])
def test_the_loss_of_every_model_is_that_of_pytorch(reference, session, name, optimisation):
    model = reference(name)
    [loss] = session(model.path, optimisation).run(["loss"], model.feeds)
    assert loss == pytest.approx(model.gradients().loss, rel=LOSS_TOLERANCE)


@pytest.mark.parametrize("name", models.NAMES)
def test_every_parameter_is_found_in_every_model(reference, name):
    model = reference(name)
    zeros = {initializer: np.zeros_like(models.initializers(model.model)[initializer]) for initializer in model.trainable}
    # Zero gradients are wrong everywhere, and by all of the largest entry wherever that is above the floor.
    errors = model.errors(zeros)
    assert max(errors.values()) == pytest.approx(1.0)
    assert min(errors.values()) > 0.0


@pytest.mark.parametrize("name", models.NAMES)
def test_the_regularised_loss_is_the_task_loss_plus_the_terms(reference, name):
    for kind in models.KINDS:
        expected = reference(name).gradients(kind)
        assert expected.loss == pytest.approx(expected.task_loss + expected.coef * expected.per.sum(), rel=1e-12)


# The four that ONNX Runtime's training API takes as they were exported.
@pytest.mark.parametrize("name", ["bn_resnet8.ts17", "fixup_resnet20.dyn", "seq_lstm_lm.ts17", "seq_lstm_lm.dyn"])
def test_ort_training_computes_the_gradients_of_pytorch(reference, gradients, name):
    model = reference(name)
    step = gradients(model.path, model.feeds, model.trainable)
    assert step.loss == pytest.approx(model.gradients().loss, rel=LOSS_TOLERANCE)
    errors = model.errors(step.gradients)
    assert max(errors.values()) <= GRADIENT_TOLERANCE, errors


def test_a_model_ort_training_refuses_says_why(reference, gradients):
    model = reference("cnn11_elu.ts17")
    with pytest.raises(ort.TrainingRefused, match="gradient builder has not been registered: Elu"):
        gradients(model.path, model.feeds)


def test_a_wrong_gradient_is_noticed(reference, gradients):
    model = reference("seq_lstm_lm.ts17")
    step = gradients(model.path.read_bytes(), model.feeds)
    step.gradients["l1.weight_hh_l0"][3, 5] += 1e-3 * np.abs(step.gradients["l1.weight_hh_l0"]).max()
    errors = model.errors(step.gradients)
    assert [name for name, error in errors.items() if error > GRADIENT_TOLERANCE] == ["l1.weight_hh_l0"]


def test_the_corpus_is_complete(corpus):
    assert len(corpus()) == 149 + 1431
    assert len(set(corpus())) == len(corpus())
    assert len(wheels.node_tests()) == 1282


def test_the_data_of_every_operator_test_can_be_read(node_test_data):
    sets = [data for path in wheels.node_tests() for data in node_test_data(path)]
    assert len(sets) == 1282
    assert all(data.outputs or data.skipped for data in sets)
    assert sum(data.skipped for data in sets) == 57


def test_an_operator_test_passes_on_ort(session, node_test_data):
    [path] = [path for path in wheels.node_tests() if path.parent.name == "test_gemm_all_attributes"]
    [data] = node_test_data(path)
    [got] = session(path).run(None, data.inputs)
    np.testing.assert_allclose(got, next(iter(data.outputs.values())), rtol=1e-6)


def test_the_exact_values_agree_with_erf_in_one_dimension():
    rows = [row for row in json.loads((models.DATA / "per_exact.json").read_text()) if row["d"] == 1]
    assert len(rows) == 14
    for row in rows:
        p = math.sqrt(row["q"])
        loss = p * math.erf(p / math.sqrt(2)) + math.sqrt(2 / math.pi) * math.exp(-p * p / 2)
        assert row["loss"] == pytest.approx(loss, rel=1e-15)
        assert row["kappa"] == pytest.approx(math.erf(p / math.sqrt(2)) / p if p else math.sqrt(2 / math.pi), rel=1e-15)
