"""The sampled estimator is the paper's: unbiased, drawn anew in every run, by unit vectors, and reproducible where a seed is given."""

import math

import numpy as np
import onnx
import pytest
from onnx import helper

import closed_form
import nets

# Seeds make these tests repeatable. With 200 runs, 4 standard errors are passed by chance once in 16,000.
RUNS, STANDARD_ERRORS, SEED = 200, 4, 20200426

SHAPES = {
    "last of 2": ((3, 2), "flatten"),
    "last of 3": ((3, 3), "flatten"),
    "last of 8": ((3, 8), "flatten"),
    "last of 64": ((3, 64), "flatten"),
    "last of 512": ((3, 512), "flatten"),
    "last of 4096": ((3, 4096), "flatten"),
    "flatten [N,C,H,W]": ((3, 4, 3, 5), "flatten"),
    "channel [N,C,L]": ((2, 16, 5), "channel"),
    "channel [N,C,H,W]": ((2, 16, 3, 4), "channel"),
    "channel [N,C,D,H,W]": ((2, 8, 2, 3, 2), "channel"),
    "last [B,T,D]": ((2, 5, 16), "last"),
}


def sampled(inject, dims, *arguments, elem=nets.FLOAT):
    return inject(nets.tap(dims, elem), "--layers", "tensor:h", "--as-output", *arguments)


def runs(session, model, feeds, count, output="per_loss"):
    made = session(model)
    return np.array([made.run([output], feeds)[0] for _ in range(count)])


def random_nodes(model):
    return [node for node in model.graph.node if node.op_type.startswith("RandomNormal")]


def seeds(model):
    return [attribute.f for node in random_nodes(model) for attribute in node.attribute if attribute.name == "seed"]


def normalised(shape):
    """Rows at random with norms about √d, as after a normalised layer."""
    return np.random.default_rng(17).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("known", ["static", "symbolic", "unknown"])
def test_the_mean_of_many_runs_is_the_exact_value(inject, session, case, known):
    shape, view = SHAPES[case]
    dims = {"static": list(shape), "symbolic": [f"d{i}" for i in range(len(shape))], "unknown": None}[known]
    # Few slices: a single run scatters widely, so that a bias shows.
    injected = sampled(inject, dims, "--view", view, "--slices", 4, "--seed", SEED)
    assert [node.op_type for node in random_nodes(injected.model)] == ["RandomNormal" if known == "static" else "RandomNormalLike"]
    h = normalised(shape)
    values = runs(session, injected.data, nets.feed(h), RUNS).astype(np.float64)
    expected = closed_form.per(closed_form.rows(h.astype(np.float64), view)).mean()
    standard_error = values.std(ddof=1) / math.sqrt(RUNS)
    assert 0 < standard_error < 0.05
    assert abs(values.mean() - expected) < STANDARD_ERRORS * standard_error


@pytest.mark.parametrize("d", [2, 3, 8, 64, 512, 4096])
def test_the_paper_s_256_slices_are_unbiased_without_a_seed_as_well(inject, session, d):
    injected = sampled(inject, [3, d])
    assert injected.report["slices"] == 256 and injected.report["layers"][0]["seed"] is None
    h = normalised((3, d))
    values = runs(session, injected.data, nets.feed(h), RUNS).astype(np.float64)
    # Nothing is repeatable here: 6 standard errors are passed by chance less than once in 100,000.
    assert abs(values.mean() - closed_form.per(h).mean()) < 6 * values.std(ddof=1) / math.sqrt(RUNS)


def test_the_scatter_shrinks_with_the_square_root_of_the_number_of_slices(inject, session):
    h = normalised((3, 8))
    scatter = {}
    for slices in [4, 64, 1024]:
        injected = sampled(inject, [3, 8], "--slices", slices, "--seed", SEED)
        [normal] = random_nodes(injected.model)
        assert [list(a.ints) for a in normal.attribute if a.name == "shape"] == [[slices, 8]]
        scatter[slices] = runs(session, injected.data, nets.feed(h), RUNS).std()
    # The standard deviation of 200 runs is known to 5 %.
    assert scatter[4] / scatter[64] == pytest.approx(4, rel=0.2)
    assert scatter[64] / scatter[1024] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("known", ["static", "symbolic"])
