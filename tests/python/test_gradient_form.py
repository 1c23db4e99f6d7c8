"""The gradient form on stock ONNX Runtime: what is added to a gradient is the derivative of PER, whatever the shape, type and opset."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, reference

import closed_form
import nets
import taps

COEF = 0.25

SHAPES = {
    "vector": ((7,), "flatten"),
    "last of one": ((7,), "last"),
    "rows": ((5, 3), "flatten"),
    "long rows": ((3, 4096), "flatten"),
    "flatten [N,C,H,W]": ((3, 4, 3, 5), "flatten"),
    "channel [N,C]": ((5, 8), "channel"),
    "channel [N,C,L]": ((2, 16, 5), "channel"),
    "channel [N,C,H,W]": ((2, 70, 3, 4), "channel"),
    "channel [N,C,D,H,W]": ((2, 8, 2, 3, 2), "channel"),
    "last [B,T,D]": ((2, 5, 16), "last"),
    "one column": ((6, 1), "last"),
}
KNOWN = ["static", "symbolic", "unknown"]
# Of unknown rank a view means at least two axes.
SHAPES_KNOWN = [(case, known) for case, (shape, _) in SHAPES.items() for known in KNOWN if known != "unknown" or len(shape) > 1]

RANDOM = np.random.default_rng(5)


def differentiated(dims, elem=nets.FLOAT, opset=17, ir_version=None):
    """A graph that holds the gradient `h_grad` of the activation `h`, fed flat as h is, and hands it on to an output."""
    nodes = [
        helper.make_node("Reshape", ["flat", "shape"], ["h"]),
        helper.make_node("Reshape", ["flat_grad", "shape"], ["h_grad"]),
        helper.make_node("Reshape", ["h_grad", "flat_shape"], ["w_grad.accumulation.out"]),
    ]
    inputs = [("flat", elem, ["n"]), ("flat_grad", elem, ["n"]), ("shape", TensorProto.INT64, ["rank"])]
    flat = {"flat_shape": np.array([-1], np.int64)}
    made = nets.model(nodes, inputs, [("w_grad.accumulation.out", elem, ["n"])], flat, opset=opset, ir_version=ir_version)
    if dims is not None:
        made.graph.value_info.extend(helper.make_tensor_value_info(name, elem, dims) for name in ["h", "h_grad"])
    return made


def feeds(h, incoming):
    return {"flat": h.reshape(-1), "flat_grad": incoming.reshape(-1), "shape": np.array(h.shape, np.int64)}


def known_as(shape, known):
    return {"static": list(shape), "symbolic": [f"d{i}" for i in range(len(shape))], "unknown": None}[known]


def exact_gradient(rows):
    """ℓ'(‖h‖)·h/‖h‖ by central differences, good to some 1e-9."""
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    step = 1e-4
    # Four points: the error is step⁴ and rounding over step.
    at = lambda k: np.array([closed_form.per(row[None] * (1 + k * step / norm))[0] for row, norm in zip(rows, norms)])  # noqa: E731
    slope = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
    return rows * (slope / norms)[:, None]


def sampled_gradient(rows, theta):
    slope = np.vectorize(math.erf)(rows @ theta / math.sqrt(2))
    return slope @ theta.T / theta.shape[1]


def activations(shape):
    h = RANDOM.standard_normal(shape) * 1.5
    return h, RANDOM.standard_normal(shape) * 0.1


def added(session, injected, h, incoming, view, extra=()):
    """What was added to the gradient, as rows, and the outputs `extra`."""
    model = injected.model if extra else injected.data
    if extra:
        declared = {value.name: value for value in model.graph.value_info}
        model.graph.output.extend(declared[name] for name in extra)
    results = session(model).run(["w_grad.accumulation.out", *extra], feeds(h, incoming))
    assert results[0].dtype == h.dtype
    return closed_form.rows(results[0].astype(np.float64).reshape(h.shape) - incoming.astype(np.float64), view), results[1:]


