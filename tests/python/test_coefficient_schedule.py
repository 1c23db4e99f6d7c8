"""λ that changes from step to step in ONNX Runtime's training: as an input of either form, and as a frozen parameter of the checkpoint."""

import numpy as np
import pytest

import nets
import ort
from onnx import helper

EXACT = ("--layers", "relu", "--estimator", "exact", "--coef", 0.5)
SCHEDULE = np.array([0.5, 0.0, 2.0, 0.25], np.float32)
COEF = "per_inject/coef"

# One product and one sum in float32.
TOLERANCE = 1e-6


def perceptron():
    random = np.random.default_rng(3)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["z1"]),
        helper.make_node("Relu", ["z1"], ["h1"], name="relu1"),
        helper.make_node("Gemm", ["h1", "w2", "b2"], ["z2"]),
        helper.make_node("Mul", ["z2", "z2"], ["q"]),
        helper.make_node("ReduceMean", ["q"], ["loss"], keepdims=0),
    ]
    weights = {"w1": (6, 8), "b1": (8,), "w2": (8, 3), "b2": (3,)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in weights.items()}
    return nets.model(nodes, [("x", nets.FLOAT, [4, 6])], [("loss", nets.FLOAT, [])], weights)


FEEDS = {"x": np.random.default_rng(4).standard_normal((4, 6)).astype(np.float32)}


@pytest.fixture(scope="module")
def plain():
    """The artifacts without PER, and one step of theirs."""
    made = ort.artifacts(perceptron())
    return made, ort.steps(made.training_model, made.checkpoint, FEEDS)


@pytest.fixture(scope="module")
def fixed(inject, plain):
    """A step with λ = 0.5 in an initializer, in the gradient form with the term in the loss."""
    made, _ = plain
    injected = inject(made.training_model, *EXACT, "--loss-term", check=False)
    return ort.steps(injected.data, made.checkpoint, FEEDS)


def check(plain, fixed, scheduled):
    """Loss and gradients are straight lines in λ."""
    _, without = plain
    lines = lambda a, b, coefficient: a + (b - a) * coefficient / 0.5
    expected = [lines(without.losses[0], fixed.losses[0], c) for c in SCHEDULE]
    np.testing.assert_allclose(scheduled.losses, expected, rtol=TOLERANCE)
    for name, gradient in scheduled.gradients.items():
        line = lines(without.gradients[name], fixed.gradients[name], SCHEDULE[-1])
        np.testing.assert_allclose(gradient, line, rtol=0, atol=TOLERANCE * np.abs(line).max(), err_msg=name)
    assert abs(fixed.losses[0] - without.losses[0]) > 0.1


def test_a_training_model_takes_the_coefficient_of_every_step(inject, plain, fixed):
    made, _ = plain
    injected = inject(made.training_model, *EXACT, "--loss-term", "--coef-input", check=False)
    assert injected.model.graph.input[-1].name == COEF
    assert COEF not in [i.name for i in injected.model.graph.initializer]
    assert any("every step has to feed" in w and COEF in w for w in injected.report["warnings"])
    feeds = {**FEEDS, COEF: SCHEDULE}
    check(plain, fixed, ort.steps(injected.data, made.checkpoint, feeds, len(SCHEDULE), varying=[COEF]))


def test_so_does_what_generate_artifacts_makes_of_the_loss_form(inject, plain, fixed):
    injected = inject(perceptron(), *EXACT, "--for", "ort-training", "--coef-input")
    assert COEF not in [i.name for i in injected.model.graph.initializer]
    made = ort.artifacts(injected.data, ["w1", "b1", "w2", "b2"])
    feeds = {**FEEDS, COEF: SCHEDULE}
    check(plain, fixed, ort.steps(made.training_model, made.checkpoint, feeds, len(SCHEDULE), varying=[COEF]))


def test_a_frozen_parameter_is_changed_between_steps(inject, plain, fixed):
    injected = inject(perceptron(), *EXACT, "--for", "ort-training")
    made = ort.artifacts(injected.data, ["w1", "b1", "w2", "b2"], [COEF])
    feeds = {**FEEDS, COEF: SCHEDULE}
    check(plain, fixed, ort.steps(made.training_model, made.checkpoint, feeds, len(SCHEDULE), varying=[COEF]))


def test_elsewhere_the_input_keeps_its_default(inject, session):
    injected = inject(perceptron(), *EXACT, "--coef-input")
    made = session(injected.data)
    [default] = made.run(["loss"], FEEDS)
    [other] = made.run(["loss"], {**FEEDS, COEF: np.array(0, np.float32)})
    assert COEF in [i.name for i in injected.model.graph.initializer] and default > other
    assert not any("every step has to feed" in w for w in injected.report["warnings"])


def test_strip_gives_back_every_byte(inject, plain, per_inject, tmp_path):
    made, _ = plain
    for model, options in [(made.training_model, ()), (perceptron(), ("--for", "ort-training"))]:
        injected = inject(model, *EXACT, *options, "--coef-input", check=False)
        source, back = tmp_path / "injected.onnx", tmp_path / "back.onnx"
        source.write_bytes(injected.data)
        per_inject("strip", source, "-o", back)
        assert back.read_bytes() == (model if isinstance(model, bytes) else model.SerializeToString())
