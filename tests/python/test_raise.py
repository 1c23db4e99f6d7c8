"""`differentiate --opset N`: the raised graph computes what the original does, and so do its gradients; what is not known is refused."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re

import numpy as np
import onnx
import onnx.defs
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

import gradient_cases
import gradient_corpus
import gradient_ops
import lowering
import ort
import taps
from command import per_inject
from lowering_cases import CASES as LOWERED
from test_differentiate import differentiated
from test_differentiate_flow import TOLERANCE, Case, differences, f

TABLE = pathlib.Path(__file__).parents[2] / "src/autodiff/raise/operators.txt"
OLDEST, NEWEST = 9, 26

# The same kernels, in float32, but for Softmax along another axis.
SAME = 1e-6


def rows() -> dict[str, dict[int, str]]:
    lines = [line.split() for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    split = lambda word: re.fullmatch(r"(\d+)(|\+|:\w+)", word).groups()
    return {op: {int(version): mark for version, mark in map(split, words)} for op, *words in lines}


def schemas() -> dict[str, list]:
    found = collections.defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= NEWEST:
            found[schema.name].append(schema)
    return {name: sorted(versions, key=lambda s: s.since_version) for name, versions in found.items()}


def attributes(schema) -> dict:
    return {a.name: (str(a.type), a.required, str(a.default_value)) for a in schema.attributes.values()}


def parameters(schema) -> list:
    return [(p.name, str(p.option)) for p in [*schema.inputs, *schema.outputs]]


def test_every_version_of_every_operator_is_in_the_table():
    listed = {name: list(versions) for name, versions in rows().items()}
    assert listed == {name: [s.since_version for s in versions[1:] if s.since_version > OLDEST] for name, versions in schemas().items()}


def test_versions_that_are_said_to_change_nothing_have_the_same_signature():
    for name, versions in schemas().items():
        for old, new in zip(versions, versions[1:]):
            if rows()[name].get(new.since_version) == "":
                assert attributes(old) == attributes(new), (name, new.since_version)
                assert parameters(old) == parameters(new), (name, new.since_version)
                assert not new.deprecated, (name, new.since_version)


def test_versions_that_are_said_to_add_something_keep_what_there_was():
    for name, versions in schemas().items():
        for old, new in zip(versions, versions[1:]):
            if rows()[name].get(new.since_version) != "+":
                continue
            label = (name, new.since_version)
            for attribute, (kind, required, default) in attributes(old).items():
                now = attributes(new)[attribute]
                assert (now[0], now[2]) == (kind, default) and now[1] <= required, (*label, attribute)
            assert not any(a[1] for n, a in attributes(new).items() if n not in attributes(old)), label
            for before, after in ((old.inputs, new.inputs), (old.outputs, new.outputs)):
                assert [p.name for p in after][: len(before)] == [p.name for p in before], label
                is_optional = lambda p: p.option == onnx.defs.OpSchema.FormalParameterOption.Optional
                assert all(is_optional(b) <= is_optional(a) for b, a in zip(before, after)), label
                assert all(map(is_optional, after[len(before) :])), label


def outputs(step: bytes, feeds: dict) -> dict[str, np.ndarray]:
    # Optimised, it makes a Swish of a Sigmoid in operator sets 24 and later, and has no kernel of that.
    session = ort.session(step, "disabled")
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def opset(step: bytes) -> int:
    [found] = [o.version for o in onnx.load_from_string(step).opset_import if o.domain == ""]
    return found


def old(name, body, opset, parameters=None, x="3,4,5", shape=(3, 4, 5), **feeds):
    """`body` makes y from h; the loss is the mean of y² (or of what y ends as)."""
    text = f"g (float[{x}] x{''.join(f', {v}' for v in feeds.pop('inputs', ()))}) => (float loss) {{ h = Mul(x, p0) {body} q = Mul(y, y) loss = ReduceMean<keepdims = 0>(q) }}"
    return Case(f"{name}-{opset}", text, {"p0": f(*[1] * len(shape)), **(parameters or {})}, {"x": f(*shape), **feeds}, opset)


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

# Forms that later operator sets no longer have, or give another meaning.
OLD = [
    *(
        old(f"{op}-{axis}-{rank}", f"y0 = {op}<axis = {axis}>(h) y = Mul(y0, p1)" if op != "Hardmax" else f"y0 = {op}<axis = {axis}>(h) y = Mul(y0, h)", 11, {"p1": f(5)}, x=rank)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for axis in (0, 1, 2, -1, -2)
        for rank in ("3,4,5", "a,b,c")
    ),
    *(old(f"Softmax-default-{rank}", "y0 = Softmax(h) y = Mul(y0, p1)", o, {"p1": f(5)}, x=rank) for rank in ("3,4,5", "n,4,5") for o in (9, 12)),
    old("Softmax-matrix", "y0 = Softmax(h) y = Mul(y0, p1)", 12, {"p1": f(5)}, x="n,5", shape=(3, 5)),
    *(old(f"Reduce{r}-{keep}", f"a = Mul(h, h) y = Reduce{r}<axes = [1, 2], keepdims = {keep}>(a)", o) for r in REDUCTIONS for keep in (0, 1) for o in (9, 12)),
    *(old(f"Reduce{r}-all", f"a = Mul(h, h) y = Reduce{r}<keepdims = 0>(a)", 12) for r in REDUCTIONS if r != "Prod"),
    *(old(f"Reduce{r}-17", f"a = Mul(h, h) y = Reduce{r}<axes = [-1]>(a)", 17) for r in REDUCTIONS if r != "Sum"),
    *(old("Squeeze", "u = Unsqueeze<axes = [0, 2]>(h) e = Exp(u) y = Squeeze<axes = [0, 2]>(e)", o) for o in (9, 12)),
    old("Squeeze-all", "u = Unsqueeze<axes = [0, 2]>(h) e = Exp(u) y = Squeeze(e)", 12),
    old("Slice", "y = Slice<starts = [1, -4], ends = [9000, -1], axes = [0, 2]>(h)", 9),
    old("Slice-no-axes", "y = Slice<starts = [1, 0, 2], ends = [3, 2, 100]>(h)", 9),
    *(old(f"Pad-{mode}", f'y = Pad<mode = "{mode}", pads = [0, 1, 2, 0, 1, 0]>(h)', 9) for mode in ("constant", "edge", "reflect")),
    old("Pad-value", "y = Pad<pads = [0, 1, 2, 0, -1, 0], value = 0.5>(h)", 10),
    old("Clip", "y = Clip<min = -0.4, max = 0.6>(h)", 9),
    old("Clip-min", "y = Clip<min = -0.4>(h)", 10),
    old("Clip-nothing", "y = Clip(h)", 10),
    *(old("Dropout", "e = Exp(h) y = Dropout<ratio = 0.3>(e)", o) for o in (9, 10, 11)),
    old("Dropout-default", "e = Exp(h) y = Dropout(e)", 9),
    old("TopK", "y, i = TopK<axis = 1, k = 2>(h)", 9),
    old("TopK-input", "k = Constant<value = int64[1] {2}>() y, i = TopK<axis = 1>(h, k)", 10),
    *(old("Split", "a, b = Split<axis = 1, split = [1, 3]>(h) y = Mul(a, b)", o) for o in (9, 12)),
    *(old("Split-even", "a, b = Split<axis = 1>(h) y = Mul(a, b)", o) for o in (9, 11, 13, 17)),
    *(old("BatchNormalization", "y = BatchNormalization(h, p1, p2, m, v)", o, {"p1": f(4), "p2": f(4), "m": f(4), "v": f(4) ** 2}) for o in (9, 13, 14)),
    old("Scatter", "y = Scatter<axis = 1>(h, i, p1)", 9, {"p1": f(3, 2, 5)}, inputs=["int64[3,2,5] i"], i=np.tile(np.array([[0], [2]], np.int64), (3, 1, 5))),
    *(old("ConvTranspose", "y = ConvTranspose<strides = [2], pads = [1, 0]>(h, p1)", o, {"p1": f(4, 2, 3)}) for o in (9, 10)),
    *(old("AveragePool", "y = AveragePool<kernel_shape = [3], strides = [2], pads = [1, 1]>(h)", o) for o in (9, 11, 18)),
    *(old("LpPool", "y = LpPool<kernel_shape = [2]>(h)", o) for o in (9, 11, 18)),
    *(old("LSTM", "a, y, c = LSTM<hidden_size = 2>(h, p1, p2, p3)", o, {"p1": f(1, 8, 5), "p2": f(1, 8, 2), "p3": f(1, 16)}) for o in (9, 13)),
    *(old("Gemm", "r = Reshape(h, s) y = Gemm<transB = 1>(r, p1, p2)", o, {"p1": f(3, 5), "p2": f(3), "s": np.array([-1, 5])}) for o in (9, 10, 13)),
    *(
        old(f"Upsample-{mode}-{'-'.join(map(str, scales))}", f'y = Upsample<mode = "{mode}">(h, s)', 9, {"s": np.array(scales, np.float32)}, x="1,2,3,4", shape=(1, 2, 3, 4))
        for mode in ("nearest", "linear")
        for scales in ((1, 1, 2, 3), (1, 1, 1.5, 1))
    ),
    *(
        old(f"Resize-scales-{mode}-{where}", f'y = Resize<mode = "{mode}", coordinate_transformation_mode = "{where}">(h, roi, s)', o, {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 1.6, 0.5], np.float32)}, x="1,2,5,6", shape=(1, 2, 5, 6))
        for mode in ("nearest", "linear", "cubic")
        for where in ("asymmetric", "align_corners", "pytorch_half_pixel")
        for o in (11, 13, 18)
    ),
    # ONNX Runtime rounds up where a size shrinks.
    *(
        old(f"Resize-10-{mode}-{'-'.join(map(str, scales))}", f'y = Resize<mode = "{mode}">(h, s)', 10, {"s": np.array([1, 1, *scales], np.float32)}, x="1,2,5,6", shape=(1, 2, 5, 6))
        for mode, scales in (("nearest", (2, 1.3)), ("nearest", (0.6, 1)), ("nearest", (0.4, 0.75)), ("linear", (1.6, 2)), ("linear", (0.6, 1.5)))
    ),
    *(
        old(f"Resize-tf-{rounding}-{'-'.join(map(str, scales))}", f'y = Resize<mode = "nearest", coordinate_transformation_mode = "tf_half_pixel_for_nn", nearest_mode = "{rounding}">(h, roi, s)', 11, {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, *scales], np.float32)}, x="1,2,5,6", shape=(1, 2, 5, 6))
        for rounding in ("floor", "round_prefer_floor")
        for scales in ((2, 3), (0.6, 1.4), (0.5, 0.5))
    ),
    # No window begins in the padding, or none reaches behind what counts.
    old("MaxPool-ceil", "y = MaxPool<kernel_shape = [2], strides = [2], ceil_mode = 1>(h)", 12),
    old("MaxPool-ceil-pads", "y = MaxPool<kernel_shape = [3], strides = [2], pads = [1, 1], ceil_mode = 1>(h)", 12),
    old("AveragePool-ceil", "y = AveragePool<kernel_shape = [2], strides = [2], ceil_mode = 1>(h)", 11),
    old("AveragePool-ceil-included", "y = AveragePool<kernel_shape = [2], strides = [3], pads = [0, 0], ceil_mode = 1, count_include_pad = 1>(h)", 11),
    *(old(f"OneHot-{axis}", f"o = OneHot<axis = {axis}>(i, d, k2) r = ReduceSum<axes = [0, 1], keepdims = 0>(o) y = Mul(h, r)", o, {"d": np.array([5]), "k2": f(2)}, inputs=["int64[2,6] i"], i=np.array([[0, 4, 1, 1, 3, 9], [2, 2, 4, 0, 0, 5]])) for axis in (-1, 2) for o in (9, 10)),
    old("DFT", "t = DFT(k) u = DFT<axis = 2, onesided = 1>(k) v = DFT<axis = -2, inverse = 1>(k) t1 = Reshape(t, flat) u1 = Reshape(u, flat) v1 = Reshape(v, flat) w = ReduceSum<keepdims = 0>(t1) r = ReduceSum<keepdims = 0>(u1) s = ReduceSum<keepdims = 0>(v1) a = Mul(h, w) b = Mul(h, r) c = Mul(h, s) y = Sum(a, b, c)", 17, {"k": f(2, 4, 6, 1), "flat": np.array([-1])}),
    # As PyTorch writes it: no scales beside sizes.
    old("Resize-sizes", 'y = Resize<mode = "linear">(h, none, none, s)', 11, {"none": np.zeros(0, np.float32), "s": np.array([1, 2, 7, 3])}, x="1,2,5,6", shape=(1, 2, 5, 6)),
    old("Resize-sizes", 'y = Resize<mode = "nearest", nearest_mode = "floor">(h, , , s)', 13, {"s": np.array([1, 2, 7, 3])}, x="1,2,5,6", shape=(1, 2, 5, 6)),
    *(
        old(f"GridSample-{mode or 'default'}", f"y = GridSample{f'<mode = {chr(34)}{mode}{chr(34)}>' if mode else ''}(h, p1)", 16, {"p1": f(1, 3, 2, 2) / 3}, x="1,2,5,6", shape=(1, 2, 5, 6))
        for mode in ("bilinear", "bicubic", "nearest", "")
    ),
    old("GroupNormalization", "y = GroupNormalization<num_groups = 2>(h, p1, p2)", 18, {"p0": f(1, 6, 5), "p1": f(2), "p2": f(2)}, x="n,6,5", shape=(2, 6, 5)),
    # Both bodies change, and the inner one of two.
    old(
        "If",
        """c = Less(z, one) y = If(c)<then_branch = t () => (float[3,5] a) { s = Softmax<axis = 2>(h) b = Mul(s, p1) a = ReduceSum<axes = [1], keepdims = 0>(b) },
            else_branch = e () => (float[3,5] r) { d = Not(c) r = If(d)<then_branch = tt () => (float[3,5] aa) { aa = ReduceMean<axes = [1], keepdims = 0>(h) },
                else_branch = te () => (float[3,5] ab) { ab = ReduceMax<axes = [1], keepdims = 0>(h) }> }>""",
        12,
        {"p1": f(5), "one": np.array(1, np.float32)},
        inputs=["float z"],
        z=np.array(0, np.float32),
    ),
    old(
        "Scan",
        """s0, y = Scan<num_scan_inputs = 1, body = b (float[4,5] s, float[4,5] v) => (float[4,5] t, float[4,5] w) {
            m = ReduceSum<axes = [1]>(v) u = Squeeze<axes = [1]>(m) k = Unsqueeze<axes = [1]>(u) n = Add(s, k) t = Tanh(n) w = Mul(t, v) }>(p1, h)""",
        12,
        {"p1": f(4, 5)},
    ),
]


# Of these there is no gradient, or no such operator, in older operator sets.
SINCE = {"TopK": 11, "Upsample": 11, "ReduceMax": 11, "ReduceMin": 11, "Scatter": 11, "Pad-edge": 11, "Pad-reflect": 11, "OneHot": 11}


def of_a_square(case) -> dict[str, np.ndarray]:
    """Central differences in float32, where there is no float64 kernel: the loss is a square in p0, of which any step gives the derivative."""
    loss = lambda by: float(outputs(dataclasses.replace(case, parameters=case.parameters | {"p0": case.parameters["p0"] + np.float32(by)}).model().SerializeToString(), case.feeds)["loss"])
    return {"p0": np.full(case.parameters["p0"].shape, loss(0.5) - loss(-0.5))}


def reference(session, case) -> dict[str, np.ndarray]:
    """Central differences; for Hardmax, GridSample and Upsample, which have no float64 kernel in their old meaning, the gradients before raising."""
    model = case.model()
    if case.name.startswith(("Resize-10", "Resize-tf", "OneHot")):
        return of_a_square(case)
    if case.name.startswith(("Hardmax", "GridSample", "Upsample")):
        step = outputs(differentiated(model.SerializeToString(), "--wrt", "re:^p"), case.feeds)
        return {name.removesuffix("_grad"): value for name, value in step.items() if name.endswith("_grad")}
    try:
        return differences(session, model, case.feeds)
    except (ort_errors.NotImplemented, ort_errors.RuntimeException):
        # Some old operators have no float64 kernel either.
        return lowering.differences(model, case.feeds)


@pytest.mark.parametrize("case", OLD, ids=lambda case: case.name)
def test_old_forms_keep_outputs_and_gradients_in_every_newer_operator_set(session, case):
    model = case.model()
    source = model.SerializeToString()
    expected = outputs(source, case.feeds)
    gradients = reference(session, case)
    since = max([SINCE[name] for name in SINCE if case.name.startswith(name)], default=OLDEST)
    for to in range(max(case.opset + 1, since), NEWEST + 1):
        step = differentiated(source, "--wrt", "re:^p", "--opset", to)
        assert opset(step) == to
        found = outputs(step, case.feeds)
        assert abs(found["loss"] - expected["loss"]) <= SAME * abs(expected["loss"]), to
        for name, gradient in gradients.items():
            # Where the loss is flat in a parameter there may be no gradient of it.
            given = found.get(f"{name}_grad", np.zeros_like(gradient))
            assert np.abs(given - gradient).max() <= TOLERANCE * max(np.abs(gradient).max(), 1e-3), (to, name)


@pytest.mark.parametrize("to", (14, 18, 22, NEWEST))
def test_operators_keep_outputs_and_gradients_or_are_refused_with_a_reason(tmp_path, to):
    """The cases of the gradient rules, in their own operator set and in newer ones."""
    kinds = collections.Counter()
    for case in [*LOWERED, *gradient_cases.CASES]:
        if not OLDEST <= case.opset < to or not case.has_kernel or case.functions:
            continue
        source, target = tmp_path / "source.onnx", tmp_path / "step.onnx"
        source.write_bytes(case.model(False).SerializeToString())
        arguments = ["differentiate", source, "-o", target, "--loss", "loss", "--wrt", "re:^p"]
        if per_inject(*arguments, check=False).returncode:
            kinds["not differentiated"] += 1
            continue
        try:
            expected = outputs(target.read_bytes(), case.all_feeds())
        except ort_errors.NotImplemented:
            kinds["no kernel"] += 1
            continue
        run = per_inject(*arguments, "--opset", to, check=False)
        if run.returncode:
            reason = taps.refusal(run)
            assert f"cannot be raised from operator set {case.opset} to {to}: node" in reason, (case.name, reason)
            kinds["refused"] += 1
            continue
        onnx.checker.check_model(str(target), full_check=True)
        try:
            found = outputs(target.read_bytes(), case.all_feeds())
        except ort_errors.NotImplemented:
            # ONNX Runtime has fewer operators in the newest sets, functions that it spells out among them.
            kinds["no kernel"] += 1
            evaluator = ReferenceEvaluator(onnx.load(target), new_ops=gradient_ops.ALL)
            stored = {t.name: numpy_helper.to_array(t) for t in evaluator.proto_.graph.initializer}
            fed = {**{n: stored[n] for n in evaluator.input_names if n in stored}, **case.all_feeds()}
            found = dict(zip(evaluator.output_names, evaluator.run(None, fed)))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert np.abs(found[name] - value).max(initial=0) <= 1e-5 * np.abs(value).max(initial=1e-3), (case.name, name)
        restored = tmp_path / "restored.onnx"
        per_inject("strip", target, "-o", restored)
        assert restored.read_bytes() == source.read_bytes(), case.name
        kinds["same"] += 1
    print(to, kinds)
    assert kinds["same"] > 5 * kinds["refused"] and kinds["same"] >= 10 and kinds["no kernel"] <= 3


REFUSALS = [
    ("Resize-10", "y = Resize(h, mixed)", 10, 13, "it rounds down where it grows and up where it shrinks"),
    ("Resize-10-open", "t = Abs(s) y = Resize(h, t)", 10, 13, "how it rounds depends on its scales, which are known only to the running graph"),
    ("tf", 'y = Resize<coordinate_transformation_mode = "tf_half_pixel_for_nn", nearest_mode = "ceil">(h, s, s)', 11, 13, "tf_half_pixel_for_nn is gone since operator set 13"),
    ("groups", "y = GroupNormalization<num_groups = 3>(h, s, s)", 18, 21, "num_groups does not divide the number of its channels"),
    ("mask-column", "y = Attention<q_num_heads = 1, kv_num_heads = 1>(h, h, h, column)", 23, 24, "a mask of one column was for all keys"),
    ("mask-open", "t = Compress<axis = 1>(wide, flags) y = Attention<q_num_heads = 1, kv_num_heads = 1>(h, h, h, t)", 23, 24, "a mask of one column was for all keys"),
    ("ceil-mode", "y = MaxPool<kernel_shape = [2], strides = [3], pads = [0, 1], ceil_mode = 1>(h)", 12, 22, "ceil_mode counts windows that begin in the padding otherwise"),
    ("mask", "y, mask = Dropout(h)", 9, 13, "its mask is of booleans since operator set 10"),
    ("statistics", "y, m1, v1, m2, v2 = BatchNormalization(h, p1, p1, p1, p1)", 9, 15, "which ask for training, are others since operator set 14"),
    ("pads", 'y = ConvTranspose<auto_pad = "SAME_UPPER", strides = [2]>(h, k)', 9, 11, "pads that it works out itself go to other ends"),
    ("body", "y = If(c)<then_branch = t () => (float[3,4,5] a) { a = Clip<min = 0.0>(h) }, else_branch = e () => (float[3,4,5] b) { b = Exp(h) }>", 10, 13, "in its body, Clip: the element type of its input is not known"),
    ("down", "y = Exp(h)", 13, 12, "--opset goes up, not down"),
    ("unknown", "y = Exp(h)", 13, 27, "26 is the newest that is known"),
]


@pytest.mark.parametrize("name, body, opset, to, reason", REFUSALS, ids=[r[0] for r in REFUSALS])
def test_what_may_mean_something_else_is_refused_with_the_node_and_the_version(tmp_path, name, body, opset, to, reason):
    source, target = tmp_path / "source.onnx", tmp_path / "step.onnx"
    parameters = {"p1": f(4), "k": f(4, 2, 3), "s": f(4), "c": np.array(True), "mixed": np.array([1, 0.5, 2], np.float32), "column": f(4, 1), "wide": f(4, 4), "flags": np.ones(4, bool)}
    source.write_bytes(old(name, body, opset, parameters).model().SerializeToString())
    run = per_inject("differentiate", source, "-o", target, "--wrt", "re:^p", "--opset", to, check=False)
    assert f"cannot be raised from operator set {opset} to {to}: " in taps.refusal(run)
    assert reason in taps.refusal(run)
    assert not target.exists()


def test_a_model_with_functions_is_refused(tmp_path):
    text = '''<ir_version: 8, opset_import: ["" : 13, "own" : 1]> g (float[3] x) => (float loss) <float[3] p = {1, 2, 3}> {
        h = Mul(x, p) y = own.f(h) loss = ReduceSum<keepdims = 0>(y) } <domain: "own", opset_import: ["" : 13]> f (a) => (b) { b = Exp(a) }'''
    source = tmp_path / "source.onnx"
    source.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    run = per_inject("differentiate", source, "-o", tmp_path / "step.onnx", "--opset", 18, check=False)
    assert "it has functions of its own; inline them first" in taps.refusal(run)


def test_a_gradient_that_needs_a_newer_operator_set_gets_it(session, tmp_path):
    """Repeated indices are summed by ScatterElements, which can do that since 16; before, only where no other axis is cut."""
    body = "y = GatherElements<axis = 1>(h, i)"
    case = old("GatherElements", body, 12, {"p0": f(3, 4, 5)}, inputs=["int64[2,3,4] i"], i=np.random.default_rng(2).integers(-4, 4, (2, 3, 4)))
    model = case.model()
    source, target = tmp_path / "source.onnx", tmp_path / "step.onnx"
    source.write_bytes(model.SerializeToString())
    run = per_inject("differentiate", source, "-o", target, "--wrt", "re:^p", check=False)
    assert "needs operator set 16" in taps.refusal(run)
    found = outputs(differentiated(source.read_bytes(), "--wrt", "re:^p", "--opset", 16), case.feeds)
    gradient = differences(session, model, case.feeds)["p0"]
    assert np.abs(gradient).max() > 0
    assert np.abs(found["p0_grad"] - gradient).max() <= TOLERANCE * np.abs(gradient).max()


def is_close(found: np.ndarray, expected: np.ndarray) -> bool:
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1e-3)
    return np.allclose(found, expected, rtol=0, atol=1e-9 * scale, equal_nan=True)


def is_valid(path) -> bool:
    """Of some tests the declared types are not what the operators make in float64."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


