"""The exact estimator as a graph: its value and the gradient that others take of it, for every d, precision, shape and view."""

import collections
import json
import math

import numpy as np
import onnx
import pytest
from onnx import helper, reference as onnx_reference

import closed_form
import models
import nets

EXACT = collections.defaultdict(list)
for row in json.loads((models.DATA / "per_exact.json").read_text()):
    EXACT[row["d"]].append(row)

# Relative, as issue 3 asks; measured is 2.4e-7 (d = 2) and 1.8e-7 elsewhere: a handful of roundings of float32.
VALUE_TOLERANCE = 1e-6

# Relative, as issue 3 asks (3e-6 for d = 2 there); measured is 3.8e-7 at worst, 2.8e-7 for d = 2 and 2.1e-7 for d = 1.
KAPPA_TOLERANCE = 1e-6

# For a d that only the running graph knows: table and series are as good as the fits.
RUN_TIME_TOLERANCE = 1e-6

# Shapes whose sums are long: over all axes, over one, over a prime length that no two factors make up, as a row and as rows.
LONG = [(4096, 8, 8), (64, 8, 64, 64), (2, 4096), (1, 3, 128, 128), (2, 50021), (50021, 3), (2, 3, 10007)]

# Relative; the fit is good to 1e-11, and everything else is double.
DOUBLE_TOLERANCE = 1e-10


