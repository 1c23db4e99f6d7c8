"""Step graphs of `differentiate` on stock ONNX Runtime, against PyTorch's float64 gradients."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import gradient_cases
import models
import taps
from command import per_inject
from lowering import differences
from lowering_cases import CASES
from test_reference_values import ACTIVATION, LOSS_TOLERANCE, VIEWS

# Over the largest entry of each parameter's gradient; single precision in sums of up to 16,000 terms, 20 layers deep.
TOLERANCE = 1e-4


def differentiated(model, *options) -> bytes:
    """The step graph, checked by onnx, strict shape inference included."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "model.onnx"), Path(folder, "step.onnx")
        source.write_bytes(model if isinstance(model, bytes) else Path(model).read_bytes())
        per_inject("differentiate", source, "-o", target, *options)
        onnx.checker.check_model(str(target), full_check=True)
        onnx.shape_inference.infer_shapes(onnx.load(target), strict_mode=True, data_prop=True)
        restored = Path(folder, "restored.onnx")
        per_inject("strip", target, "-o", restored)
        assert restored.read_bytes() == source.read_bytes()
        return target.read_bytes()


def gradients(session, step: bytes, feeds: dict) -> tuple[float, dict]:
    run = session(step)
    names = [output.name for output in run.get_outputs()]
    values = dict(zip(names, run.run(None, feeds)))
    suffix = "_grad"
    return float(values["loss"]), {n.removesuffix(suffix): v for n, v in values.items() if n.endswith(suffix)}


@pytest.mark.parametrize("kind", models.KINDS)
@pytest.mark.parametrize("name", models.NAMES)
def test_loss_and_gradients_are_those_of_pytorch(reference, inject, session, name, kind):
    model = reference(name)
    expected = model.gradients(kind)
    source = model.path
    if kind != "vanilla":
        options = ["--layers", ACTIVATION[model.family], "--view", VIEWS[kind], "--estimator", "exact", "--coef", expected.coef]
        source = inject(model.path, *options).data
    loss, found = gradients(session, differentiated(source), model.feeds)
    assert loss == pytest.approx(expected.loss, rel=LOSS_TOLERANCE)
    held = {n: g for n, g in found.items() if n in model.trainable}
    errors = model.errors(held, kind)
    assert max(errors.values()) <= TOLERANCE, errors


def read_inside(graph: onnx.GraphProto) -> set[str]:
    """The names that a body's nodes and its outputs read."""
    names = {output.name for output in graph.output}
    for node in graph.node:
        names |= set(node.input)
        for attribute in node.attribute:
            names |= read_inside(attribute.g)
    return names


@pytest.mark.parametrize("estimator", [None, "exact", "sampled", "structured"])
@pytest.mark.parametrize("name", models.NAMES)
def test_nothing_is_computed_that_nobody_reads(reference, inject, name, estimator):
    """Down to the inputs of the last node: what only an unread node reads is unread too. The forward pass is the exporter's."""
    model = reference(name)
    source = model.path
    if estimator:
        source = inject(model.path, "--layers", ACTIVATION[model.family], "--estimator", estimator, "--coef", 1e-3).data
    forward = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
    written = {name for node in forward.graph.node for name in node.output}
    graph = onnx.load_from_string(differentiated(source, "--optimizer", "adamw")).graph
    read = {output.name for output in graph.output}
    unread = []
    for node in reversed(graph.node):
        if read.isdisjoint(node.output) and written.isdisjoint(node.output):
            unread.append(node.name)
            continue
        read |= set(node.input)
        read = read.union(*(read_inside(a.g) for a in node.attribute))
    assert not unread
    assert {i.name for i in graph.initializer} <= read | {i.name for i in forward.graph.initializer}


# One operator at a time, each against central differences in float64, with the tolerance of test_lowering_operators.py.
OPERATOR_TOLERANCE = 2e-4

EACH = [pytest.param(case, is_open, id=f"{case.name}{'-open' if is_open else ''}") for case in [*CASES, *gradient_cases.CASES] for is_open in (False, True)]

# Lowering unrolls these and needs a fixed length; a Scan does not.
SCANNED = {f"RNN-{form}" for form in ("both-outputs", "last-bidirectional", "bare", "bias", "last", "bidirectional", "reverse")}


def refusal(case, is_open) -> str | None:
    if case.opset < 9:
        return f"the model imports operator set {case.opset}"
    # What has no rule of its own is spelt out by the lowering, where that can be done.
    if is_open and case.name.startswith("Gather-"):
        return None
    if is_open and case.refused_open and case.name not in SCANNED:
        return case.refused_open
    return None


