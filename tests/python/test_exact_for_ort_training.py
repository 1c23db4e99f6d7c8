"""The exact estimator as `--for ort-training` writes it, cheaper to differentiate there: the same value, the same gradient."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import closed_form
import nets
import ort

SHAPES = [(), (5,), (4, 6), (3, 5, 4), (2, 3, 4, 5), (2, 3, 2, 4, 3), (3, 4096), (2, 50021), (2, 3, 50, 41), (2, 1030, 3)]
VIEWS = ["flatten", "channel", "last"]
FOR = ("--for", "ort-training", "--layers", "tensor:h", "--estimator", "exact")

# Relative: the same sums in another order. Measured is 2.4e-7.
TOLERANCE = 1e-6


def weighted(h, dims, opset=17):
    """A loss of the activation `h`, which is the parameter `h0` times an input, and of which `dims` are declared."""
    nodes = [
        helper.make_node("Mul", ["h0", "one"], ["h"]),
        helper.make_node("Mul", ["h", "weight"], ["z"]),
        helper.make_node("ReduceSum", ["z"], ["loss"], keepdims=0),
    ]
    # Of an input of unknown shape: nobody can tell the shape of h from that of its parameter.
    one = [1] * h.ndim if dims == list(h.shape) else [f"one{i}" for i in range(h.ndim)]
    made = nets.model(nodes, [("one", nets.FLOAT, one)], [("loss", nets.FLOAT, [])], {"h0": h, "weight": (h + 1).astype(np.float32)}, opset=opset)
    made.graph.value_info.append(helper.make_tensor_value_info("h", nets.FLOAT, dims))
    return made, {"one": np.ones([1] * h.ndim, np.float32)}


def activation(shape, size=2.0):
    return (size * np.random.default_rng(len(shape)).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("known", ["static", "symbolic", "batch"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_value_is_the_closed_form(inject, session, shape, view, known):
    h = activation(shape)
    dims = {"static": list(shape), "symbolic": [f"d{i}" for i in range(len(shape))], "batch": ["N", *shape[1:]] if shape else []}[known]
    expected = closed_form.per(closed_form.rows(h.astype(np.float64), view))
    model, feeds = weighted(h, dims)
    for reduction, total in [("mean", expected.mean()), ("sum", expected.sum())]:
        injected = inject(model, *FOR, "--coef", 1, "--view", view, "--reduction", reduction, "--outputs", "per")
        [per] = session(injected.data).run(["per_inject/per"], feeds)
        assert float(per) == pytest.approx(total, rel=TOLERANCE)


def test_the_gradient_is_that_of_the_other_form(inject):
    cases = [(shape, view, 17, size) for shape in SHAPES for view in VIEWS for size in [0.0, 2.0]]
    cases += [((2, 70, 3, 4), view, opset, 1e4) for view in VIEWS for opset in [13, 15, 18, 21]]
    jobs = []
    for shape, view, opset, size in cases:
        model, feeds = weighted(activation(shape, size), list(shape), opset)
        options = ("--coef", 0.5, "--view", view)
        jobs += [(inject(model, *FOR, *options).model, feeds, ["h0"]), (inject(model, *FOR[2:], *options).model, feeds, ["h0"])]
    steps = ort.gradients_of_each(jobs)
    for case, ours, plain in zip(cases, steps[::2], steps[1::2]):
        assert not isinstance(ours, Exception) and not isinstance(plain, Exception), (case, ours, plain)
        assert ours.loss == pytest.approx(plain.loss, rel=TOLERANCE), case
        expected = plain.gradients["h0"]
        np.testing.assert_allclose(ours.gradients["h0"], expected, rtol=0, atol=TOLERANCE * np.abs(expected).max(), err_msg=str(case))


def test_no_gradient_of_an_activation_is_a_sum_of_three(inject):
    """What the form is for: ONNX Runtime adds three gradients on one thread, and with a tensor in between."""
    model, _ = weighted(activation((2, 3, 4, 5)), [2, 3, 4, 5])
    for options in [FOR, FOR[2:]]:
        injected = inject(model, *options, "--coef", 0.5).model
        readers = sum(list(node.input).count("h") for node in injected.graph.node)
        assert readers == (2 if options == FOR else 3)


@pytest.mark.parametrize("d", [1, 2, 3, 17, 192, 5000])
@pytest.mark.parametrize("known", [True, False])
def test_the_gradient_of_every_row_is_its_own_to_a_millionth(inject, d, known):
    """Rows of 0 and of a root mean square from 10⁻³ to 10³, against the slope of the closed form in float64."""
    size = np.concatenate([[0.0], np.logspace(-3, 3, 25)])
    random = np.random.default_rng(d)
    h = (size[:, None] * random.standard_normal((len(size), d))).astype(np.float32)
    model, feeds = weighted(h, ["N", d if known else "d"])
    # Of a loss of zeros the gradient is PER's alone.
    [weight] = [w for w in model.graph.initializer if w.name == "weight"]
    weight.CopyFrom(numpy_helper.from_array(np.zeros_like(h), "weight"))
    injected = inject(model, *FOR, "--coef", 1, "--view", "flatten", "--reduction", "sum").model
    [step] = ort.gradients_of_each([(injected, feeds, ["h0"])])
    assert not isinstance(step, Exception), step
    for row, gradient in zip(h.astype(np.float64), step.gradients["h0"]):
        expected = closed_form.slope(row)
        # The tolerances of the fit, and of its rounding where the degree is high.
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=(3e-6 if d < 3 else 1e-6) * np.abs(expected).max())


def test_over_rows_the_runtime_differentiates_nothing_but_one_product(inject):
    """What the form is for: of the polynomial and the square root there is no gradient."""
    model, _ = weighted(activation((4, 6)), [4, 6])
    of_per = []
    for options in [FOR, FOR[2:]]:
        injected = inject(model, *options, "--coef", 0.5).model
        made = onnx.load_from_string(ort.artifacts(injected, ["h0"]).training_model)
        of_per.append(sum("_grad" in "".join(node.output) for node in made.graph.node))
    assert of_per[0] <= 20 and of_per[1] > 45, of_per
