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
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_gradient_in_an_old_operator_set_is_that_of_float64_differences(session, case):
    model = case.model()
    expected = differences(session, model, case.feeds)
    _, found = gradients(session, differentiated(model.SerializeToString(), "--wrt", "re:^p"), case.feeds)
    for name, gradient in expected.items():
        assert np.abs(gradient).max() > 0
        assert np.abs(found[name] - gradient).max() <= TOLERANCE * np.abs(gradient).max(), name


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
