"""Every option of a step graph, on stock ONNX Runtime, against a training loop in float64 that is written down here once more."""

import itertools
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

import models
from command import per_inject
from taps import refusal
from test_differentiate import differentiated

# float32 against float64 over 50 steps, over the largest entry of each parameter.
TOLERANCE = 1e-5
STEPS = 50
RATE = 0.01
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop")
CLIPS = {"": None, "--clip-norm": 0.6, "--clip-value": 0.1}
SCALES = ("", "--loss-scale", "--loss-scale-input")

TEXT = """<ir_version: 8, opset_import: ["" : %d]>
g (float[N,4] x, float[N,3] y) => (float loss) <float[4,6] fc_weight = {%s}, float[6] fc_bias = {%s}, float[6,3] head_weight = {%s}, float[3] head_bias = {%s}> {
  h = MatMul(x, fc_weight) a = Add(h, fc_bias) t = Tanh(a) o = MatMul(t, head_weight) p = Add(o, head_bias)
  d = Sub(p, y) s = Mul(d, d) loss = ReduceMean<keepdims = 0>(s) }"""
SHAPES = {"fc_weight": (4, 6), "fc_bias": (6,), "head_weight": (6, 3), "head_bias": (3,)}


def net(opset=17):
    """A network with its parameters, in float32."""
    rng = np.random.default_rng(3)
    parameters = {name: rng.normal(0, 0.7, shape).astype(np.float32) for name, shape in SHAPES.items()}
    numbers = [",".join(str(v) for v in parameters[name].ravel().tolist()) for name in SHAPES]
    return onnx.parser.parse_model(TEXT % (opset, *numbers)).SerializeToString(), parameters


def gradients(p, x, y):
    """Of the network above, by hand, in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    t = np.tanh(x @ p["fc_weight"] + p["fc_bias"])
    d = 2 * (t @ p["head_weight"] + p["head_bias"] - y) / y.size
    da = d @ p["head_weight"].T * (1 - t * t)
    return {"fc_weight": x.T @ da, "fc_bias": da.sum(0), "head_weight": t.T @ d, "head_bias": d.sum(0)}


def updated(optimizer, p, g, state, t, lr, c):
    """PyTorch's formulas for one parameter; `c` are its constants."""
    if optimizer == "adamw":
        p = p * (1 - lr * c["decay"])
    else:
        g = g + c["decay"] * p
    if optimizer == "sgd":
        return p - lr * g
    if optimizer in ("momentum", "nesterov"):
        state["m"] = c["momentum"] * state.get("m", 0) + g
        return p - lr * (g + c["momentum"] * state["m"] if optimizer == "nesterov" else state["m"])
    if optimizer == "rmsprop":
        state["v"] = 0.99 * state.get("v", 0) + 0.01 * g * g
        return p - lr * g / (np.sqrt(state["v"]) + 1e-8)
    state["m"] = c["beta1"] * state.get("m", 0) + (1 - c["beta1"]) * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g * g
    return p - lr * (state["m"] / (1 - c["beta1"] ** t)) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)


class Driven:
    """A step graph, driven by what its metadata says."""

    def __init__(self, session, step):
        self.session = session(step)
        self.names = json.loads(self.session.get_modelmeta().custom_metadata_map["per_inject.step"])
        self.made = [output.name for output in self.session.get_outputs()]
        self.carried = {each["name"]: each["next"] for each in self.names["statistics"] + self.names["counters"]}
        for parameter in self.names["parameters"]:
            self.carried[parameter["name"]] = parameter["next"]
            self.carried |= {state["name"]: state["next"] for state in parameter.get("state", [])}
        types = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
        self.values = {i.name: np.zeros(i.shape, types[i.type]) for i in self.session.get_inputs() if i.name in self.carried}

    def run(self, batch, **decided):
        """One run; `decided` are the inputs that a loop decides about. Returns all outputs."""
        assert set(decided) == set(self.names["inputs"])
        types = {"apply": np.bool_}
        feeds = {self.names["inputs"][name]: np.array(value, types.get(name, np.float32)) for name, value in decided.items()}
        results = dict(zip(self.made, self.session.run(None, {**batch, **self.values, **feeds})))
        self.values = {name: results[successor] for name, successor in self.carried.items()}
        return results