@pytest.mark.parametrize("case, known", SHAPES_KNOWN)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_exact_gradient_is_that_of_the_closed_form(inject, session, case, known, reduction):
    shape, view = SHAPES[case]
    h, incoming = (array.astype(np.float32) for array in activations(shape))
    model = differentiated(known_as(shape, known))
    injected = inject(model, *"--layers tensor:h --estimator exact --coef".split(), COEF, "--view", view, "--reduction", reduction)
    assert injected.report["form"] == "gradient" and injected.report["layers"][0]["gradient"] == "h_grad"
    rows = closed_form.rows(h, view)
    expected = COEF * exact_gradient(rows) / (len(rows) if reduction == "mean" else 1)
    got, _ = added(session, injected, h, incoming, view)
    # κ is right to 1e-6; the sum with the gradient that was there rounds at its magnitude.
    np.testing.assert_allclose(got, expected, atol=2e-6 * np.abs(expected).max() + 1e-7 * np.abs(incoming).max())


@pytest.mark.parametrize("case, known", SHAPES_KNOWN)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_sampled_gradient_is_equation_6_of_the_slices_that_were_drawn(inject, session, case, known, reduction):
    shape, view = SHAPES[case]
    h, incoming = (array.astype(np.float32) for array in activations(shape))
    options = ["--layers", "tensor:h", "--coef", COEF, "--view", view, "--reduction", reduction, "--slices", 32]
    injected = inject(differentiated(known_as(shape, known)), *options)
    normal_name = f"per_inject/{injected.report['layers'][0]['name']}/normal"
    got, [normal] = added(session, injected, h, incoming, view, [normal_name])
    rows = closed_form.rows(h.astype(np.float64), view)
    drawn = closed_form.slices(normal)
    assert drawn.shape == (rows.shape[1], 32)
    expected = COEF * sampled_gradient(rows, drawn) / (len(rows) if reduction == "mean" else 1)
    np.testing.assert_allclose(got, expected, atol=4e-6 * np.abs(expected).max() + 1e-7 * np.abs(incoming).max())


@pytest.mark.parametrize("estimator", ["exact", "sampled"])
@pytest.mark.parametrize("elem, tolerance", [(nets.DOUBLE, 1e-9), (nets.FLOAT16, 2e-3)])
@pytest.mark.parametrize("known", ["static", "symbolic"])
def test_double_and_half_precision_keep_their_type(inject, session, estimator, elem, tolerance, known):
    h, incoming = (array.astype(helper.tensor_dtype_to_np_dtype(elem)) for array in activations((4, 6, 3)))
    model = differentiated(known_as(h.shape, known), elem)
    injected = inject(model, "--layers", "tensor:h", "--view", "channel", "--estimator", estimator, "--coef", 4, "--slices", 16)
    normal_names = [f"per_inject/{injected.report['layers'][0]['name']}/normal"] if estimator == "sampled" else []
    got, normal = added(session, injected, h, incoming, "channel", normal_names)
    rows = closed_form.rows(h.astype(np.float64), "channel")
    if estimator == "sampled":
        expected = sampled_gradient(rows, closed_form.slices(normal[0]))
        # ONNX Runtime has no double Erf, so that one step is taken in float32.
        tolerance = max(tolerance, 1e-6)
    else:
        expected = exact_gradient(rows)
    expected *= 4 / len(rows)
    np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("opset", range(9, 27))
@pytest.mark.parametrize("estimator", ["exact", "sampled"])
def test_every_operator_set_has_what_the_gradient_needs(inject, opset, estimator):
    for view, dims in [("flatten", ["N", 4, 3, 2]), ("channel", ["N", 4, 3, 2]), ("flatten", None), ("channel", ["N", "C", "L"]), ("last", None)]:
        model = differentiated(dims, opset=opset, ir_version=8 if opset < 15 else None)
        # onnx's own check and strict inference see every node.
        injected = inject(model, "--layers", "tensor:h", "--view", view, "--estimator", estimator, "--coef", 1, "--slices", 8)
        h, incoming = (array.astype(np.float32) for array in activations((2, 4, 3, 2) if dims is None or len(dims) == 4 else (2, 4, 3)))
        [got] = reference.ReferenceEvaluator(injected.model).run(["w_grad.accumulation.out"], feeds(h, incoming))
        assert got.dtype == np.float32 and np.isfinite(got).all()
        if estimator == "exact":
            rows = closed_form.rows(h, view)
            expected = exact_gradient(rows) / len(rows)
            got = closed_form.rows(got.astype(np.float64).reshape(h.shape) - incoming, view)
            np.testing.assert_allclose(got, expected, atol=3e-6 * np.abs(expected).max() + 2e-7 * np.abs(incoming).max())