def directions(d):
    """Unit vectors: all entries equal, one entry alone, and two at random."""
    random = np.random.default_rng(d).standard_normal((2, d))
    return np.array([np.full(d, d**-0.5), np.eye(1, d, d // 2)[0], *(random / np.linalg.norm(random, axis=1, keepdims=True))])


def exact(inject, model, *arguments):
    return inject(model, "--layers", "tensor:h", "--as-output", "--estimator", "exact", *arguments)


def value(session, injected, h):
    [per] = session(injected.data if hasattr(injected, "data") else injected).run(["per_loss"], nets.feed(h))
    return per


def test_the_python_reference_agrees_with_40_digits():
    for d, rows in EXACT.items():
        h = np.array([np.eye(1, d)[0] * math.sqrt(row["q"] * d) for row in rows])
        np.testing.assert_allclose(closed_form.per(h), [row["loss"] for row in rows], rtol=4e-12, err_msg=f"d = {d}")


@pytest.mark.parametrize("d", EXACT)
def test_the_value_is_exact_for_every_norm_and_direction(inject, session, d):
    made = session(exact(inject, nets.tap(["N", d])).data)
    for row in EXACT[d]:
        for direction in directions(d):
            h = (direction * math.sqrt(row["q"] * d)).astype(np.float32)[None]
            [per] = made.run(["per_loss"], nets.feed(h))
            assert per.shape == () and per.dtype == np.float32
            assert float(per) == pytest.approx(row["loss"], rel=VALUE_TOLERANCE), row


@pytest.mark.parametrize("d", EXACT)
def test_the_derivative_of_the_value_is_kappa_times_h(inject, gradients, d):
    rows = [(row, direction) for row in EXACT[d] for direction in directions(d)]
    h = np.array([direction * math.sqrt(row["q"] * d) for row, direction in rows]).astype(np.float32)
    injected = nets.keep_output(exact(inject, nets.trained(h), "--reduction", "sum").model, "per_loss")
    step = gradients(injected, {"one": np.ones(1, np.float32)}, ["h0"])
    for (row, _), sample, gradient in zip(rows, h.astype(np.float64), step.gradients["h0"].astype(np.float64)):
        if row["q"] == 0:
            assert (gradient == 0).all()
            continue
        kappa = gradient @ sample / (sample @ sample)
        assert kappa == pytest.approx(row["kappa"], rel=KAPPA_TOLERANCE), row
        # The direction is that of h; each entry is one product in float32.
        assert np.abs(gradient - kappa * sample).max() <= 2e-7 * np.abs(gradient).max(), row


@pytest.mark.parametrize("d", [1, 2, 3, 7, 8, 31, 63, 64, 65, 100, 192, 300])
@pytest.mark.parametrize("dims", [["N", "D"], None, [None, None, None], ["N", "T", "D"], [2, "T", "D"]])
@pytest.mark.parametrize("view", ["flatten", "channel", "last"])
def test_a_row_length_that_only_the_running_graph_knows_is_as_good(inject, session, dims, view, d):
    random = np.random.default_rng(d)
    # Channel wants d in the middle, and flatten as a product; of rank 2 where that is what is declared.
    shape = (5, d) if dims and len(dims) == 2 else {"channel": (2, d, 3), "last": (2, 3, d), "flatten": (2, 1, d)}[view]
    made = session(exact(inject, nets.tap(dims), "--view", view).data)
    for scale in [0.0, 0.01, 1.0, 10.0, 1e3]:
        h = (scale * random.standard_normal(shape)).astype(np.float32)
        [per] = made.run(["per_loss"], nets.feed(h))
        expected = closed_form.per(closed_form.rows(h.astype(np.float64), view)).mean()
        assert float(per) == pytest.approx(expected, rel=RUN_TIME_TOLERANCE), scale


@pytest.mark.parametrize("dims", [["N", "D"], None])
def test_the_run_time_form_can_be_differentiated(inject, gradients, dims):
    for d in [1, 2, 3, 8, 64, 192]:
        rows = EXACT[d]
        h = np.array([directions(d)[0] * math.sqrt(row["q"] * d) for row in rows]).astype(np.float32)
        # The initializer's shape would give d away, so it takes its shape from an input.
        nodes = [helper.make_node("Reshape", ["h0", "shape"], ["h"]), helper.make_node("ReduceMean", ["h"], ["y"], keepdims=0)]
        model = nets.model(nodes, [("shape", onnx.TensorProto.INT64, ["rank"])], [("y", nets.FLOAT, [])], {"h0": h})
        if dims is not None:
            model.graph.value_info.append(helper.make_tensor_value_info("h", nets.FLOAT, dims))
        injected = exact(inject, model, "--reduction", "sum")
        assert injected.report["layers"][0]["d"] is None
        step = gradients(nets.keep_output(injected.model, "per_loss"), {"shape": np.array(h.shape, np.int64)}, ["h0"])
        for row, sample, gradient in zip(rows, h.astype(np.float64), step.gradients["h0"].astype(np.float64)):
            if row["q"] > 0:
                assert gradient @ sample / (sample @ sample) == pytest.approx(row["kappa"], rel=KAPPA_TOLERANCE), row
            else:
                assert (gradient == 0).all()


def test_silence_costs_rho_of_zero_and_pulls_nowhere(inject, session, gradients):
    for d in [1, 2, 3, 64, 5000]:
        h = np.zeros((4, d), np.float32)
        injected = exact(inject, nets.trained(h))
        step = gradients(nets.keep_output(injected.model, "per_loss"), {"one": np.ones(1, np.float32)}, ["h0"])
        assert step.loss == pytest.approx(closed_form.RHO_ZERO, rel=VALUE_TOLERANCE)
        assert (step.gradients["h0"] == 0).all()


def test_activations_up_to_ten_thousand_and_below_the_smallest_square_are_fine(inject, session, gradients):
    for d in [1, 2, 8, 512, 4096]:
        for size in [1e4, 1e-25]:
            h = (size * np.random.default_rng(d).choice([-1.0, 1.0], (3, d))).astype(np.float32)
            injected = exact(inject, nets.trained(h))
            step = gradients(nets.keep_output(injected.model, "per_loss"), {"one": np.ones(1, np.float32)}, ["h0"])
            expected = closed_form.per(h.astype(np.float64)).mean()
            assert step.loss == pytest.approx(expected, rel=VALUE_TOLERANCE)
            assert np.isfinite(step.gradients["h0"]).all()
            # The gradient of one sample is never longer than √(2/π)/√d, asymptotically; by much less for d = 1.
            assert np.linalg.norm(3 * step.gradients["h0"], axis=1).max() <= 1.0 + 1e-6


@pytest.mark.parametrize("d", [d for d in EXACT if d <= 4096])
def test_a_float64_model_is_computed_in_float64(inject, session, d):
    for dims in [["N", d], ["N", "D"]]:
        made = session(exact(inject, nets.tap(dims, nets.DOUBLE)).data)
        for row in EXACT[d]:
            for direction in directions(d):
                [per] = made.run(["per_loss"], nets.feed(direction[None] * math.sqrt(row["q"] * d)))
                assert per.dtype == np.float64
                assert float(per) == pytest.approx(row["loss"], rel=DOUBLE_TOLERANCE), (dims, row)


def test_a_float64_model_can_be_sampled_although_its_erf_is_float32(inject, session):
    h = np.random.default_rng(1).standard_normal((32, 6))
    for dims in [["N", 6], ["N", "D"], None]:
        injected = inject(nets.tap(dims, nets.DOUBLE), "--layers", "tensor:h", "--as-output", "--seed", 1, "--slices", 4096)
        per = value(session, injected, h)
        assert per.dtype == np.float64
        # 4,096 slices shared by 32 rows of six: Monte Carlo leaves some 2e-3.
        assert float(per) == pytest.approx(closed_form.per(h).mean(), rel=1e-2)


@pytest.mark.parametrize("estimator", ["exact", "sampled"])
def test_half_precision_is_computed_in_float32_between_casts(inject, session, estimator):
    random = np.random.default_rng(5)
    weight, x = random.standard_normal((6, 8)).astype(np.float16), random.standard_normal((4, 6)).astype(np.float16)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("ReduceMean", ["h"], ["loss"], keepdims=0),
    ]
    outputs = [("loss", nets.FLOAT16, []), ("h", nets.FLOAT16, [4, 8])]
    model = nets.model(nodes, [("x", nets.FLOAT16, [4, 6])], outputs, {"w": weight})
    injected = inject(
        model, "--layers", "relu", "--coef", 0.5, "--estimator", estimator, "--seed", 4, "--slices", 4096, "--outputs", "task,per,layers"
    )
    names = ["loss", "h", "per_inject/task_loss", "per_inject/per", *injected.layers]
    loss, h, task, per, layer = session(injected.data).run(names, {"x": x})
    before = session(model).run(["loss", "h"], {"x": x})
    assert [each.dtype for each in (loss, task, per, layer)] == [np.float16, np.float16, np.float32, np.float32]
    assert (task.tobytes(), h.tobytes()) == (before[0].tobytes(), before[1].tobytes())
    # ONNX Runtime computes float16 in float32 and drops the Casts between, so the term may read h before it is rounded.
    expected = closed_form.per(h.astype(np.float64)).mean()
    assert float(per) == pytest.approx(expected, rel=2e-4 if estimator == "exact" else 2e-2)
    # One rounding of the term to float16 and one of the sum.
    assert float(loss) == pytest.approx(float(task) + 0.5 * float(per), rel=2**-10)


@pytest.mark.parametrize("dims", [[4, 8], ["N", "D"], None])
def test_a_float16_activation_loses_nothing_to_the_term(inject, session, dims):
    h = (40 * np.random.default_rng(6).standard_normal((4, 8))).astype(np.float16)
    per = value(session, exact(inject, nets.tap(dims, nets.FLOAT16)), h)
    assert per.dtype == np.float32
    assert float(per) == pytest.approx(closed_form.per(h.astype(np.float64)).mean(), rel=VALUE_TOLERANCE)


@pytest.mark.parametrize("dims", [[4, 8], ["N", "D"]])
@pytest.mark.parametrize("estimator", ["exact", "sampled"])
def test_bfloat16_passes_the_checker_and_the_reference_evaluator(inject, dims, estimator):
    import ml_dtypes

    h = np.random.default_rng(6).standard_normal((4, 8)).astype(ml_dtypes.bfloat16)
    injected = inject(nets.tap(dims, nets.BFLOAT16), "--layers", "tensor:h", "--as-output", "--estimator", estimator, "--slices", 4096)
    evaluator = onnx_reference.ReferenceEvaluator(injected.model)
    [per] = evaluator.run(["per_loss"], nets.feed(h))
    assert per.dtype == np.float32
    expected = closed_form.per(h.astype(np.float64)).mean()
    assert float(per) == pytest.approx(expected, rel=VALUE_TOLERANCE if estimator == "exact" else 2e-2)


SHAPES = [(), (5,), (4, 6), (3, 5, 4), (2, 3, 4, 5), (2, 3, 2, 4, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("view", ["flatten", "channel", "last"])
@pytest.mark.parametrize("known", ["static", "symbolic", "rank", "batch"])
def test_every_view_of_every_rank_takes_the_rows_that_numpy_takes(inject, session, shape, view, known):
    dims = {
        "static": list(shape),
        "symbolic": [f"d{i}" for i in range(len(shape))],
        "rank": [None] * len(shape),
        "batch": ["N", *shape[1:]] if shape else [],
    }[known]
    h = (2 * np.random.default_rng(len(shape)).standard_normal(shape)).astype(np.float32)
    rows = closed_form.rows(h.astype(np.float64), view)
    expected = closed_form.per(rows)
    for reduction, total in [("mean", expected.mean()), ("sum", expected.sum())]:
        injected = exact(inject, nets.tap(dims), "--view", view, "--reduction", reduction)
        assert float(value(session, injected, h)) == pytest.approx(total, rel=VALUE_TOLERANCE)
        [layer] = injected.report["layers"]
        assert layer["d"] in (None, rows.shape[1]) and layer["rows"] in (None, len(rows))
        if known == "static":
            assert (layer["d"], layer["rows"]) == (rows.shape[1], len(rows))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("view", ["flatten", "channel", "last"])
@pytest.mark.parametrize("known", ["static", "symbolic"])
def test_the_sampled_estimator_takes_the_same_rows(inject, session, shape, view, known):
    dims = list(shape) if known == "static" else [f"d{i}" for i in range(len(shape))]
    h = (2 * np.random.default_rng(len(shape)).standard_normal(shape)).astype(np.float32)
    expected = closed_form.per(closed_form.rows(h.astype(np.float64), view))
    for reduction, total in [("mean", expected.mean()), ("sum", expected.sum())]:
        injected = inject(
            nets.tap(dims), "--layers", "tensor:h", "--as-output", "--view", view, "--reduction", reduction,
            "--seed", 11, "--slices", 8192,
        )  # fmt: skip
        # 8,192 slices leave some 5e-3 of a single row; another split into rows is off by more than 5 %.
        assert float(value(session, injected, h)) == pytest.approx(total, rel=2e-2)


@pytest.mark.parametrize("rank_known", [True, False])
@pytest.mark.parametrize("estimator", ["exact", "sampled"])
def test_flatten_keeps_the_samples_of_a_recurrent_output_apart(inject, session, rank_known, estimator):
    time, batch, hidden, width = 5, 3, 4, 6
    random = np.random.default_rng(9)
    weights = {
        "w": random.standard_normal((1, 4 * hidden, width)).astype(np.float32),
        "r": random.standard_normal((1, 4 * hidden, hidden)).astype(np.float32),
    }
    x = random.standard_normal((time, batch, width)).astype(np.float32)
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["Y"], hidden_size=hidden), helper.make_node("ReduceMean", ["Y"], ["loss"], keepdims=0)]
    dims = [time, batch, width] if rank_known else ["T", "B", width]
    model = nets.model(nodes, [("x", nets.FLOAT, dims)], [("loss", nets.FLOAT, []), ("Y", nets.FLOAT, ["T", 1, "B", hidden])], weights)
    injected = {
        view: inject(
            model, "--layers", "lstm", "--view", view, "--estimator", estimator, "--coef", 1, "--outputs", "per", "--seed", 5,
            "--slices", 8192,
        )
        for view in ["flatten", "last", "auto"]
    }  # fmt: skip
    for view, each in injected.items():
        y, per = session(each.data).run(["Y", "per_inject/per"], {"x": x})
        # [T, 1, B, H]: a sample is one of the batch, with all its time steps; or one time step of it.
        expected = closed_form.per(closed_form.rows(y.astype(np.float64), "flatten" if view == "flatten" else "last", batch_axis=2)).mean()
        assert float(per) == pytest.approx(expected, rel=VALUE_TOLERANCE if estimator == "exact" else 5e-3), view


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", LONG, ids=str)
def test_sums_of_many_equal_terms_do_not_drift(inject, session, shape, reduction):
    # ONNX Runtime adds in a few lanes, and rounding of equal terms is always to the same side: 4e-5 in one sum of 196,608 terms. No
    # stage of a sum of known length is longer than 1,024, and each of two or three keeps to a few roundings of float32 (6e-8).
    h = np.full(shape, 0.7137, np.float32)
    for view in ["flatten", "channel", "last"]:
        per = float(value(session, exact(inject, nets.tap(list(shape)), "--view", view, "--reduction", reduction), h))
        rows = closed_form.rows(h, view)
        expected = float(closed_form.per(rows[:1].astype(np.float64))[0]) * (len(rows) if reduction == "sum" else 1)
        assert per == pytest.approx(expected, rel=1e-6), view


@pytest.mark.parametrize("opset", range(7, 27))
def test_a_long_prime_length_is_summed_in_parts_in_every_operator_set(inject, opset):
    # A head that factors and a tail; the checker and strict inference take both forms of Slice, Reshape and ReduceSum.
    for shape in [[2, 50021], [50021, 3]]:
        model = exact(inject, nets.tap(shape, opset=opset)).model
        parts = collections.Counter(node.op_type for node in model.graph.node)
        assert parts["Slice"] == 2 and parts["ReduceSum"] >= 3


@pytest.mark.parametrize("shape", [(1, 1031), (1031, 3), (2, 2 * 1031), (2, 3, 1031)], ids=str)
def test_a_sum_in_parts_can_be_differentiated(inject, gradients, shape):
    # Slice, Reshape and ReduceSum all have gradients in ONNX Runtime's training; float32, values of some 1e-3.
    h = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    model = exact(inject, nets.trained(h), "--view", "flatten").model
    found = gradients(nets.keep_output(model, "per_loss"), {"one": np.ones(1, np.float32)}, ["h0"]).gradients["h0"]
    rows = h.reshape(shape[0], -1).astype(np.float64)
    # κ_d(r)·h, with κ·r² as the change of the value along h, by a difference that is good to 1e-7.
    step = 1e-4
    change = (closed_form.per(rows * (1 + step)) - closed_form.per(rows * (1 - step))) / (2 * step)
    expected = (change / np.square(rows).sum(axis=1))[:, None] * rows / len(rows)
    assert np.abs(found.reshape(expected.shape) - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("rows, tolerance", [(10_007, 1e-5), (100_003, 1e-4), (1_000_003, 1e-3)])
def test_how_far_the_mean_over_a_batch_that_only_the_running_graph_knows_drifts(inject, session, rows, tolerance):
    # Nothing can split such a sum in advance: ONNX Runtime 1.32 errs by up to 4e-6, 7e-5 and 8e-4 when all terms are equal.
    h = np.full((rows, 3), 1.1, np.float32)
    per = float(value(session, exact(inject, nets.tap(["N", 3])), h))
    assert per == pytest.approx(float(closed_form.per(h[:1].astype(np.float64))[0]), rel=tolerance)


@pytest.mark.parametrize("known", ["static", "symbolic", "unknown"])
@pytest.mark.parametrize("view", ["flatten", "channel", "last"])
def test_the_mean_over_slices_and_rows_does_not_drift(inject, session, known, view):
    # h = 0 makes every term √(2/π). Over all axes at once, the mean of 33 million equal numbers came out 3 % wrong.
    shape = (8, 4, 64, 64) if view == "channel" else (128, 256, 2)
    dims = {"static": list(shape), "symbolic": [f"d{i}" for i in range(len(shape))], "unknown": None}[known]
    injected = inject(nets.tap(dims), "--layers", "tensor:h", "--as-output", "--view", view, "--slices", 256)
    per = float(value(session, injected, np.zeros(shape, np.float32)))
    # One dimension of 32,768 rows is what is left to one sum where not even the rank is known.
    assert per == pytest.approx(closed_form.RHO_ZERO, rel=1e-5 if known != "unknown" else 1e-4)