def batches(count):
    rng = np.random.default_rng(8)
    for _ in range(count):
        x = rng.normal(size=(5, 4)).astype(np.float32)
        yield {"x": x, "y": (2 + np.sin(x[:, :3]) + rng.normal(size=(5, 3))).astype(np.float32)}


EACH = list(itertools.product(OPTIMIZERS, (False, True), CLIPS, (False, True), SCALES))


@pytest.mark.parametrize("optimizer, is_grouped, clip, accumulates, scale", EACH)
def test_fifty_steps_with_every_option_are_those_of_a_loop_in_float64(session, optimizer, is_grouped, clip, accumulates, scale):
    constants = {name: {"lr": 1.0, "decay": 0.01, "momentum": 0.9, "beta1": 0.9} for name in SHAPES}
    options = ["--optimizer", optimizer, "--weight-decay", "0.01"]
    if is_grouped:
        options += ["--group", "name:*_bias=lr:0.1,decay:0", "--group", "head*=lr:0.5"]
        extra = {"momentum": "momentum", "nesterov": "momentum", "adam": "beta1", "adamw": "beta1"}.get(optimizer)
        if extra:
            options += ["--group", f"all,!head*={extra}:0.5"]
        for name, c in constants.items():
            c |= {"lr": 0.1, "decay": 0} if name.endswith("bias") else {}
            c |= {"lr": 0.5} if name.startswith("head") else {extra: 0.5}
    if clip:
        options += [clip, CLIPS[clip]]
    options += ["--accumulate"] if accumulates else []
    options += [scale, 1024] if scale == "--loss-scale" else [scale] if scale else []
    model, parameters = net()
    driven = Driven(session, differentiated(model, *options))
    assert ("gradients_finite" in driven.names["outputs"]) == bool(scale)
    assert ("gradient_norm" in driven.names["outputs"]) == (clip == "--clip-norm")

    p = {name: value.astype(np.float64) for name, value in parameters.items()}
    states, summed, t, clipped = {name: {} for name in p}, [], 0, []
    runs = 3 * STEPS if accumulates else STEPS
    for run, batch in enumerate(batches(runs)):
        # Now and then a step comes a run early, so that the number of runs in it differs.
        apply = not accumulates or run % 3 == 2 or run % 30 == 10
        is_spoilt = bool(scale) and run % 12 == 5
        decided = {"learning_rate": RATE}
        if accumulates:
            decided["apply"] = apply
        if scale == "--loss-scale-input":
            # Too great a scale for gradients of a hundred times the size; the loss itself stays finite.
            decided["loss_scale"] = 3e38 if is_spoilt else 2.0 ** (run % 20)
            batch = {**batch, "y": batch["y"] * np.float32(100 if is_spoilt else 1)}
        elif is_spoilt:
            batch = {**batch, "y": np.full_like(batch["y"], np.inf)}
        before = driven.values
        results = driven.run(batch, **decided)
        if scale:
            assert bool(results[driven.names["outputs"]["gradients_finite"]]) != is_spoilt
        if is_spoilt:
            assert all(np.array_equal(value, before[name]) for name, value in driven.values.items() if name in before)
            continue
        summed.append(gradients(p, batch["x"], batch["y"]))
        mean = {name: sum(g[name] for g in summed) / len(summed) for name in p}
        norm = np.sqrt(sum((g**2).sum() for g in mean.values()))
        if clip == "--clip-norm":
            assert results[driven.names["outputs"]["gradient_norm"]] == pytest.approx(norm, rel=1e-5)
            clipped.append(norm > CLIPS[clip])
            mean = {name: g * min(1, CLIPS[clip] / (norm + 1e-6)) for name, g in mean.items()}
        if clip == "--clip-value":
            clipped.append(max(np.abs(g).max() for g in mean.values()) > CLIPS[clip])
            mean = {name: np.clip(g, -CLIPS[clip], CLIPS[clip]) for name, g in mean.items()}
        if apply:
            summed, t = [], t + 1
            for name, c in constants.items():
                p[name] = updated(optimizer, p[name], mean[name], states[name], t, RATE * c["lr"], c)
    assert t >= (STEPS if not scale else 0.8 * STEPS)
    assert not clip or any(clipped)
    for name, expected in p.items():
        assert np.abs(driven.values[name] - expected).max() <= TOLERANCE * np.abs(expected).max(), name
        assert np.abs(expected - parameters[name]).max() > 100 * TOLERANCE, "nothing was trained"
    if optimizer.startswith("adam"):
        assert driven.values["step"] == t
    if accumulates:
        assert driven.values["accumulated"] == len(summed)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 22])
