"""float16 and bfloat16 parameters: gradients that are summed in float32, and steps that are made in it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import lowering
from test_differentiate import OPTIMIZERS, differentiated, gradients
from test_differentiate_flow import differences

RNG = np.random.default_rng(3)
HALF = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
# Half the distance of neighbouring numbers, as a part of them, times the roundings on the way: five layers there and back.
ROUNDING = {"float16": 10 * 2**-11, "bfloat16": 10 * 2**-8}

MODELS = {
    "layers": (
        """g (T[n,6] x, int64[n] y) => (T loss) {
            a = MatMul(x, p0) b = Add(a, p1) h = Tanh(b) c = Gemm<transB = 1>(h, p2, p3) l = SoftmaxCrossEntropyLoss<reduction = "mean">(c, y) loss = Identity(l) }""",
        {"p0": (6, 8), "p1": (8,), "p2": (5, 8), "p3": (5,)},
        {"x": (12, 6)},
        {"y": (12, 5)},
    ),
    "normalised": (
        """g (T[n,4,8] x) => (T loss) {
            a = MatMul(x, p0) h = LayerNormalization<axis = -1>(a, p1, p2) s = Softmax<axis = -1>(h) t = Mul(s, h) q = Mul(t, p3) loss = ReduceMean<keepdims = 0>(q) }""",
        {"p0": (8, 6), "p1": (6,), "p2": (6,), "p3": (4, 1)},
        {"x": (3, 4, 8)},
        {},
    ),
    "pictures": (
        """g (T[n,3,6,6] x) => (T loss) {
            a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, p0, p1) r = Relu(a) m = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(r)
            v = GlobalAveragePool(m) w = Flatten(v) z = MatMul(w, p2) q = Mul(z, z) loss = ReduceMean<keepdims = 0>(q) }""",
        {"p0": (4, 3, 3, 3), "p1": (4,), "p2": (4, 2)},
        {"x": (2, 3, 6, 6)},
        {},
    ),
    "rows": (
        """g (int64[n] i) => (T loss) { e = Gather(p0, i) s = Mul(e, p1) q = Mul(s, e) loss = ReduceMean<keepdims = 0>(q) }""",
        {"p0": (7, 4), "p1": (4,)},
        {},
        {"i": (20, 7)},
    ),
    "steps": (
        """g (T[t,n,4] x, T[n,6] start) => (T loss) {
            last = Scan<num_scan_inputs = 1, body = b (T[n,6] s, T[n,4] xt) => (T[n,6] sn) {
                a = MatMul(xt, p0) u = MatMul(s, p1) w = Add(a, u) v = Add(w, p2) sn = Tanh(v) }>(start, x)
            q = Mul(last, last) loss = ReduceMean<keepdims = 0>(q) }""",
        {"p0": (4, 6), "p1": (6, 6), "p2": (6,)},
        {"x": (5, 3, 4), "start": (3, 6)},
        {},
    ),
}


# bfloat16 came to Conv and pooling with this one.
OPSETS = {"pictures": 22}


def build(name: str, elem: str):
    """The model of this element type, the same one in float32, with values that both hold exactly; feeds in float32."""
    text, parameters, floats, labels = MODELS[name]
    as_half = lambda v: rounded(v, elem)
    values = {n: as_half(0.5 * RNG.standard_normal(shape)) for n, shape in parameters.items()}
    feeds = {n: as_half(RNG.standard_normal(shape)) for n, shape in floats.items()}
    feeds |= {n: RNG.integers(0, top, count) for n, (count, top) in labels.items()}
    half, single = (onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {OPSETS.get(name, 17)}]> {text.replace("T[", t + "[").replace("(T ", "(" + t + " ")}') for t in (elem, "float"))
    for n, value in values.items():
        single.graph.initializer.append(numpy_helper.from_array(value, n))
        half.graph.initializer.append(packed(value, n, elem))
    return half, single, feeds


def rounded(values, elem: str) -> np.ndarray:
    """As float32, but numbers that the shorter type has."""
    values = np.asarray(values, np.float32)
    if elem == "float16":
        return values.astype(np.float16).astype(np.float32)
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def packed(value: np.ndarray, name: str, elem: str) -> onnx.TensorProto:
    return helper.make_tensor(name, HALF[elem], value.shape, value.flatten().tolist())


def unpacked(value) -> np.ndarray:
    """A result of whatever type as float64."""
    value = np.asarray(value)
    return value.astype(np.float64)


# ONNX Runtime has no Conv of float16 on the CPU.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "pictures"])
def test_float16_gradients_are_those_of_float64_differences(session, name):
    half, single, feeds = build(name, "float16")
    expected = differences(session, single, feeds)
    step = differentiated(half.SerializeToString(), "--wrt", "re:^p")
    feeds = {n: v.astype(np.float16) if v.dtype == np.float32 else v for n, v in feeds.items()}
    _, found = gradients(session, step, feeds)
    for n, gradient in expected.items():
        assert found[n].dtype == np.float16
        assert np.abs(unpacked(found[n]) - gradient).max() <= ROUNDING["float16"] * np.abs(gradient).max(), n


@pytest.mark.parametrize("elem", HALF)
@pytest.mark.parametrize("name", MODELS)
def test_every_sum_of_the_backward_pass_is_in_float32(name, elem):
    half, _, _ = build(name, elem)
    step = onnx.load_from_string(differentiated(half.SerializeToString(), "--wrt", "re:^p", "--optimizer", "adam"))
    graph = onnx.shape_inference.infer_shapes(step, data_prop=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.input, *graph.output, *graph.value_info]}
    types |= {t.name: t.data_type for t in graph.initializer}
    ours = [n for n in graph.node if n.name.startswith("per_inject/grad")]
    assert ours
    summing = [n for n in ours if n.op_type in ("ReduceSum", "ReduceMean", "ScatterElements", "Sum")]
    assert all(types[n.input[0]] == TensorProto.FLOAT for n in summing), [n.name for n in summing]
    # Parameters keep their type, the optimiser's state is longer.
    for name in (t.name for t in half.graph.initializer):
        assert types[f"{name}_next"] == HALF[elem]
        assert types[f"{name}_mean"] == types[f"{name}_mean_next"] == TensorProto.FLOAT


def test_a_sum_of_many_small_terms_loses_none(session):
    # 30,000 terms of 0.01: in float16 a sum stops growing where a term is less than half the distance to the next number, at 32.
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float16[n,2] x) => (float16 loss) {
        y = Add(x, p) z = Mul(y, w) r = Relu(z) loss = ReduceSum<keepdims = 0>(r) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.array([0.5, 0.25], np.float16), "p"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0.01], np.float16), "w"))
    step = differentiated(model.SerializeToString(), "--wrt", "p")
    _, found = gradients(session, step, {"x": np.ones((30000, 2), np.float16)})
    assert unpacked(found["p"]) == pytest.approx([30000 * float(np.float16(0.01))] * 2, rel=2**-10)


def test_a_mean_over_more_than_float16_counts_has_a_gradient(session):
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float16[n] x) => (float16 loss) { y = Mul(x, p) loss = ReduceMean<keepdims = 0>(y) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.array([0.5], np.float16), "p"))
    step = differentiated(model.SerializeToString(), "--wrt", "p")
    _, found = gradients(session, step, {"x": np.full(100000, 3, np.float16)})
    # Each share, 1e-5, is a number with few digits of float16.
    assert unpacked(found["p"])[0] == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_float16_parameter_steps_in_float32(session, optimizer):
    # loss = Σ w·(p − a)²; formulas in float64, rounded to float16 after each step as the parameter is.
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float16[4,5] a, float16[4,5] w) => (float16 loss) {
        d = Sub(p, a) s = Mul(d, d) m = Mul(s, w) loss = ReduceSum<keepdims = 0>(m) }"""
    model = onnx.parser.parse_model(text)
    p, a, w = (v.astype(np.float16) for v in (RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5)), RNG.uniform(0.1, 1, (4, 5))))
    model.graph.initializer.append(numpy_helper.from_array(p, "p"))
    step = session(differentiated(model.SerializeToString(), "--wrt", "p", "--optimizer", optimizer, "--weight-decay", "0.01"))
    names = [output.name for output in step.get_outputs()]
    fed = {i.name: i.type for i in step.get_inputs()}
    values = {"p": p, **{n: np.zeros((4, 5), np.float32) for n in fed if n.startswith("p_")}}
    expected, state = p.astype(np.float64), {}
    for t in range(1, 6):
        feeds = {"a": a, "w": w, "learning_rate": np.array(0.05, np.float32), **values}
        if "step" in fed:
            feeds["step"] = np.array(t - 1)
        outputs = dict(zip(names, step.run(None, feeds)))
        values = {name: outputs[f"{name}_next"] for name in values}
        gradient = 2 * w.astype(np.float64) * (expected - a.astype(np.float64))
        expected, state = OPTIMIZERS[optimizer](expected, gradient, state, t, 0.05)
    assert values["p"].dtype == np.float16
    # Five roundings of the parameter, and those of the gradient, of which at most one learning rate's part gets into it.
    assert np.abs(unpacked(values["p"]) - expected).max() <= 8 * 2**-11 * np.abs(expected).max()


@pytest.mark.parametrize("name, elem", [("layers", "bfloat16"), ("pictures", "float16")])
def test_gradients_by_the_reference_evaluator(name, elem):
    # ONNX Runtime has no such kernels on the CPU.
    half, single, feeds = build(name, elem)
    expected = lowering.differences(single, feeds)
    step = onnx.load_from_string(differentiated(half.SerializeToString(), "--wrt", "re:^p"))
    run = ReferenceEvaluator(step)
    short = np.float16 if elem == "float16" else ml_dtypes.bfloat16
    fed = {n: v.astype(short) if v.dtype == np.float32 else v for n, v in feeds.items()}
    found = dict(zip(run.output_names, run.run(None, fed)))
    for n, gradient in expected.items():
        got = unpacked(found[f"{n}_grad"])
        assert np.abs(got - gradient).max() <= ROUNDING[elem] * np.abs(gradient).max(), n
