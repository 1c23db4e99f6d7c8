"""Gradients through If, Scan and Loop on stock ONNX Runtime, against central differences of the forward graph in float64."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import TensorProto, helper, numpy_helper

import taps
from command import per_inject
from test_differentiate import differentiated, gradients

# Single precision against double, over the largest entry, as in test_differentiate.py.
TOLERANCE = 2e-4
STEP = 1e-6


def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in float64, bodies included."""
    model = copy.deepcopy(model)

    def tensor(t):
        if t.data_type == TensorProto.FLOAT:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float64), t.name))

    def graph(g):
        for value in [*g.input, *g.output, *g.value_info]:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        # Of these Resize and Upsample want float32 whatever they resize.
        scales = {name for node in g.node if node.op_type in ("Resize", "Upsample") for name in node.input[1:]}
        for each in g.initializer:
            if each.name not in scales:
                tensor(each)
        for node in g.node:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.DOUBLE
                if attribute.HasField("t"):
                    tensor(attribute.t)
                if attribute.HasField("g"):
                    graph(attribute.g)

    graph(model.graph)
    return model


def differences(session, model: onnx.ModelProto, feeds: dict) -> dict[str, np.ndarray]:
    """d loss / d parameter, by central differences of every element of every initializer that starts with p."""
    double = doubled(model)
    parameters = {t.name: numpy_helper.to_array(t) for t in double.graph.initializer if t.name.startswith("p")}
    for name, value in parameters.items():
        double.graph.input.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, value.shape))
    run = session(double.SerializeToString())
    feeds = {n: v.astype(np.float64) if v.dtype == np.float32 else v for n, v in feeds.items()}
    loss = lambda moved: float(run.run(["loss"], {**feeds, **moved})[0])
    found = {}
    for name, value in parameters.items():
        found[name] = np.zeros(value.shape)
        for index in np.ndindex(*value.shape):
            sides = []
            for step in (STEP, -STEP):
                moved = value.copy()
                moved[index] += step
                sides.append(loss({name: moved}))
            found[name][index] = (sides[0] - sides[1]) / (2 * STEP)
    return found


RNG = np.random.default_rng(7)
f = lambda *shape: RNG.standard_normal(shape).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Case:
    """A graph in onnx's text form whose output is `loss`; parameters start with p."""

    name: str
    text: str
    parameters: dict
    feeds: dict
    opset: int = 17

    def model(self) -> onnx.ModelProto:
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {self.opset}]> {self.text}')
        for name, value in self.parameters.items():
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        return model


TRUE, FALSE = np.array(True), np.array(False)

IF = """g (float[3,4] x, bool c) => (float loss) {
    h = Mul(x, p0)
    y = If(c)<then_branch = t () => (float[3,4] a) { s = Tanh(h) u = Mul(s, p1) a = Mul(u, s) },
              else_branch = e () => (float[3,4] b) { v = Sigmoid(h) w = Add(v, p2) b = Mul(w, h) }>
    z = Mul(y, y) loss = ReduceMean<keepdims = 0>(z) }"""
IF_PARAMETERS = {"p0": f(4), "p1": f(3, 1), "p2": f(4)}

# A branch that hands on what is outside, another that makes nothing of it.
IF_EMPTY = """g (float[3,4] x, bool c) => (float loss) {
    h = Mul(x, p0)
    y = If(c)<then_branch = t () => (float[3,4] a) { a = Identity(h) }, else_branch = e () => (float[3,4] b) { b = Neg(x) }>
    z = Mul(y, h) loss = ReduceSum<keepdims = 0>(z) }"""

# Two outputs of which one is of integers, a constant and an initializer in a branch, and a nested If.
IF_NESTED = """g (float[3,4] x, bool c, bool d) => (float loss) {
    h = Mul(x, p0)
    y, n = If(c)<then_branch = t () => (float[3,4] a, int64[2] i) <float[4] k = {1.0, -2.0, 3.0, 0.5}> {
                    q = Mul(h, k)
                    a = If(d)<then_branch = tt () => (float[3,4] aa) { r = Exp(q) aa = Mul(r, p1) },
                              else_branch = te () => (float[3,4] ab) { two = Constant<value = float {2.0}>() ab = Pow(q, two) }>
                    i = Shape(a) },
                 else_branch = e () => (float[3,4] b, int64[2] j) { b = Mul(h, h) j = Shape(h) }>
    m = Cast<to = 1>(n) w = ReduceSum<keepdims = 0>(m)
    z = Mul(y, w) loss = ReduceMean<keepdims = 0>(z) }"""