def test_zero_activations_get_no_gradient_and_huge_ones_a_finite_one(inject, session):
    for estimator in ["exact", "sampled"]:
        injected = inject(differentiated([3, 8]), "--layers", "tensor:h", "--estimator", estimator, "--coef", 1)
        h = np.stack([np.zeros(8), np.full(8, 1e18), np.full(8, -1e-30)]).astype(np.float32)
        got, _ = added(session, injected, h, np.zeros_like(h), "flatten")
        assert np.isfinite(got).all(), estimator
        assert (got[0] == 0).all()


def test_values_of_per_come_from_the_same_slices_as_the_gradient(inject, session):
    model = differentiated([5, 4])
    injected = inject(model, "--layers", "tensor:h", "--coef", 1, "--outputs", "per,layers", "--slices", 8)
    assert injected.report["losses"] == [] and injected.report["outputs"] == ["per_inject/per", injected.layers[0]]
    assert len([node for node in injected.model.graph.node if node.op_type == "RandomNormal"]) == 1
    h, incoming = (array.astype(np.float32) for array in activations((5, 4)))
    normal_name = injected.layers[0].removesuffix("per") + "normal"
    exposed = injected.model
    exposed.graph.output.extend(value for value in injected.model.graph.value_info if value.name == normal_name)
    total, per, normal = session(exposed).run(["per_inject/per", injected.layers[0], normal_name], feeds(h, incoming))
    projected = h.astype(np.float64) @ closed_form.slices(normal)
    rho = projected * np.vectorize(math.erf)(projected / math.sqrt(2)) + closed_form.RHO_ZERO * np.exp(-(projected**2) / 2)
    assert per == total == pytest.approx(rho.mean(), rel=1e-6)