@pytest.mark.parametrize("part", range(8))
def test_operator_tests_of_onnx_have_the_same_gradients_in_the_newest_operator_set(tmp_path, part):
    """In float64, where both operator sets have a step graph; what is not raised is refused by the table."""
    marks, kinds = rows(), collections.Counter()
    source, target, restored = (tmp_path / f"{name}.onnx" for name in ("source", "step", "restored"))
    for test in gradient_corpus.node_tests()[part::8]:
        is_ours = all(node.domain in ("", "ai.onnx") for node in test.model.graph.node)
        if not OLDEST <= test.opset < NEWEST or not is_ours or gradient_corpus.RANDOM & set(test.operators):
            continue
        problem = gradient_corpus.problem(test)
        if problem is None:
            continue
        source.write_bytes(problem.model.SerializeToString())
        names = ",".join(n.replace(",", "\\,") for n in problem.moved)
        arguments = ["differentiate", source, "-o", target, "--loss", "the_loss", "--wrt", names]
        if per_inject(*arguments, check=False).returncode:
            kinds["not differentiated"] += 1
            continue
        expected = gradient_corpus.gradients(target.read_bytes(), problem.feeds)
        run = per_inject(*arguments, "--opset", NEWEST, check=False)
        if run.returncode:
            reason = taps.refusal(run)
            revised = [o for o in test.operators if any(v > test.opset and m not in ("", "+") for v, m in marks.get(o, {}).items())]
            assert "cannot be raised" in reason and revised, (test.name, reason)
            kinds["refused"] += 1
            continue
        # Statistics of a float64 LayerNormalization are float32 by default, and are declared as float64.
        made = {node.op_type for node in onnx.load(target).graph.node}
        if "LayerNormalization" not in made and is_valid(source):
            onnx.checker.check_model(str(target), full_check=True)
            kinds["checked"] += 1
        found = gradient_corpus.gradients(target.read_bytes(), problem.feeds)
        per_inject("strip", target, "-o", restored)
        assert restored.read_bytes() == source.read_bytes(), test.name
        assert found.keys() == expected.keys(), test.name
        if not all(is_close(found[name], value) for name, value in expected.items()):
            # The step graph of the older operator set needs the reference evaluator then, whose MaxPool gives other
            # indices than ONNX Runtime where it pads by itself. Differences decide.
            error, where = gradient_corpus.worst_error(problem, found)
            assert error <= gradient_corpus.TOLERANCE, (test.name, where)
            kinds["by differences"] += 1
        kinds["same"] += 1
    print(kinds)
    assert kinds["same"] > 5 * kinds["refused"] and kinds["same"] >= 50 and kinds["checked"] > 0.9 * kinds["same"]
    assert kinds["by differences"] <= 0.05 * kinds["same"]