def test_slices_are_unit_vectors_that_point_everywhere(inject, session, case, known):
    shape, view = SHAPES[case]
    dims = list(shape) if known == "static" else [f"d{i}" for i in range(len(shape))]
    injected = sampled(inject, dims, "--view", view, "--slices", 128, "--seed", SEED)
    d = closed_form.rows(np.zeros(shape), view).shape[1]
    names = [f"per_inject/{injected.report['layers'][0]['name']}/{what}" for what in ("normal", "norm_sqrt_2")]
    made = session(nets.keep_output(injected.model, *names)).run(names, nets.feed(normalised(shape)))
    normal, norm = (array.astype(np.float64) for array in made)
    slices = math.sqrt(2) * normal / norm.reshape(-1, 1)
    assert slices.shape == (128, d)
    # The norm is one sum of d squares in float32.
    np.testing.assert_allclose(np.linalg.norm(slices, axis=1), 1, rtol=1e-6 if d < 1000 else 1e-5)
    # The mean of 128 unit vectors has length 1/√128 = 0.09 ± 0.06; every coordinate has both signs.
    assert np.linalg.norm(slices.mean(axis=0)) < 0.3
    assert (slices.max(axis=0) > 0).all() and (slices.min(axis=0) < 0).all()


@pytest.mark.parametrize("dims", [[3, 8], ["N", "D"]])
def test_every_run_draws_anew(inject, session, dims):
    for arguments in [[], ["--seed", 1]]:
        injected = sampled(inject, dims, *arguments)
        values = runs(session, injected.data, nets.feed(normalised((3, 8))), 20)
        assert len(set(values.tolist())) == 20


def test_without_a_seed_none_is_written(inject):
    for dims in [[3, 8], ["N", "D"]]:
        model = sampled(inject, dims).model
        assert random_nodes(model) and seeds(model) == []


@pytest.mark.parametrize("dims", [[3, 8], ["N", "D"]])
def test_a_seed_makes_a_session_repeatable_and_another_seed_does_not(inject, session, dims):
    feeds = nets.feed(normalised((3, 8)))
    first, again, other = (sampled(inject, dims, "--seed", seed).data for seed in [1, 1, 2])
    assert first == again
    streams = [runs(session, model, feeds, 5).tolist() for model in [first, again, other]]
    assert streams[0] == streams[1]
    assert not set(streams[0]) & set(streams[2])


def test_the_gradient_of_many_slices_is_near_that_of_the_closed_form(inject, gradients):
    h = normalised((3, 8))
    model = nets.trained(h)
    injected = inject(model, "--layers", "tensor:h", "--as-output", "--seed", 1)
    step = gradients(nets.keep_output(injected.model, "per_loss"), {"one": np.ones(1, np.float32)}, ["h0"])
    # Of 256 slices in 8 dimensions the gradient is known to some 2 %.
    rows = h.astype(np.float64)
    step_size = 1e-4
    expected = np.array([
        [
            (closed_form.per(row + step_size * unit)[0] - closed_form.per(row - step_size * unit)[0]) / (2 * step_size) / 3
            for unit in np.eye(8)[:, None]
        ]
        for row in rows[:, None]
    ])  # fmt: skip
    assert np.abs(step.gradients["h0"] - expected).max() < 0.2 * np.abs(expected).max()


def layered(count, dims=(3, 8)):
    """`count` activations that are equal, h0 to hN."""
    nodes = [helper.make_node("Relu", ["x"], [f"h{i}"], name=f"/relu{i}") for i in range(count)]
    return nets.model(nodes, [("x", nets.FLOAT, dims)], [(f"h{i}", nets.FLOAT, dims) for i in range(count)])


