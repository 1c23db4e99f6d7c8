"""The structured estimator: slices that share normal vectors under the signs of a Hadamard matrix are each uniform, and nearly independent; a
sample of many rows has slices of its own."""

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

# Of at least two samples of at least sixteen rows: each has its own slices, a quarter of them from four samples on.
OWN = {
    "own, channel [N,C,L]": ((5, 60, 17), "channel"),
    "own, channel [N,C,H,W]": ((3, 192, 4, 5), "channel"),
    "own, rows too short": ((4, 6, 5, 4), "channel"),
    "own, last [B,T,D]": ((2, 16, 48), "last"),
    "own, last [A,B,T,D]": ((6, 3, 6, 40), "last"),
}
SHAPES |= OWN


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


def by_sample(rows, normal, slices, d):
    """Pairs of rows and the directions that they are projected on: all of them, or those of each sample."""
    if normal.ndim == 2:
        return [(rows, directions(normal, slices, d))]
    samples = len(normal)
    own = math.ceil(slices / min(samples, 4))
    return [(part, directions(normal[i], own, d)) for i, part in enumerate(rows.reshape(samples, -1, d))]


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
    # the ratio of two deviations of 200 runs is uncertain, three times. Rows that have nothing in common, as these, scatter as their own slices
    # do, of which there are a quarter: twice as much.
    assert scatter["structured"] < (3 if case in OWN else 1.5) * scatter["sampled"]


@pytest.mark.parametrize("samples, most", [(4, 1.2), (16, 0.7)])
def test_gradients_of_a_network_scatter_the_less_the_more_samples_have_their_own_slices(reference, inject, session, samples, most):
    """Four samples have as many slices in all as they would share, and some more scatter for their being groups."""
    model = reference("cnn11_elu.ts17")
    random = np.random.default_rng(2)
    feeds = {name: np.concatenate([value] * samples)[:samples] for name, value in model.feeds.items()}
    feeds["x"] = random.standard_normal(feeds["x"].shape).astype(np.float32)
    deviation = {}
    for estimator in ["sampled", "structured"]:
        options = ["--layers", "elu", "--view", "channel", "--coef", 100, "--seed", SEED, "--estimator", estimator]
        run = session(step_of(inject(model.path, *options).data))
        names = [output.name for output in run.get_outputs() if output.name.endswith("_grad")]
        made = [np.concatenate([g.reshape(-1) for g in run.run(names, feeds)]) for _ in range(RUNS)]
        deviation[estimator] = math.sqrt(np.var(np.array(made, np.float64), axis=0, ddof=1).sum())
    # The λ is large, so that what a float32 of the task's own gradient is off by does not count.
    assert deviation["structured"] < most * deviation["sampled"], deviation


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
    parts = [sampled_gradient(*part) for part in by_sample(rows, normal, 100, rows.shape[1])]
    expected = 4 * np.concatenate(parts) / (len(rows) if reduction == "mean" else 1)
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
    parts = by_sample(rows, values[names[-1]], 64, rows.shape[1])
    projected = np.concatenate([part @ theta for part, theta in parts])
    rho = projected * np.vectorize(math.erf)(projected / math.sqrt(2)) + closed_form.RHO_ZERO * np.exp(-(projected**2) / 2)
    assert float(values["per_inject/per"]) == pytest.approx(rho.mean(), rel=1e-6)
    gradient = closed_form.rows(values["w_grad"].astype(np.float64) / x - 1 / x.size, view)
    expected = np.concatenate([sampled_gradient(*part) for part in parts]) / len(rows)
    np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("opset", range(9, 27))
@pytest.mark.parametrize("case", ["groups", "one group and a rest", "channel [N,C,H,W]", "last [B,T,D]", *OWN])
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


def test_samples_of_unknown_number_have_slices_of_their_own(inject, session):
    h = normalised((5, 60, 17))
    expected = closed_form.per(closed_form.rows(h.astype(np.float64), "channel")).mean()
    # Eight normal vectors of 60 for each sample make 64 slices, of unknown number of samples and places; of an unknown d 256 are drawn.
    for dims, drawn in [(["N", 60, 17], 8 * 60), (["N", 60, "L"], 8 * 60), ([1, 60, 17], 32 * 60), (["N", "C", "L"], 256), (None, 256)]:
        options = ["--view", "channel", "--estimator", "structured", "--seed", SEED]
        injected = inject(nets.tap(dims), "--layers", "tensor:h", "--as-output", *options)
        assert injected.report["cost"]["random_numbers"] == drawn
        shown = h[:1] if dims and dims[0] == 1 else h
        values = runs(session, injected.data, nets.feed(shown), RUNS).astype(np.float64)
        error = values.std(ddof=1) / math.sqrt(RUNS)
        wanted = closed_form.per(closed_form.rows(h[:1].astype(np.float64), "channel")).mean() if len(shown) == 1 else expected
        assert abs(values.mean() - wanted) < STANDARD_ERRORS * error


def test_layers_that_share_slices_share_them_among_samples_too(inject):
    options = ["--view", "channel", "--estimator", "structured", "--share-slices"]
    injected = inject(nets.tap([5, 60, 17]), "--layers", "tensor:h", "--as-output", *options)
    assert injected.report["cost"]["random_numbers"] == 32 * 60
