"""The structured estimator: slices that share normal vectors under the signs of a Hadamard matrix are each uniform, and nearly independent."""

import math

import numpy as np
import onnx
import pytest
from onnx import helper

import closed_form
import nets
from test_differentiate import differentiated as step_of
from test_gradient_form import added, differentiated, sampled_gradient
from test_sampled import RUNS, SEED, STANDARD_ERRORS, normalised, random_nodes, runs

SHAPES = {
    "rows too short": ((5, 7), "flatten"),
    "pairs": ((5, 8), "flatten"),
    "groups": ((3, 100), "flatten"),
    "one group": ((3, 1024), "flatten"),
    "one group and a rest": ((3, 1111), "flatten"),
    "flatten [N,C,H,W]": ((2, 8, 11, 13), "flatten"),
    "channel [N,C,L]": ((2, 60, 5), "channel"),
    "channel [N,C,H,W]": ((2, 192, 3, 4), "channel"),
    "last [B,T,D]": ((2, 5, 48), "last"),
    "one group, last [B,T,D]": ((2, 3, 1100), "last"),
}


def directions(normal, slices, d):
    """Θ [d, s] from the normal numbers [groups, d] as signs.rs has it, by Sylvester's construction."""
    count = len(normal)
    # The least power of two that makes enough slices of so many groups, and no more than a quarter of d.
    size = 1
    while size * count < slices and 8 * size <= d:
        size *= 2
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.kron(np.array([[1, 1], [1, -1]]), matrix)
    patterns = matrix[:, np.arange(d) % size]
    signed = (normal.astype(np.float64)[:, None, :] * patterns).reshape(count * size, d)[:slices]
    return (signed / np.linalg.norm(signed, axis=1, keepdims=True)).T


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("slices", [256, 100, 4, 1])
def test_the_mean_of_many_runs_is_the_exact_value(inject, session, case, slices):
    shape, view = SHAPES[case]
    options = ["--view", view, "--slices", slices, "--seed", SEED, "--estimator", "structured"]
    injected = inject(nets.tap(list(shape)), "--layers", "tensor:h", "--as-output", *options)
    assert injected.report["estimator"] == "structured" and injected.report["slices"] == slices
    h = normalised(shape)
    values = runs(session, injected.data, nets.feed(h), RUNS).astype(np.float64)
    expected = closed_form.per(closed_form.rows(h.astype(np.float64), view)).mean()
    standard_error = values.std(ddof=1) / math.sqrt(RUNS)
    assert 0 < standard_error < 0.1
    assert abs(values.mean() - expected) < STANDARD_ERRORS * standard_error


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("rectified", [False, True])
def test_it_scatters_little_more_than_slices_drawn_one_by_one(inject, session, case, rectified):
    shape, view = SHAPES[case]
    h = np.maximum(normalised(shape), 0) if rectified else normalised(shape)
    scatter = {}
    for estimator in ["sampled", "structured"]:
        options = ["--view", view, "--seed", SEED, "--estimator", estimator]
        injected = inject(nets.tap(list(shape)), "--layers", "tensor:h", "--as-output", *options)
        scatter[estimator] = runs(session, injected.data, nets.feed(h), RUNS).std(ddof=1)
    # A group of a quarter of d adds (g − 1)/d of a slice's variance, twice that where half the values are 0: √1.5 with the 7 % by which
    # the ratio of two deviations of 200 runs is uncertain, three times.
    assert scatter["structured"] < 1.5 * scatter["sampled"]


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("elem, tolerance", [(nets.FLOAT, 4e-6), (nets.DOUBLE, 1e-6), (nets.FLOAT16, 1e-3)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_its_gradient_is_equation_6_of_the_slices_it_makes(inject, session, case, elem, tolerance, reduction):
    shape, view = SHAPES[case]
    dtype = helper.tensor_dtype_to_np_dtype(elem)
    random = np.random.default_rng(3)
    h, incoming = ((random.standard_normal(shape) * scale).astype(dtype) for scale in (1.5, 0.1))
    options = ["--coef", 4, "--view", view, "--reduction", reduction, "--slices", 100, "--estimator", "structured"]
    injected = inject(differentiated(list(shape), elem), "--layers", "tensor:h", *options)
    got, [normal] = added(session, injected, h, incoming, view, [f"per_inject/{injected.report['layers'][0]['name']}/normal"])
    rows = closed_form.rows(h.astype(np.float64), view)
    assert injected.report["cost"]["random_numbers"] == normal.size
    expected = 4 * sampled_gradient(rows, directions(normal, 100, rows.shape[1])) / (len(rows) if reduction == "mean" else 1)
    np.testing.assert_allclose(got, expected, atol=tolerance * (np.abs(expected).max() + np.abs(incoming).max()))


@pytest.mark.parametrize("case", SHAPES)
def test_the_loss_and_its_own_derivative_are_those_of_the_slices_it_makes(inject, session, case):
    shape, view = SHAPES[case]
    random = np.random.default_rng(4)
    w, x = ((random.standard_normal(shape) * 1.2).astype(np.float32) for _ in range(2))
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["h"]),
        helper.make_node("ReduceMean", ["h"], ["loss"], keepdims=0),
    ]
    model = nets.model(nodes, [("x", nets.FLOAT, list(shape))], [("loss", nets.FLOAT, [])], {"w": w})
    options = ["--coef", 1, "--view", view, "--estimator", "structured", "--slices", 64, "--outputs", "per"]
    injected = inject(model, "--layers", "tensor:h", *options)
    names = ["per_inject/per", "w_grad", f"per_inject/{injected.report['layers'][0]['name']}/normal"]
    made = session(nets.keep_output(onnx.load_from_string(step_of(injected.data)), *names))
    values = dict(zip(names, made.run(None, {"x": x})))
    rows = closed_form.rows((w * x).astype(np.float64), view)
    theta = directions(values[names[-1]], 64, rows.shape[1])
    projected = rows @ theta
    rho = projected * np.vectorize(math.erf)(projected / math.sqrt(2)) + closed_form.RHO_ZERO * np.exp(-(projected**2) / 2)
    assert float(values["per_inject/per"]) == pytest.approx(rho.mean(), rel=1e-6)
    gradient = closed_form.rows(values["w_grad"].astype(np.float64) / x - 1 / x.size, view)
    expected = sampled_gradient(rows, theta) / len(rows)
    np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("opset", range(9, 27))
