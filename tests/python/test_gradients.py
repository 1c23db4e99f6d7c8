"""Whoever differentiates the injected graph gets the gradient of the regulariser: ONNX Runtime's training API against PyTorch."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import closed_form
import models
from test_reference_values import ACTIVATION, LOSS_TOLERANCE, VIEWS

# The four exports that ONNX Runtime's training API takes, with the error allowed, over the largest entry. Measured are 1.2e-6, 1.7e-5,
# 5.1e-7 and 5.1e-7; Fixup is 20 layers deep and has no normalisation, and other CPUs sum in another order.
TOLERANCE = {"bn_resnet8.ts17": 1e-5, "fixup_resnet20.dyn": 2e-4, "seq_lstm_lm.ts17": 1e-5, "seq_lstm_lm.dyn": 1e-5}
TRAINABLE = list(TOLERANCE)


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("kind", VIEWS)
def test_the_gradients_of_the_exact_injection_are_those_of_pytorch(reference, inject, gradients, name, kind):
    model = reference(name)
    expected = model.gradients(kind)
    injected = inject(
        model.path, "--layers", ACTIVATION[model.family], "--view", VIEWS[kind], "--estimator", "exact", "--coef", expected.coef
    )
    step = gradients(injected.data, model.feeds, model.trainable)
    assert step.loss == pytest.approx(expected.loss, rel=LOSS_TOLERANCE)
    errors = model.errors(step.gradients, kind)
    assert max(errors.values()) <= TOLERANCE[name], errors
    # The regulariser matters: against the gradients without it the same numbers are far off.
    assert max(model.errors(step.gradients, "vanilla").values()) > 100 * TOLERANCE[name]


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("kind", VIEWS)
def test_the_sampled_injection_can_be_differentiated(reference, inject, gradients, name, kind):
    model = reference(name)
    expected = model.gradients(kind)
    injected = inject(model.path, "--layers", ACTIVATION[model.family], "--view", VIEWS[kind], "--seed", 1, "--coef", expected.coef)
    step = gradients(injected.data, model.feeds, model.trainable)
    # Slices share their noise between the rows of a batch; 256 of them leave less than 6e-4 of these losses.
    assert step.loss == pytest.approx(expected.loss, rel=5e-3)
    assert all(np.isfinite(gradient).all() for gradient in step.gradients.values())
    assert max(model.errors(step.gradients, "vanilla").values()) > 0


@pytest.mark.parametrize("view, shape", [("flatten", (6, 8)), ("flatten", (3, 4, 5)), ("channel", (2, 7, 3, 4)), ("last", (4, 3, 6))])
def test_the_gradient_of_the_sampled_graph_is_equation_6_of_the_slices_that_were_drawn(inject, gradients, view, shape):
    h = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["h0", "one"], ["h"]), helper.make_node("ReduceMean", ["h"], ["task"], keepdims=0)],
        "g",
        [helper.make_tensor_value_info("one", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("task", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(h, "h0")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    injected = inject(model, "--layers", "tensor:h", "--view", view, "--slices", 16, "--coef", 1).model
    [normal] = [value for value in injected.graph.value_info if value.name.endswith("/normal")]
    injected.graph.output.append(normal)
    step = gradients(injected, {"one": np.ones(1, np.float32)}, ["h0"])

    rows = closed_form.rows(h.astype(np.float64), view)
    drawn = closed_form.slices(step.outputs[normal.name])
    slope = np.vectorize(math.erf)(rows @ drawn / math.sqrt(2))
    expected = slope @ drawn.T / (len(rows) * drawn.shape[1])
    got = closed_form.rows(step.gradients["h0"].astype(np.float64) - 1 / h.size, view)
    # A few roundings of float32 in sums of 16 terms.
    np.testing.assert_allclose(got, expected, atol=2e-6 * np.abs(expected).max())