# h is the state; the weight and a bias are captured; every state is stacked too.
SCAN = """g (float[5,3,4] x, float[3,6] start) => (float loss) {
    s0 = Mul(start, p2)
    last, all = Scan<num_scan_inputs = 1, body = b (float[3,6] s, float[3,4] xt) => (float[3,6] sn, float[3,6] yt) {
        a = MatMul(xt, p0) u = MatMul(s, p1) v = Add(a, u) sn = Tanh(v) yt = Mul(sn, s) }>(s0, x)
    q = Mul(all, all) e = ReduceMean<keepdims = 0>(q) l = ReduceSum<keepdims = 0>(last) loss = Add(e, l) }"""
SCAN_PARAMETERS = {"p0": f(4, 6), "p1": 0.3 * f(6, 6), "p2": f(3, 6)}

# Two states, two scanned values along other axes and from the end, two stacked results, one backwards along its last axis.
SCAN_AXES = """g (float[3,5,4] x, float[3,4,5] w, float[3,4] start) => (float loss) {
    xs = Mul(x, p0) ws = Mul(w, p1)
    l1, l2, all, other = Scan<num_scan_inputs = 2, scan_input_axes = [1, -1], scan_input_directions = [0, 1],
        scan_output_axes = [2, 0], scan_output_directions = [1, 0],
        body = b (float[3,4] s, float[3,4] r, float[3,4] xt, float[3,4] wt) => (float[3,4] sn, float[3,4] rn, float[3,4] yt, float[3,4] zt) {
            a = Mul(s, xt) sn = Add(a, wt) bb = Mul(r, sn) rn = Sigmoid(bb) yt = Mul(rn, p2) zt = Mul(wt, wt) }>(start, start, xs, ws)
    i = Mul(all, k) j = Mul(other, other)
    i1 = ReduceSum<keepdims = 0>(i) j1 = ReduceMean<keepdims = 0>(j) l11 = ReduceSum<keepdims = 0>(l1) l21 = ReduceSum<keepdims = 0>(l2)
    loss = Sum(i1, j1, l11, l21) }"""

# A state that no gradient depends on counts the steps.
SCAN_COUNTER = """g (float[n,3] x) => (float loss) {
    zero = Constant<value = float {0.0}>() s0 = Mul(p0, zero)
    count, last = Scan<num_scan_inputs = 1, body = b (float k, float[3] s, float[3] xt) => (float kn, float[3] sn) {
        one = Constant<value = float {1.0}>() kn = Add(k, one) d = Mul(xt, kn) e = Mul(d, p1) sn = Add(s, e) }>(zero, s0, x)
    t = Mul(last, last) loss = ReduceSum<keepdims = 0>(t) }"""

LOOP = """g (float[3,4] x, int64 n) => (float loss) {
    h = Mul(x, p0)
    yes = Constant<value = bool {1}>()
    last, all = Loop(n, yes, h)<body = b (int64 i, bool go, float[3,4] v) => (bool on, float[3,4] vn, float[3,4] out) {
        on = Identity(go) m = MatMul(v, p1) vn = Tanh(m) k = Cast<to = 1>(i) out = Mul(vn, k) }>
    q = Mul(all, p2) e = ReduceSum<keepdims = 0>(q) l = ReduceSum<keepdims = 0>(last) loss = Add(e, l) }"""
LOOP_PARAMETERS = {"p0": f(4), "p1": 0.5 * f(4, 4), "p2": f(3, 4)}

# Runs until the sum of squares is large: the number of steps depends on the data.
WHILE = """g (float[4] x) => (float loss) {
    h = Mul(x, p0) yes = Constant<value = bool {1}>()
    last = Loop(, yes, h)<body = b (int64 i, bool go, float[4] v) => (bool on, float[4] vn) {
        vn = Mul(v, p1) sq = Mul(vn, vn) size = ReduceSum<keepdims = 0>(sq) limit = Constant<value = float {50.0}>()
        on = Less(size, limit) }>
    loss = ReduceSum<keepdims = 0>(last) }"""