@pytest.mark.parametrize("case, is_open", EACH)
def test_an_operators_gradient_is_that_of_float64_differences(tmp_path, session, case, is_open):
    model, options = case.model(is_open), ["--loss", "loss", "--wrt", "re:^p"]
    source = tmp_path / "source.onnx"
    source.write_bytes(model.SerializeToString())
    if reason := refusal(case, is_open):
        result = per_inject("differentiate", source, "-o", tmp_path / "step.onnx", *options, check=False)
        assert reason in taps.refusal(result)
        return
    _, found = gradients(session, differentiated(source, *options), case.all_feeds())
    expected = differences(model, case.all_feeds())
    assert expected, "the case trains nothing"
    floor = 1e-3 * max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in expected.items():
        if name not in found:
            assert np.abs(gradient).max() == 0
            continue
        assert found[name].shape == gradient.shape
        error = np.abs(found[name] - gradient).max() / max(np.abs(gradient).max(), floor)
        assert error <= OPERATOR_TOLERANCE, f"{name}: {error:.1e}"


# One step of each optimiser is written down here once more, in float64; formulas as PyTorch documents them.
def _sgd(p, g, state, t, lr):
    return p - lr * (g + 0.01 * p), state


def _momentum(p, g, state, t, lr, nesterov=False):
    g = g + 0.01 * p
    m = 0.9 * state.get("momentum", 0) + g
    return p - lr * (g + 0.9 * m if nesterov else m), {"momentum": m}


def _adam(p, g, state, t, lr, decoupled=False):
    g, p = (g, p * (1 - lr * 0.01)) if decoupled else (g + 0.01 * p, p)
    m = 0.9 * state.get("mean", 0) + 0.1 * g
    v = 0.999 * state.get("square", 0) + 0.001 * g**2
    return p - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), {"mean": m, "square": v}


def _rmsprop(p, g, state, t, lr):
    g = g + 0.01 * p
    v = 0.99 * state.get("square", 0) + 0.01 * g**2
    return p - lr * g / (np.sqrt(v) + 1e-8), {"square": v}


OPTIMIZERS = {
    "sgd": _sgd,
    "momentum": _momentum,
    "nesterov": lambda *a: _momentum(*a, nesterov=True),
    "adam": _adam,
    "adamw": lambda *a: _adam(*a, decoupled=True),
    "rmsprop": _rmsprop,
}


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_a_resized_axis_is_as_long_as_onnx_runtime_makes_it(session, mode):
    """It rounds 5 · 1.4 to 7 in float32, although float32's 1.4 is smaller; onnx's reference makes 6 of it."""
    text = f"""<ir_version: 8, opset_import: ["" : 18]> g (float[1,2,5,10] x) => (float loss) <float[4] s = {{1, 1, 1.4, 0.7}}> {{
        h = Mul(x, p0) y = Resize<mode = "{mode}">(h, , s) t = Sin(y) loss = ReduceSum<keepdims = 0>(t) }}"""
    model, random = onnx.parser.parse_model(text), np.random.default_rng(3)
    model.graph.initializer.append(onnx.numpy_helper.from_array(random.standard_normal((2, 5, 10)).astype(np.float32), "p0"))
    feeds = {"x": random.standard_normal((1, 2, 5, 10)).astype(np.float32)}
    loss, found = gradients(session, differentiated(model.SerializeToString(), "--wrt", "p0"), feeds)
    assert loss == pytest.approx(float(session(model.SerializeToString()).run(["loss"], feeds)[0]), rel=1e-5)
    # Differences over this step are off by some 1e-4 (their third order), and by as much for the float32 that the loss is summed in.
    step, expected = 1e-2, np.zeros((2, 5, 10))
    [p0] = [t for t in model.graph.initializer if t.name == "p0"]
    start = onnx.numpy_helper.to_array(p0).copy()
    for place in np.ndindex(start.shape):
        values = []
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * step
            p0.CopyFrom(onnx.numpy_helper.from_array(moved, "p0"))
            values.append(float(session(model.SerializeToString()).run(["loss"], feeds)[0]))
        expected[place] = (values[0] - values[1]) / (2 * step)
    assert np.abs(found["p0"] - expected).max() <= 1e-3 * np.abs(expected).max()