@pytest.mark.parametrize("dims", [[3, 8], ["N", "D"]])
@pytest.mark.parametrize("arguments", [[], ["--seed", "0"], ["--seed", "18446744073709551615"]])
def test_layers_of_one_shape_draw_different_slices(inject, session, dims, arguments):
    injected = inject(layered(6, dims), "--layers", "relu", "--as-output", "--outputs", "layers", *arguments)
    values = session(injected.data).run(injected.layers, {"x": normalised((3, 8))})
    # The activations are equal, so equal slices would make equal numbers.
    assert len({float(value) for value in values}) == 6


@pytest.mark.parametrize("seed", [0, 1, 2, 2**24, 2**63, 2**64 - 1])
def test_seeds_are_distinct_integers_that_onnx_runtime_tells_apart(inject, seed):
    injected = inject(layered(300), "--layers", "relu", "--as-output", "--seed", seed, check=False)
    drawn = seeds(injected.model)
    assert len(set(drawn)) == len(drawn) == 300
    assert all(value == int(value) and 2 <= value < 2**24 for value in drawn)
    assert drawn == [layer["seed"] for layer in injected.report["layers"]]


def test_a_second_injection_with_the_same_seed_draws_other_slices(inject, tmp_path, per_inject):
    once = inject(layered(2), "--layers", "relu", "--as-output", "--seed", 1)
    twice = inject(once.data, "--layers", "relu", "--as-output", "--seed", 1)
    drawn = seeds(twice.model)
    assert len(set(drawn)) == len(drawn) == 4


def test_more_slices_than_a_seed_can_tell_apart_and_none_at_all_are_refused(per_inject, tmp_path):
    model = tmp_path / "model.onnx"
    onnx.save(nets.tap([3, 8]), model)
    for slices in [0, 2**24 + 1]:
        run = per_inject(model, "--layers", "tensor:h", "--as-output", "--slices", slices, "--dry-run", check=False)
        assert run.returncode == 1 and "--slices" in run.stderr


def two_layers(first, second):
    """A graph with two activations, `h` fed as it is and `k` fed as `g`, both tapped, of rows of those lengths."""
    inputs = [("x", nets.FLOAT, [3, first]), ("g", nets.FLOAT, [3, second])]
    nodes = [
        helper.make_node("Identity", ["x"], ["h"]),
        helper.make_node("Identity", ["g"], ["k"]),
        helper.make_node("ReduceMean", ["h"], ["of_h"], keepdims=0),
        helper.make_node("ReduceMean", ["k"], ["of_k"], keepdims=0),
        helper.make_node("Add", ["of_h", "of_k"], ["loss"]),
    ]
    return nets.model(nodes, inputs, [("loss", nets.FLOAT, [])])


@pytest.mark.parametrize("lengths, draws", [((8, 8), 1), ((8, 5), 2)])
def test_shared_slices_are_drawn_once_for_all_rows_of_a_length_and_stay_unbiased(inject, session, lengths, draws):
    arguments = ["--layers", "tensor:h,tensor:k", "--as-output", "--outputs", "layers", "--slices", 4, "--seed", SEED]
    injected = inject(two_layers(*lengths), *arguments, "--share-slices")
    assert len(random_nodes(injected.model)) == len(set(seeds(injected.model))) == draws
    assert injected.report["share_slices"] and injected.report["cost"]["random_numbers"] == 4 * (sum(lengths) if draws == 2 else lengths[0])
    assert len(random_nodes(inject(two_layers(*lengths), *arguments).model)) == 2

    h, k = (normalised((3, d)) * scale for d, scale in zip(lengths, (1, 3)))
    made = session(injected.data)
    drawn = np.array([made.run(injected.layers, {"x": h, "g": k}) for _ in range(RUNS)])
    expected = [closed_form.per(rows).mean() for rows in (h, k)]
    error = STANDARD_ERRORS * drawn.std(axis=0, ddof=1) / math.sqrt(RUNS)
    assert (np.abs(drawn.mean(axis=0) - expected) < error).all()
    if lengths == (8, 8):
        [same] = [made.run(injected.layers, {"x": h, "g": h})]
        assert same[0] == same[1]