def test_all_options_together_in_old_and_new_operator_sets(session, opset):
    model, parameters = net(opset)
    options = ["--optimizer", "adamw", "--accumulate", "--clip-norm", "0.3", "--loss-scale-input", "--group", "*_bias=lr:0.1"]
    driven = Driven(session, differentiated(model, *options))
    p, states, summed = {n: v.astype(np.float64) for n, v in parameters.items()}, {n: {} for n in parameters}, []
    for run, batch in enumerate(batches(12)):
        driven.run(batch, learning_rate=RATE, apply=run % 2 == 1, loss_scale=256)
        summed.append(gradients(p, batch["x"], batch["y"]))
        if run % 2 == 1:
            mean = {name: (summed[0][name] + summed[1][name]) / 2 for name in p}
            norm, summed = np.sqrt(sum((g**2).sum() for g in mean.values())), []
            for name, g in mean.items():
                rate = RATE * (0.1 if name.endswith("bias") else 1)
                p[name] = updated("adamw", p[name], g * min(1, 0.3 / (norm + 1e-6)), states[name], run // 2 + 1, rate, {"decay": 0, "beta1": 0.9})
    for name, expected in p.items():
        assert np.abs(driven.values[name] - expected).max() <= TOLERANCE * np.abs(expected).max(), name


def test_parameters_of_float64_are_stepped_in_float64(session):
    """To the float32 that learning rate and loss scale are fed in: both are exact here."""
    model, parameters = net()
    graph = onnx.load_from_string(model)
    for value in [*graph.graph.input, *graph.graph.output]:
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for tensor in graph.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(parameters[tensor.name].astype(np.float64), tensor.name))
    options = ["--optimizer", "momentum", "--accumulate", "--clip-norm", "0.3", "--loss-scale-input"]
    driven = Driven(session, differentiated(graph.SerializeToString(), *options))
    p, states = {n: v.astype(np.float64) for n, v in parameters.items()}, {n: {} for n in parameters}
    for batch in batches(10):
        driven.run({n: v.astype(np.float64) for n, v in batch.items()}, learning_rate=2.0**-6, apply=True, loss_scale=256)
        g = gradients(p, batch["x"], batch["y"])
        factor = min(1, 0.3 / (np.sqrt(sum((each**2).sum() for each in g.values())) + 1e-6))
        for name in p:
            p[name] = updated("momentum", p[name], g[name] * factor, states[name], 1, 2.0**-6, {"decay": 0, "momentum": 0.9})
    for name, expected in p.items():
        assert driven.values[name].dtype == np.float64
        # X is written as a float64 constant; all else is rounding.
        assert np.abs(driven.values[name] - expected).max() <= 1e-12 * np.abs(expected).max(), name