# Steps take different branches; the branch's intermediates cannot be stacked.
LOOP_IF = """g (float[3,4] x, int64 n) => (float loss) {
    h = Mul(x, p0) yes = Constant<value = bool {1}>()
    last = Loop(n, yes, h)<body = b (int64 i, bool go, float[3,4] v) => (bool on, float[3,4] vn) {
        on = Identity(go) two = Constant<value = int64 {2}>() r = Mod(i, two) zero = Constant<value = int64 {0}>() even = Equal(r, zero)
        w = Mul(v, v)
        vn = If(even)<then_branch = t () => (float[3,4] a) { m = MatMul(v, p1) a = Tanh(m) },
                      else_branch = e () => (float[3,4] c) { s = Mul(w, p2) c = Sin(s) }> }>
    q = Mul(last, last) loss = ReduceSum<keepdims = 0>(q) }"""

# The inner loop makes as many steps as the outer one made before it, and 0 at first.
LOOP_LOOP = """g (float[3,4] x, int64 n) => (float loss) {
    h = Mul(x, p0) yes = Constant<value = bool {1}>()
    last, all = Loop(n, yes, h)<body = b (int64 i, bool go, float[3,4] v) => (bool on, float[3,4] vn, float[3,4] out) {
        on = Identity(go)
        w = Loop(i, go, v)<body = bb (int64 j, bool go2, float[3,4] u) => (bool on2, float[3,4] un) {
            on2 = Identity(go2) m = MatMul(u, p1) un = Sin(m) }>
        vn = Add(w, v) out = Mul(w, p2) }>
    q = Mul(last, last) e = ReduceSum<keepdims = 0>(q) l = ReduceSum<keepdims = 0>(all) loss = Add(e, l) }"""

# A Scan in a Scan: over time, then over the features of a step.
SCAN_SCAN = """g (float[3,4] x) => (float loss) {
    z = Constant<value = float {0.5}>()
    last = Scan<num_scan_inputs = 1, body = b (float s, float[4] xt) => (float sn) {
        sn, all = Scan<num_scan_inputs = 1, body = bb (float r, float xi) => (float rn, float ri) {
            a = Mul(r, xi) c = Add(a, p0) rn = Tanh(c) ri = Identity(rn) }>(s, xt) }>(z, x)
    q = Mul(last, p1) loss = ReduceSum<keepdims = 0>(q) }"""

# Operators that have no rule of their own are spelt out inside the body.
SPELT_OUT = """g (float[5,3,4] x, float[3,4] start) => (float loss) {
    last, all = Scan<num_scan_inputs = 1, body = b (float[3,4] s, float[3,4] xt) => (float[3,4] sn, float[3,4] yt) {
        a = Einsum<equation = "ij,jk->ik">(s, p0) c = Add(a, xt) d = Selu(c) sn = LayerNormalization(d, p1, p2) yt = Mish(sn) }>(start, x)
    q = Mul(all, k) e = ReduceMean<keepdims = 0>(q) l = ReduceSum<keepdims = 0>(last) loss = Add(e, l) }"""

# Two steps of one loop in a branch that is not always taken, behind a parameter that is read in and outside of it.
IF_LOOP = """g (float[3,4] x, bool c, int64 n) => (float loss) {
    h = Mul(x, p0) yes = Constant<value = bool {1}>()
    y = If(c)<then_branch = t () => (float[3,4] a) {
            a = Loop(n, yes, h)<body = b (int64 i, bool go, float[3,4] v) => (bool on, float[3,4] vn) { on = Identity(go) m = Mul(v, p1) vn = Exp(m) }> },
        else_branch = e () => (float[3,4] d) { d = Mul(h, p1) }>
    z = Add(y, p1) loss = ReduceMean<keepdims = 0>(z) }"""

# Nothing is carried; what steps make is stacked.
STACKED = """g (float[4] x, int64 n) => (float loss) {
    yes = Constant<value = bool {1}>()
    all = Loop(n, yes)<body = b (int64 i, bool go) => (bool on, float[4] o) { on = Identity(go) k = Cast<to = 1>(i) q = Mul(k, p0) o = Mul(q, q) }>
    q = Mul(all, x) loss = ReduceSum<keepdims = 0>(q) }"""