@pytest.mark.parametrize("case", ["groups", "one group and a rest", "channel [N,C,H,W]", "last [B,T,D]"])
def test_every_operator_set_since_9_has_what_it_needs(inject, opset, case):
    # onnx's own check and strict inference see every node.
    shape, view = SHAPES[case]
    options = ["--view", view, "--estimator", "structured"]
    inject(nets.tap(list(shape), opset=opset), "--layers", "tensor:h", "--as-output", *options)
    inject(differentiated(list(shape), opset=opset, ir_version=8 if opset < 15 else None), "--layers", "tensor:h", "--coef", 1, *options)


def test_an_open_batch_is_no_obstacle_and_an_open_length_is_sampled(inject, session):
    h = normalised((3, 1111))
    for dims, drawn in [(["N", 1111], 1111), (["N", "D"], 256), (None, 256)]:
        options = ["--view", "flatten", "--estimator", "structured", "--seed", SEED]
        injected = inject(nets.tap(dims), "--layers", "tensor:h", "--as-output", *options)
        assert injected.report["cost"]["random_numbers"] == drawn
        values = runs(session, injected.data, nets.feed(h), RUNS).astype(np.float64)
        error = values.std(ddof=1) / math.sqrt(RUNS)
        assert abs(values.mean() - closed_form.per(h.astype(np.float64)).mean()) < STANDARD_ERRORS * error
        assert len(random_nodes(injected.model)) == 1