def test_gradients_as_outputs_are_unscaled_and_clipped_too(session):
    model, parameters = net()
    batch = next(batches(1))
    expected = gradients({n: v.astype(np.float64) for n, v in parameters.items()}, batch["x"], batch["y"])
    norm = np.sqrt(sum((g**2).sum() for g in expected.values()))
    run = session(differentiated(model, "--clip-norm", norm / 3, "--loss-scale", "512"))
    found = dict(zip([o.name for o in run.get_outputs()], run.run(None, batch)))
    assert found["gradients_finite"] and found["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    for name, g in expected.items():
        assert np.abs(found[f"{name}_grad"] - g / 3).max() <= 1e-5 * np.abs(g).max()
    run = session(differentiated(model, "--gradient-norm"))
    found = dict(zip([o.name for o in run.get_outputs()], run.run(None, batch)))
    assert found["gradient_norm"] == pytest.approx(norm, rel=1e-5)


HALF = """<ir_version: 8, opset_import: ["" : 17]> g (float16[8] w) => (float loss) <float16[8] p = {1,2,3,4,5,6,7,8}> {
  h = Mul(p, w) c = Cast<to = 1>(h) s = ReduceSum<keepdims = 0>(c) k = Constant<value_float = 1e-8>() loss = Mul(s, k) }"""


def test_a_loss_scale_saves_half_precision_gradients(session):
    """1e-8·w is nothing in float16, and 1e-8·65536·w is something: it comes back in float32, and Adam steps by the rate."""
    model = onnx.parser.parse_model(HALF)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.arange(1, 9, dtype=np.float16), "p"))
    model, w = model.SerializeToString(), np.linspace(1, 2, 8).astype(np.float16)
    plain, scaled = (session(differentiated(model, "--wrt", "p", *more)) for more in ([], ["--loss-scale", "65536"]))
    assert not dict(zip([o.name for o in plain.get_outputs()], plain.run(None, {"w": w})))["p_grad"].any()
    gradient = dict(zip([o.name for o in scaled.get_outputs()], scaled.run(None, {"w": w})))["p_grad"]
    # Half precision has 11 bits.
    assert gradient.dtype == np.float32 and gradient == pytest.approx(1e-8 * w.astype(np.float64), rel=2**-10)
    driven = Driven(session, differentiated(model, "--wrt", "p", "--optimizer", "adam", "--epsilon", "1e-12", "--loss-scale", "65536"))
    for _ in range(3):
        driven.run({"w": w}, learning_rate=0.25)
    assert driven.values["p"].dtype == np.float16 and driven.values["p_square"].dtype == np.float32
    assert driven.values["p"] == pytest.approx(np.arange(1, 9) - 0.75, rel=2**-9)


def test_a_step_that_is_not_finite_leaves_running_statistics_alone(session, reference):
    model = reference("bn_resnet8.ts17")
    driven = Driven(session, differentiated(model.path, "--optimizer", "momentum", "--loss-scale-input"))
    assert driven.names["statistics"]
    feeds = dict(model.feeds)
    driven.run(feeds, learning_rate=0.01, loss_scale=1024)
    before = driven.values
    results = driven.run(feeds, learning_rate=0.01, loss_scale=np.inf)
    assert not results["gradients_finite"]
    assert all(np.array_equal(value, before[name]) for name, value in driven.values.items())
    assert driven.run(feeds, learning_rate=0.01, loss_scale=1024)["gradients_finite"]
    assert not any(np.array_equal(driven.values[s["name"]], before[s["name"]]) for s in driven.names["statistics"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_example_drives_every_optimizer(tmp_path, reference, optimizer):
    model, step = reference("mlp_relu.ts17"), tmp_path / "step.onnx"
    for more in ([], ["--accumulate", "--loss-scale-input", "--clip-norm", "5"]):
        step.write_bytes(differentiated(model.path, "--optimizer", optimizer, *more))
        rate = {"rmsprop": 0.002, "adam": 0.02, "adamw": 0.02}.get(optimizer, 0.1 if optimizer == "sgd" else 0.05)
        command = [sys.executable, models.ROOT / "examples/drive_step.py", step, models.MODELS / "mlp_relu.inputs.npz", str(rate)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        losses = [float(line.split()[-1]) for line in lines]
        assert len(losses) == 20 and losses[-1] < (0.85 if more else 0.7) * losses[0], losses


def test_diff_folds_all_options_into_one_line(tmp_path):
    source, step = tmp_path / "model.onnx", tmp_path / "step.onnx"
    source.write_bytes(net()[0])
    options = ["--optimizer", "adam", "--accumulate", "--clip-norm", "1", "--loss-scale-input", "--group", "*_bias=lr:0.1"]
    per_inject("differentiate", source, "-o", step, *options)
    text = per_inject("diff", source, step, check=False).stdout
    assert "backward pass" in text and "per_inject.step" not in text
