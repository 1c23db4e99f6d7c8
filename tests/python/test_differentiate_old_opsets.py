"""Gradients whose natural operator is newer than the model's operator set, against central differences in float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import taps
from command import per_inject
from test_differentiate import differentiated, gradients
from test_differentiate_flow import TOLERANCE, Case, differences, f

i64 = lambda *values: np.array(values, np.int64)


def pool(x: str, shape, opset, **attributes):
    text = ", ".join(f"{n} = {list(v)}" for n, v in attributes.items())
    dims = ",".join(map(str, shape))
    body = f"g (float[{x}] x) => (float loss) {{ h = Mul(x, p0) m = MaxPool<{text}>(h) q = Mul(m, m) loss = ReduceMean<keepdims = 0>(q) }}"
    return Case(f"pool-{opset}-{dims}-{text}", body, {"p0": f(*[1 if d == 2 else d for d in shape])}, {"x": f(*shape)}, opset)


def gather(axis, indices, opset, x="3,4,5", name=""):
    body = f"g (float[{x}] x, int64[{','.join(map(str, indices.shape))}] i) => (float loss) {{ h = Mul(x, p0) e = Gather<axis = {axis}>(h, i) q = Mul(e, e) loss = ReduceMean<keepdims = 0>(q) }}"
    return Case(f"gather-{opset}-{axis}-{indices.ndim}{name}", body, {"p0": f(3, 4, 5)}, {"x": f(3, 4, 5), "i": indices}, opset)


def gather_nd(opset, indices, x="3,4,5", batch=0, shape=(3, 4, 5)):
    dims = ",".join(map(str, indices.shape[:-1])) if x[0].isdigit() else ",".join("jkl"[: indices.ndim - 1])
    attribute = f"<batch_dims = {batch}>" if opset > 11 else ""
    body = f"g (float[{x}] x, int64[{','.join(filter(None, (dims, str(indices.shape[-1]))))}] i) => (float loss) {{ h = Mul(x, p0) e = GatherND{attribute}(h, i) q = Mul(e, e) loss = ReduceMean<keepdims = 0>(q) }}"
    return Case(f"gather-nd-{opset}-{batch}-{'-'.join(map(str, indices.shape))}-{x[0]}", body, {"p0": f(*shape)}, {"x": f(*shape), "i": indices}, opset)


def of_matrix(name, opset, made, parameters=None, **feeds):
    """The mean square of what `made` says is y, of h[3,5] = x·p0 whose elements differ."""
    body = f"g (float[n,5] x) => (float loss) {{ h = Mul(x, p0) {made} q = Mul(y, y) loss = ReduceMean<keepdims = 0>(q) }}"
    return Case(f"{name}-{opset}", body, {"p0": f(5)} | (parameters or {}), {"x": f(3, 5)} | feeds, opset)


OVERLAPPING = {"kernel_shape": (3, 3), "strides": (2, 2)}

CASES = [
    *(pool("n,3,7,6", (2, 3, 7, 6), opset, **OVERLAPPING) for opset in (9, 10, 13)),
    pool("2,3,7,6", (2, 3, 7, 6), 12, kernel_shape=(2, 3), pads=(1, 0, 1, 2)),
    pool("2,3,9", (2, 3, 9), 11, kernel_shape=(3,), dilations=(2,), pads=(2, 1)),
    pool("2,1,4,5,4", (2, 1, 4, 5, 4), 13, kernel_shape=(2, 2, 3)),
    *(gather(axis, i64(1, 0, 1, 2, 1, -1), opset) for axis in (0, 1, 2, -1) for opset in (9, 13)),
    *(gather(1, i64([[1, 1], [0, 3]], [[2, 1], [-4, 3]]), opset) for opset in (11, 15)),
    *(gather(axis, i64(1, 0, 1, 2), 12, x="a,b,c", name="-open") for axis in (0, 1, 2)),
    *(
        Case(
            f"gather-elements-{opset}",
            """g (float[3,4] x, int64[3,6] i) => (float loss) { h = Mul(x, p0) e = GatherElements<axis = 1>(h, i) q = Mul(e, k) loss = ReduceSum<keepdims = 0>(q) }""",
            {"p0": f(3, 4), "k": f(3, 6)},
            {"x": f(3, 4), "i": np.random.default_rng(1).integers(-4, 4, (3, 6))},
            opset,
        )
        for opset in (11, 15)
    ),
    # Tuples of one number, of two, and of all; of a batch; some of them twice, and some counted from the end.
    *(
        gather_nd(opset, indices, x)
        for opset in (11, 13, 15)
        for x in ("3,4,5", "a,b,c")
        for indices in (i64([1], [-2], [1], [0]), i64([2, 1], [0, -1], [-1, 1], [2, 1]), i64([[0, 0, 1], [2, -1, -5]], [[0, 0, 1], [1, 3, 4]]), i64(2, -1))
    ),
    *(
        gather_nd(opset, indices, x, batch)
        for opset in (12, 15)
        for x in ("3,4,5", "a,b,c")
        for batch, indices in ((1, i64([[0], [-1]], [[2], [2]], [[1], [0]])), (1, i64([3, -5], [0, 1], [0, 1])), (2, np.random.default_rng(3).integers(-5, 5, (3, 4, 6, 1))))
    ),
    # Whether one operand is repeated, only the running graph knows.
    *(
        Case(
            f"broadcast-{opset}-{'-'.join(map(str, shape))}",
            "g (float[a,b,c] x, float[d,e] y) => (float loss) { u = Mul(y, p0) v = Add(x, u) w = Mul(v, v) loss = ReduceSum<keepdims = 0>(w) }",
            {"p0": f(1, 1)},
            {"x": f(3, 4, 5), "y": f(*shape)},
            opset,
        )
        for opset in (9, 12, 17)
        for shape in ((4, 5), (1, 5), (4, 1), (1, 1))
    ),
    # Equal takes no floats and there is no ScatterElements and no Range before operator set 11, and no Mod before 10.
    *(of_matrix(op, opset, f"y = {op}<axes = [1]>(h)") for op in ("ReduceMax", "ReduceMin") for opset in (9, 10, 11)),
    *(of_matrix(op, opset, f"y = {op}(h, p1, p1)", {"p1": f(3, 5)[:1]}) for op in ("Max", "Min") for opset in (9, 11)),
    of_matrix("TopK", 9, "y, i = TopK<axis = 1, k = 2>(h)"),
    *(of_matrix("TopK", opset, "y, i = TopK<axis = 1>(h, k)", {"k": i64(3)}) for opset in (10, 11)),
    of_matrix("Slice", 9, "y = Slice<axes = [0], starts = [1], ends = [3]>(h)"),
    *(
        of_matrix("Slice", opset, "y = Slice(h, from, to, axis, step)", {"from": i64(4), "to": i64(-9), "axis": i64(1), "step": i64(-3)})
        for opset in (10, 11)
    ),
    # (ONNX Runtime has no float64 kernel of Clip 11.)
    of_matrix("Clip", 12, "y = Clip(h, p1, p2)", {"p1": np.float32(-0.3), "p2": np.float32(0.4)}),
    *(
        Case(
            f"columns-{opset}",
            """g (float[n,2,4,6] x) => (float loss) { h = Mul(x, p0) m, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2], storage_order = 1>(h)
            q = Mul(m, m) loss = ReduceMean<keepdims = 0>(q) }""",
            {"p0": f(2, 1, 1)},
            {"x": f(3, 2, 4, 6)},
            opset,
        )
        for opset in (9, 10, 12)
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_gradient_in_an_old_operator_set_is_that_of_float64_differences(session, case):
    model = case.model()
    expected = differences(session, model, case.feeds)
    _, found = gradients(session, differentiated(model.SerializeToString(), "--wrt", "re:^p"), case.feeds)
    for name, gradient in expected.items():
        assert np.abs(gradient).max() > 0
        assert np.abs(found[name] - gradient).max() <= TOLERANCE * np.abs(gradient).max(), name


def test_tuples_of_unknown_length_are_told(tmp_path):
    source = tmp_path / "source.onnx"
    text = "g (float[3,4,5] x, int64[n,k] i) => (float loss) { h = Mul(x, p0) e = GatherND(h, i) s = Constant<value = int64[1] {-1}>() y = Reshape(e, s) loss = ReduceSum<keepdims = 0>(y) }"
    source.write_bytes(Case("tuples", text, {"p0": f(3, 4, 5)}, {}, 13).model().SerializeToString())
    result = per_inject("differentiate", source, "-o", tmp_path / "step.onnx", "--wrt", "p0", check=False)
    assert 'dimension 1 of "i" is known only to the running graph' in taps.refusal(result)


def test_pooling_of_places_of_unknown_number_says_what_it_needs(tmp_path):
    source = tmp_path / "source.onnx"
    case = pool("n,3,h,w", (2, 3, 7, 6), 15, **OVERLAPPING)
    case.parameters["p0"] = f(1, 1, 1, 1)
    source.write_bytes(case.model().SerializeToString())
    result = per_inject("differentiate", source, "-o", tmp_path / "step.onnx", "--wrt", "p0", check=False)
    assert "needs operator set 16" in taps.refusal(result)


def test_nodes_that_share_a_running_statistic_are_named(tmp_path):
    norm = "<training_mode = 1>"
    text = f"""<ir_version: 8, opset_import: ["" : 15]> g (float[4,3] x) => (float loss)
        <float[3] s = {{1, 2, 3}}, float[3] b = {{1, 2, 3}}, float[3] m = {{0, 0, 0}}, float[3] v = {{1, 1, 1}}> {{
        h, m1, v1 = BatchNormalization{norm}(x, s, b, m, v) t = Tanh(h)
        y, m2, v2 = BatchNormalization{norm}(t, s, b, m, v) q = Mul(y, x) loss = ReduceSum<keepdims = 0>(q) }}"""
    source = tmp_path / "source.onnx"
    source.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    result = per_inject("differentiate", source, "-o", tmp_path / "step.onnx", check=False)
    reason = taps.refusal(result)
    assert 'the running statistic "m" is updated by node 0 (BatchNormalization) and by node 2 (BatchNormalization)' in reason