@pytest.mark.parametrize("arguments", [["--estimator", "exact"], ["--seed", "1"], ["--share-slices"], ["--outputs", "per,layers"], ["--coef-input"], ["--loss-term"]])
def test_strip_gives_back_every_byte(inject, per_inject, tmp_path, arguments):
    model = differentiated(["N", 3, 4])
    if arguments == ["--loss-term"]:
        model.graph.node.append(helper.make_node("ReduceMean", ["h"], ["loss"], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info("loss", nets.FLOAT, []))
    original = model.SerializeToString()
    once = inject(original, "--layers", "tensor:h", "--coef", 1, *arguments)
    twice = inject(once.data, "--layers", "tensor:h", "--estimator", "exact", "--coef", 2, "--view", "channel")
    (tmp_path / "twice.onnx").write_bytes(twice.data)
    per_inject("strip", tmp_path / "twice.onnx", "-o", tmp_path / "once.onnx")
    assert (tmp_path / "once.onnx").read_bytes() == once.data
    per_inject("strip", tmp_path / "once.onnx", "-o", tmp_path / "none.onnx")
    assert (tmp_path / "none.onnx").read_bytes() == original
    per_inject("strip", "--all", tmp_path / "twice.onnx", "-o", tmp_path / "none.onnx")
    assert (tmp_path / "none.onnx").read_bytes() == original


def test_two_injections_add_up(inject, session):
    h, incoming = (array.astype(np.float32) for array in activations((6, 5)))
    options = ["--layers", "tensor:h", "--estimator", "exact"]
    once = inject(differentiated([6, 5]), *options, "--coef", 1)
    twice = inject(once.data, *options, "--coef", 2)
    assert any("regularised already" in warning for warning in twice.report["warnings"])
    got, _ = added(session, twice, h, incoming, "flatten")
    np.testing.assert_allclose(got, 3 / 6 * exact_gradient(h), atol=1e-6)


def test_readers_inside_bodies_read_the_sum_and_the_gradient_keeps_its_name(inject, session, per_inject, tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[4,3] x, float[4,3] incoming, bool c) => (float[4,3] out) <float[4,3] h, float[4,3] h_grad> {
      h = Relu(x)  h_grad = Identity(incoming)
      out = If(c) <then_branch = t () => (float[4,3] p) { p = Neg(h_grad) }, else_branch = e () => (float[4,3] q) { q = Identity(h_grad) }>
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.output.append(helper.make_tensor_value_info("w_grad.accumulation.out", nets.FLOAT, [4, 3]))
    model.graph.node.append(helper.make_node("Identity", ["x"], ["w_grad.accumulation.out"]))
    original = model.SerializeToString()
    injected = inject(original, "--layers", "relu", "--estimator", "exact", "--coef", 1)
    x = np.abs(RANDOM.standard_normal((4, 3))).astype(np.float32)
    [out] = session(injected.data).run(["out"], {"x": x, "incoming": np.zeros_like(x), "c": np.array(True)})
    np.testing.assert_allclose(out, -exact_gradient(x) / 4, atol=1e-6)
    assert "h_grad" in {name for node in injected.model.graph.node for name in node.output}
    (tmp_path / "m.onnx").write_bytes(injected.data)
    per_inject("strip", tmp_path / "m.onnx", "-o", tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == original


def test_every_added_value_is_declared_with_its_shape(inject):
    for estimator in ["exact", "sampled"]:
        injected = inject(differentiated(["N", 3, 4]), "--layers", "tensor:h", "--estimator", estimator, "--coef", 1).model
        declared = {value.name for value in [*injected.graph.value_info, *injected.graph.output] if value.type.tensor_type.HasField("shape")}
        made = {name for node in injected.graph.node for name in node.output}
        assert made <= declared


def test_a_form_that_the_graph_does_not_have_is_refused_with_the_reason(per_inject, reference, tmp_path):
    onnx.save(differentiated([3, 4]), tmp_path / "backward.onnx")
    forward = reference("mlp_relu.ts17").path
    for model, arguments, words in [
        (tmp_path / "backward.onnx", ["--layers", "tensor:h", "--form", "loss"], "already holds its backward pass"),
        (forward, ["--layers", "relu", "--form", "gradient"], "computes no gradients (forward + loss)"),
        (forward, ["--layers", "relu", "--loss-term"], "--loss-term is for graphs that hold their backward pass"),
        (tmp_path / "backward.onnx", ["--layers", "tensor:h", "--form", "gradient", "--as-output"], "exclude each other"),
        (tmp_path / "backward.onnx", ["--layers", "tensor:h", "--loss", "x"], "add --loss-term"),
        (tmp_path / "backward.onnx", ["--layers", "tensor:h", "--outputs", "task"], "the loss is not touched"),
        (tmp_path / "backward.onnx", ["--layers", "tensor:w_grad.accumulation.out"], "it belongs to the backward pass"),
    ]:
        assert words in taps.refusal(per_inject(model, *arguments, "--coef", 1, "--dry-run", check=False)), arguments


def test_a_layer_without_a_gradient_is_left_out_by_name_and_strict_refuses(per_inject, inject, tmp_path):
    model = differentiated([3, 4])
    model.graph.node.insert(1, helper.make_node("Relu", ["h"], ["r"], name="/side"))
    model.graph.output.append(helper.make_tensor_value_info("r", nets.FLOAT, [3, 4]))
    injected = inject(model, "--layers", "tensor:h,relu", "--coef", 1, "--estimator", "exact")
    [skipped] = injected.report["skipped"]
    assert "/side" in skipped["what"] and "the graph computes no gradient of it" in skipped["reason"]
    onnx.save(model, tmp_path / "m.onnx")
    run = per_inject(tmp_path / "m.onnx", "--layers", "tensor:h,relu", "--coef", 1, "--strict", "--dry-run", check=False)
    assert "--strict" in taps.refusal(run)