@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fifty_steps_are_those_of_the_formulas_in_float64(session, optimizer):
    # Gradients do not depend on the parameters' history here: loss = Σ w·(p − a)² has them in closed form.
    rng = np.random.default_rng(5)
    p, a, w = rng.normal(size=(3, 4, 5))
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[4,5] a, float[4,5] w) => (float loss) <float[4,5] p = {0}> {
             d = Sub(p, a) s = Mul(d, d) m = Mul(s, w) loss = ReduceSum<keepdims = 0>(m) }""".replace("float[4,5] p = {0}", "float[4,5] p = {" + ",".join(["0"] * 20) + "}")
    )
    step = session(differentiated(model.SerializeToString(), "--wrt", "p", "--optimizer", optimizer, "--weight-decay", "0.01"))
    names = [output.name for output in step.get_outputs()]
    fed = {i.name for i in step.get_inputs()}
    assert "p" in {i.name for i in step.get_overridable_initializers()}
    values = {"p": p.astype(np.float32), **{n: np.zeros((4, 5), np.float32) for n in fed if n.startswith("p_")}}
    expected, state = p.astype(np.float32).astype(np.float64), {}
    a, w, lr = a.astype(np.float32), np.abs(w).astype(np.float32) + 0.1, 0.05
    for t in range(1, 51):
        feeds = {"a": a, "w": w, "learning_rate": np.array(lr, np.float32), **values}
        if "step" in fed:
            feeds["step"] = np.array(t - 1)
        outputs = dict(zip(names, step.run(None, feeds)))
        values = {name: outputs[f"{name}_next"] for name in values}
        gradient = 2 * w.astype(np.float64) * (expected - a)
        expected, state = OPTIMIZERS[optimizer](expected, gradient, state, t, lr)
    # float32 against float64 over 50 steps, over the largest entry.
    assert np.abs(values["p"] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_example_drives_a_step_graph(tmp_path, reference):
    model, step = reference("mlp_relu.ts17"), tmp_path / "step.onnx"
    for optimizer in ("momentum", "adam"):
        step.write_bytes(differentiated(model.path, "--optimizer", optimizer))
        command = [sys.executable, models.ROOT / "examples/drive_step.py", step, models.MODELS / "mlp_relu.inputs.npz"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        losses = [float(line.split()[-1]) for line in lines]
        assert len(losses) == 20 and losses[-1] < 0.5 * losses[0]


# Two small nets, and how their activation h is regularised.
SAMPLED = {
    "flatten": (
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,5] x) => (float loss) <float[4,5] w, float[4] b> {
             z = Gemm<transB = 1>(x, w, b) h = Tanh(z) s = Mul(h, h) loss = ReduceMean<keepdims = 0>(s) }""",
        {"w": (4, 5), "b": (4,)},
        (6, 5),
    ),
    "channel": (
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,2,4,4] x) => (float loss) <float[3,2,3,3] w, float[3] b> {
             z = Conv(x, w, b) h = Relu(z) s = Mul(h, h) loss = ReduceMean<keepdims = 0>(s) }""",
        {"w": (3, 2, 3, 3), "b": (3,)},
        (5, 2, 4, 4),
    ),
}

# 5 standard errors are passed by chance once in a million; there are 24 and 57 numbers.
DRAWS, STANDARD_ERRORS = 400, 5


@pytest.mark.parametrize("view", SAMPLED)
def test_the_mean_gradient_of_the_sampled_estimator_is_that_of_the_exact_one(inject, session, view):
    text, shapes, shape = SAMPLED[view]
    rng = np.random.default_rng(400)
    model = onnx.parser.parse_model(_with_values(text, shapes, rng))
    x = rng.standard_normal(shape).astype(np.float32)
    step = lambda *estimator: differentiated(inject(model, "--layers", "tensor:h", "--view", view, "--coef", 0.5, *estimator).data)
    _, exact = gradients(session, step("--estimator", "exact"), {"x": x})
    run = session(step("--estimator", "sampled", "--slices", 16, "--seed", 20200426))
    names = [f"{name}_grad" for name in shapes]
    draws = [run.run(names, {"x": x}) for _ in range(DRAWS)]
    for i, name in enumerate(shapes):
        values = np.array([draw[i] for draw in draws], np.float64)
        standard_error = values.std(axis=0, ddof=1) / np.sqrt(DRAWS)
        assert (standard_error > 0).all()
        # Beside chance there is what float32 rounds in sums of 80 terms.
        rounding = 1e-6 * np.abs(exact[name]).max()
        assert (np.abs(values.mean(axis=0) - exact[name]) <= STANDARD_ERRORS * standard_error + rounding).all()
        # Many draws tell the term's gradient from that of the loss alone.
        _, plain = gradients(session, differentiated(model.SerializeToString()), {"x": x})
        assert (np.abs(values.mean(axis=0) - plain[name]) > 20 * standard_error).any()


def _with_values(text: str, shapes: dict, rng) -> str:
    """The text of a model with random numbers for its initializers."""
    for name, shape in shapes.items():
        numbers = ",".join(f"{v:.6f}" for v in rng.standard_normal(shape).ravel())
        text = text.replace(f"] {name},", f"] {name} = {{{numbers}}},").replace(f"] {name}>", f"] {name} = {{{numbers}}}>")
    return text