CASES = [
    *(Case(f"stacked-{n}", STACKED, {"p0": f(4)}, {"x": f(4), "n": np.array(n)}) for n in (2, 3)),
    *(Case(f"if-{n}", IF, IF_PARAMETERS, {"x": f(3, 4), "c": c}) for n, c in (("then", TRUE), ("else", FALSE))),
    *(Case(f"if-opset-{v}", IF, IF_PARAMETERS, {"x": f(3, 4), "c": TRUE}, v) for v in (9, 11, 13, 21)),
    *(Case(f"if-empty-{n}", IF_EMPTY, {"p0": f(4)}, {"x": f(3, 4), "c": c}) for n, c in (("then", TRUE), ("else", FALSE))),
    *(
        Case(f"if-nested-{c}-{d}", IF_NESTED, {"p0": f(4), "p1": f(3, 4)}, {"x": f(3, 4), "c": np.array(c), "d": np.array(d)})
        for c in (True, False)
        for d in (True, False)
    ),
    *(Case(f"scan-{v}", SCAN, SCAN_PARAMETERS, {"x": f(5, 3, 4), "start": f(3, 6)}, v) for v in (9, 11, 13, 17, 21)),
    Case(
        "scan-axes",
        SCAN_AXES,
        {"p0": f(4), "p1": f(5), "p2": f(3, 4), "k": f(3, 4, 5)},
        {"x": f(3, 5, 4), "w": f(3, 4, 5), "start": f(3, 4)},
    ),
    *(Case(f"scan-counter-{n}", SCAN_COUNTER, {"p0": f(3), "p1": f(3)}, {"x": f(n, 3)}) for n in (1, 4)),
    *(Case(f"loop-{n}-{v}", LOOP, LOOP_PARAMETERS, {"x": f(3, 4), "n": np.array(n)}, v) for n in (0, 1, 4) for v in (11, 17)),
    Case("while", WHILE, {"p0": f(4), "p1": np.array([1.5, -1.2, 1.1, 2.0], np.float32)}, {"x": np.ones(4, np.float32)}),
    *(Case(f"loop-if-{n}", LOOP_IF, LOOP_PARAMETERS, {"x": f(3, 4), "n": np.array(n)}) for n in (0, 1, 5)),
    *(Case(f"loop-loop-{n}", LOOP_LOOP, LOOP_PARAMETERS, {"x": f(3, 4), "n": np.array(n)}) for n in (0, 1, 3)),
    Case("scan-scan", SCAN_SCAN, {"p0": np.array(0.3, np.float32), "p1": np.array(1.5, np.float32)}, {"x": f(3, 4)}),
    Case("spelt-out", SPELT_OUT, {"p0": 0.5 * f(4, 4), "p1": 1 + 0.1 * f(4), "p2": f(4), "k": f(5, 3, 4)}, {"x": f(5, 3, 4), "start": f(3, 4)}, 18),
    *(Case(f"if-loop-{c}-{n}", IF_LOOP, {"p0": f(4), "p1": 0.3 * f(3, 4)}, {"x": 0.3 * f(3, 4), "c": np.array(c), "n": np.array(n)}) for c, n in ((True, 2), (True, 0), (False, 2))),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_gradient_through_bodies_is_that_of_float64_differences(session, case):
    model = case.model()
    expected = differences(session, model, case.feeds)
    _, found = gradients(session, differentiated(model.SerializeToString(), "--wrt", "re:^p"), case.feeds)
    floor = 1e-3 * max(np.abs(gradient).max() for gradient in expected.values())
    assert floor > 0, "the case trains nothing"
    for name, gradient in expected.items():
        assert found[name].shape == gradient.shape
        error = np.abs(found[name] - gradient).max() / max(np.abs(gradient).max(), floor)
        assert error <= TOLERANCE, f"{name}: {error:.1e}"


def test_calls_of_functions_inside_a_body_are_spelt_out(session):
    text = """<ir_version: 8, opset_import: ["" : 17, "my" : 1]> g (float[3,4] x, int64 n) => (float loss) {
        h = Mul(x, p0) yes = Constant<value = bool {1}>()
        last = Loop(n, yes, h)<body = b (int64 i, bool go, float[3,4] v) => (bool on, float[3,4] vn) {
            on = Identity(go) m = my.act(v, p1) vn = Tanh(m) }>
        q = Mul(last, last) loss = ReduceSum<keepdims = 0>(q) }
        <domain: "my", opset_import: ["" : 17]> act (a, b) => (c) { d = MatMul(a, b) c = Sigmoid(d) }"""
    model = onnx.parser.parse_model(text)
    for name in ("p0", "p1"):
        model.graph.initializer.append(numpy_helper.from_array(LOOP_PARAMETERS[name], name))
    feeds = {"x": f(3, 4), "n": np.array(3)}
    _, found = gradients(session, differentiated(model.SerializeToString(), "--wrt", "re:^p"), feeds)
    for name, gradient in differences(session, onnx.inliner.inline_local_functions(model), feeds).items():
        assert np.abs(found[name] - gradient).max() <= TOLERANCE * np.abs(gradient).max(), name


# What cannot be done is said, with the body's node or value.
REFUSED = {
    "an operator without a rule": (IF.replace("a = Mul(u, s)", "w = Unique(u) a = Mul(u, w)"), IF_PARAMETERS, ["--wrt", "re:^p"], "inside its body"),
    "a carried value that grows": (
        LOOP.replace("vn = Tanh(m)", "t = Tanh(m) vn = Concat<axis = 0>(t, m)").replace("float[3,4] vn", "float[6,4] vn"),
        LOOP_PARAMETERS,
        ["--wrt", "re:^p"],
        'changes the shape of the carried value "v", from [3, 4] to [6, 4]',
    ),
    "random numbers of steps that differ": (
        LOOP_IF.replace("s = Mul(w, p2)", "q = RandomNormalLike(w) s = Mul(q, p2)"),
        LOOP_PARAMETERS,
        ["--wrt", "re:^p"],
        "it draws random numbers (RandomNormalLike) inside a loop",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_names_what_stands_in_the_way(tmp_path, what):
    text, parameters, options, reason = REFUSED[what]
    source = tmp_path / "source.onnx"
    source.write_bytes(Case("refused", text, parameters, {}).model().SerializeToString())
    result = per_inject("differentiate", source, "-o", tmp_path / "step.onnx", *options, check=False)
    assert reason in taps.refusal(result)


def test_a_frozen_initializer_of_a_body_stays_what_it_is(tmp_path):
    source = tmp_path / "source.onnx"
    model = Case("frozen", IF_NESTED, {"p0": f(4), "p1": f(3, 4)}, {}).model()
    source.write_bytes(model.SerializeToString())
    per_inject("differentiate", source, "-o", tmp_path / "step.onnx", "--freeze", "k")


def test_what_is_random_in_a_branch_is_drawn_once(session):
    # With y = r·p for a random r, the gradient is the r that the loss saw: loss = Σ r·p and Σ (∂loss/∂p)·p must agree.
    text = """g (float[50] x, bool c) => (float loss) {
        y = If(c)<then_branch = t () => (float[50] a) { r = RandomNormalLike(x) a = Mul(r, p0) }, else_branch = e () => (float[50] b) { b = Mul(x, p0) }>
        loss = ReduceSum<keepdims = 0>(y) }"""
    case = Case("random", text, {"p0": f(50)}, {"x": f(50), "c": TRUE})
    loss, found = gradients(session, differentiated(case.model().SerializeToString(), "--wrt", "p0"), case.feeds)
    assert loss == pytest.approx(float(found["p0"] @ case.parameters["p0"]), rel=1e-4)


def test_shapes_that_only_the_running_graph_knows(session):
    # Dynamic batch and length: nothing about the state but its rank is written down.
    text = SCAN.replace("float[5,3,4]", "float[t,n,4]").replace("float[3,6]", "float[n,6]").replace("float[3,4]", "float[n,4]")
    case = Case("dynamic", text, {**SCAN_PARAMETERS, "p2": f(1, 6)}, {})
    step = differentiated(case.model().SerializeToString(), "--wrt", "re:^p")
    for t, n in ((1, 1), (5, 3), (7, 2)):
        feeds = {"x": f(t, n, 4), "start": f(n, 6)}
        _, found = gradients(session, step, feeds)
        for name, gradient in differences(session, case.model(), feeds).items():
            assert np.abs(found[name] - gradient).max() <= TOLERANCE * np.abs(gradient).max(), name
