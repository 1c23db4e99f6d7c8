"""`per-inject train`: against loops that it does not share, and whatever interrupts it."""

import json
import os
import random
import shutil
import signal
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
import nets
import training
from command import per_inject
from training import (
    batches, checkpoints, drive, epochs, evaluations, kill_after, kill_while_writing, losses, points, position, records, refusal, start, steps,
    tensors, train, weights,
)

MLP = models.MODELS / "mlp_relu.ts17.onnx"
EXACT = ("--layers", "relu", "--estimator", "exact", "--coef", 0.5)
SAMPLED = ("--layers", "relu", "--coef", 3e-2, "--slices", 32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Training and test data for the MLP."""
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "train.npz", **points(700, 1))
    np.savez(folder / "test.npz", **points(300, 2))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, **training.images(96))
    return path


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    path = tmp_path_factory.mktemp("sentences") / "sentences.npz"
    np.savez(path, **training.sentences(128))
    return path


# ---------------------------------------------------------------- the numbers


# With less, Adam makes whole steps of gradients that are nothing but rounding.
EPSILON = 1e-3


def optimise(name, p, g, state, t, rate, decay):
    """PyTorch's documentation of its optimisers, in float64, with ε = EPSILON."""
    if name != "adamw":
        g = g + decay * p
    if name == "sgd":
        return p - rate * g
    if name in ("momentum", "nesterov"):
        m = state["m"] = 0.9 * state.get("m", 0) + g
        return p - rate * (g + 0.9 * m if name == "nesterov" else m)
    if name == "rmsprop":
        v = state["v"] = 0.99 * state.get("v", 0) + 0.01 * g * g
        return p - rate * g / (np.sqrt(v) + EPSILON)
    if name == "adamw":
        p = p * (1 - rate * decay)
    m = state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    v = state["v"] = 0.999 * state.get("v", 0) + 0.001 * g * g
    return p - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + EPSILON)


def mlp_loop(data, name, rate, decay, steps, size, clip=np.inf):
    """The MLP in NumPy, float64: Gemm, Relu, Gemm, Relu, Gemm, cross entropy. Losses, norms of gradients, weights."""
    names = ["net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias", "net.4.weight", "net.4.bias"]
    stored = weights(MLP)
    p = {n: stored[n].astype(np.float64) for n in names}
    state = {n: {} for n in names}
    found, norms = [], []
    for t, batch in enumerate(batches(points(700, 1), size, steps), 1):
        x, y = batch["x"].astype(np.float64), batch["y"]
        a = [x]
        for layer in (0, 2, 4):
            z = a[-1] @ p[f"net.{layer}.weight"].T + p[f"net.{layer}.bias"]
            a.append(np.maximum(z, 0) if layer < 4 else z)
        z = a[-1] - a[-1].max(1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        found.append(-log_p[np.arange(len(y)), y].mean())
        d = (np.exp(log_p) - np.eye(10)[y]) / len(y)
        g = {}
        for i, layer in reversed(list(enumerate((0, 2, 4)))):
            g[f"net.{layer}.weight"], g[f"net.{layer}.bias"] = d.T @ a[i], d.sum(0)
            d = (d @ p[f"net.{layer}.weight"]) * (a[i] > 0)
        norms.append(np.sqrt(sum((v * v).sum() for v in g.values())))
        g = {n: v * min(1, clip / (norms[-1] + 1e-6)) for n, v in g.items()}
        p = {n: optimise(name, p[n], g[n], state[n], t, rate, decay) for n in names}
    return np.array(found), np.array(norms), p


@pytest.mark.parametrize(
    "name, rate", [("sgd", 0.1), ("momentum", 0.05), ("nesterov", 0.05), ("adam", 1e-3), ("adamw", 1e-3), ("rmsprop", 1e-3)]
)
def test_fifty_steps_are_those_of_a_float64_loop(name, rate, data, tmp_path):
    """Float32 rounds to 6e-8, and so few steps amplify it little."""
    decay = 0.01
    options = ("--optimizer", name, "--lr", rate, "--weight-decay", decay, "--no-shuffle", "--batch-size", 60, "--quiet")
    if name.startswith("adam") or name == "rmsprop":
        options += ("--epsilon", EPSILON)
    # Twelve batches an epoch, the last of 40 rows.
    train(MLP, tmp_path, "--data", data / "train.npz", "--epochs", 4, *options)
    found, norms, end = mlp_loop(data, name, rate, decay, 48, 60)
    np.testing.assert_allclose(losses(tmp_path), found, rtol=0, atol=1e-5)
    # The norm jumps where a unit of a Relu passes 0 one step earlier or later.
    np.testing.assert_allclose(losses(tmp_path, "gradient_norm"), norms, rtol=0, atol=1e-4)
    stored = weights(tmp_path / "model.onnx")
    for key, value in end.items():
        np.testing.assert_allclose(stored[key], value, rtol=0, atol=1e-5, err_msg=key)


def test_long_gradients_are_clipped_and_groups_have_rates_of_their_own(data, tmp_path):
    options = ("--data", data / "train.npz", "--epochs", 4, "--lr", 0.1, "--no-shuffle", "--batch-size", 60, "--quiet")
    train(MLP, tmp_path / "clipped", *options, "--clip-norm", 0.3)
    found, norms, _ = mlp_loop(data, "sgd", 0.1, 0.0, 48, 60, 0.3)
    assert (norms > 0.3).sum() > 10
    np.testing.assert_allclose(losses(tmp_path / "clipped"), found, rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses(tmp_path / "clipped", "gradient_norm"), norms, rtol=0, atol=1e-4)
    train(MLP, tmp_path / "group", *options, "--group", "net.0.*=lr:0")
    before, after = weights(MLP), weights(tmp_path / "group" / "model.onnx")
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {"net.2.weight", "net.2.bias", "net.4.weight", "net.4.bias"}


@pytest.mark.parametrize("model, options", [("mlp_relu.ts17", EXACT), ("seq_lstm_lm.ts17", ("--layers", "lstm", "--estimator", "exact", "--coef", 0.1)), ("bn_resnet8.ts17", ())])
def test_steps_are_those_of_the_step_graph_driven_by_python(model, options, data, images, sentences, tmp_path):
    """The same graph, the same runtime: what differs is who carries the state. ONNX Runtime may fuse the two graphs differently."""
    path = models.MODELS / f"{model}.onnx"
    source = {"mlp": data / "train.npz", "seq": sentences, "bn_": images}[model[:3]]
    size = 16
    train(path, tmp_path / "run", "--data", source, "--epochs", 1, "--batch-size", size, "--no-shuffle", "--optimizer", "momentum", "--lr", 0.02, "--quiet", *options)
    injected = path
    if options:
        injected = tmp_path / "injected.onnx"
        per_inject(path, *options, "-o", injected)
    per_inject("differentiate", injected, "-o", tmp_path / "step.onnx", "--optimizer", "momentum")
    found = losses(tmp_path / "run")
    expected, end = drive(tmp_path / "step.onnx", batches(np.load(source), size, len(found), model.startswith("seq")), 0.02)
    tolerance = 1e-3 if model.startswith("bn") else 1e-5
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    state = tensors(checkpoints(tmp_path / "run")[len(found)])
    assert state.keys() == end.keys()
    for name, value in end.items():
        np.testing.assert_allclose(state[name], value, rtol=0, atol=tolerance, err_msg=name)


def test_the_mlp_learns_and_says_how_well(data, tmp_path):
    options = ("--data", data / "train.npz", "--eval", data / "test.npz", "--epochs", 12, "--optimizer", "adam", "--lr", 0.003, *SAMPLED)
    run = train(MLP, tmp_path, *options, "--json")
    summary = json.loads(run.stdout)
    assert summary["training"]["accuracy"] > 0.9 and summary["evaluation"]["accuracy"] > 0.6
    # What the log says of the end is what ONNX Runtime's own session computes with the weights that were put back.
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    test = dict(np.load(data / "test.npz"))
    loss, logits = session.run(["loss", "logits"], test)
    last = evaluations(tmp_path)[-1]
    assert last["accuracy"] == np.mean(logits.argmax(1) == test["y"]) == summary["evaluation"]["accuracy"]
    assert last["task_loss"] == pytest.approx(float(loss), abs=1e-5)
    assert last["samples"] == 300 and sum(name.startswith("per/") for name in last) == 2
    best = max(values["accuracy"] for values in evaluations(tmp_path))
    assert summary["best"][0] == best and position(tmp_path / "checkpoints" / "best.safetensors")["step"] == summary["best"][1]


def test_a_cnn_and_an_lstm_learn(images, sentences, tmp_path):
    train(models.MODELS / "bn_resnet8.ts17.onnx", tmp_path / "cnn", "--data", images, "--eval", images, "--batch-size", 16, "--epochs", 5, "--lr", 0.1, "--quiet", *EXACT[:4], "--coef", 1e-3)
    first, *_, last = epochs(tmp_path / "cnn")
    assert last["loss"] < 0.7 * first["loss"] and evaluations(tmp_path / "cnn")[-1]["accuracy"] > 0.4
    train(models.MODELS / "seq_lstm_lm.ts17.onnx", tmp_path / "lstm", "--data", sentences, "--batch-size", 16, "--epochs", 8, "--optimizer", "adam", "--lr", 0.01, "--quiet", "--layers", "lstm", "--coef", 1e-3)
    first, *_, last = epochs(tmp_path / "lstm")
    assert last["perplexity"] < 0.1 * first["perplexity"] == pytest.approx(0.1 * np.exp(first["task_loss"]))


@pytest.mark.parametrize("model, layers", [("mlp_relu.ts17", "relu"), ("cnn11_elu.ts17", "elu"), ("seq_lstm_lm.ts17", "lstm")])
def test_a_coefficient_of_zero_is_no_regulariser_bit_for_bit(model, layers, data, images, sentences, tmp_path):
    source = {"mlp": data / "train.npz", "seq": sentences, "cnn": images}[model[:3]]
    path = models.MODELS / f"{model}.onnx"
    options = ("--data", source, "--epochs", 1, "--batch-size", 32, "--optimizer", "adam", "--lr", 1e-3, "--quiet")
    train(path, tmp_path / "vanilla", *options)
    train(path, tmp_path / "zero", *options, "--layers", layers, "--coef", 0)
    assert (tmp_path / "zero" / "model.onnx").read_bytes() == (tmp_path / "vanilla" / "model.onnx").read_bytes()
    assert (losses(tmp_path / "zero") == losses(tmp_path / "vanilla")).all()
    # PER is measured all the same.
    per = [[v for name, v in values.items() if name.startswith("per/")] for values in steps(tmp_path / "zero")]
    assert np.array(per).min() > 0.5


@pytest.mark.parametrize(
    "model, layers, arrays, epochs_, batch, rate, coefficient",
    [
        ("mlp_relu.ts17", "relu", training.points(700, 1), 10, 50, 0.1, 1),
        ("bn_resnet8.ts17", "relu", training.images(48), 3, 16, 0.05, 4),
        ("cnn11_elu.ts17", "elu", training.images(48), 3, 16, 0.1, 2),
        ("seq_lstm_lm.ts17", "lstm", training.sentences(128), 10, 16, 0.5, 3),
    ],
    ids=["mlp", "cnn_relu", "cnn_elu", "lstm"],
)
def test_per_of_every_layer_falls_relative_to_a_run_without_it(model, layers, arrays, epochs_, batch, rate, coefficient, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    options = ("--data", tmp_path / "data.npz", "--layers", layers, "--slices", 64, "--epochs", epochs_, "--batch-size", batch, "--lr", rate, "--quiet")
    for run, coef in [("vanilla", 0), ("per", coefficient)]:
        train(models.MODELS / f"{model}.onnx", tmp_path / run, *options, "--coef", coef)
    of = lambda values: np.array([v for name, v in values.items() if name.startswith("per/")])
    # The same start, samples and slices.
    assert (of(steps(tmp_path / "per")[0]) == of(steps(tmp_path / "vanilla")[0])).all()
    vanilla, regularised = (of(epochs(tmp_path / run)[-1]) for run in ("vanilla", "per"))
    assert (regularised < vanilla).all(), regularised - vanilla
    # The excess over the value that PER has where all activations are 0, which some layers of a small network are near to.
    floor = np.sqrt(2 / np.pi)
    assert (regularised - floor).sum() < 0.95 * (vanilla - floor).sum(), (regularised - floor, vanilla - floor)


def test_rates_and_coefficients_follow_their_schedules(data, tmp_path):
    options = ("--data", data / "train.npz", "--eval", data / "test.npz", "--batch-size", 100, "--epochs", 4, "--layers", "relu", "--estimator", "exact", "--quiet")
    train(MLP, tmp_path / "a", *options, "--lr", "warmup:1,cosine:0.1..0", "--coef", "linear:0..0.7@2", "--coef", "#2=0.25")
    found = steps(tmp_path / "a")
    assert len(found) == 28
    for i, values in enumerate(found):
        rate = 0.1 * (i + 1) / 7 if i < 7 else 0.05 * (1 + np.cos(np.pi * (i - 7) / 21))
        assert values["learning_rate"] == pytest.approx(rate, abs=1e-12)
        coefficient = values["coefficient"]
        assert coefficient == pytest.approx(min(0.05 * i, 0.7), abs=1e-12)
        first, second = (v for name, v in values.items() if name.startswith("per/"))
        assert values["loss"] == pytest.approx(values["task_loss"] + coefficient * first + 0.25 * second, abs=1e-6)
    # A rate that goes by evaluations is there again after a resumption.
    test = dict(np.load(data / "test.npz"))
    np.savez(tmp_path / "worse.npz", x=test["x"], y=9 - test["y"])
    # What fits the training data fits these labels less and less.
    plateau = (*[tmp_path / "worse.npz" if o == data / "test.npz" else o for o in options], "--lr", "plateau:0.2@1", "--coef", 0)
    train(MLP, tmp_path / "b", *plateau)
    for epoch in range(1, 5):
        train(MLP, tmp_path / "c", *[epoch if o == 4 else o for o in plateau], *(["--resume"] if epoch > 1 else []))
    assert (losses(tmp_path / "b", "learning_rate") == losses(tmp_path / "c", "learning_rate")).all()
    assert len(set(losses(tmp_path / "b", "learning_rate"))) > 2
    assert "needs data for them: --eval" in refusal(MLP, tmp_path / "d", "--data", data / "train.npz", "--lr", "plateau:0.5@1")


# ---------------------------------------------------------------- the weights


def differing(a, b):
    """Positions of bytes that differ."""
    assert len(a) == len(b)
    return np.flatnonzero(np.frombuffer(a, np.uint8) != np.frombuffer(b, np.uint8))


def test_only_bytes_of_weights_change(data, tmp_path):
    train(MLP, tmp_path, "--data", data / "train.npz", "--epochs", 1, "--quiet", *SAMPLED)
    before, after = MLP.read_bytes(), (tmp_path / "model.onnx").read_bytes()
    places = set()
    for tensor in onnx.load(MLP).graph.initializer:
        raw = numpy_helper.to_array(tensor).tobytes()
        places.update(range(before.index(raw), before.index(raw) + len(raw)))
    assert set(differing(before, after)) <= places and len(differing(before, after)) > len(places) / 4
    exported = tensors(tmp_path / "model.safetensors")
    stored = weights(tmp_path / "model.onnx")
    assert exported.keys() == {name for name in stored if name.startswith("net.")}
    assert all((stored[name] == value).all() for name, value in exported.items())


def test_weights_in_typed_fields_and_in_other_files_are_put_back(data, tmp_path):
    plain = onnx.load(MLP)
    typed = onnx.ModelProto.FromString(plain.SerializeToString())
    for tensor in typed.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).ravel()
            tensor.ClearField("raw_data")
            tensor.float_data.extend(values.tolist())
    onnx.save(typed, tmp_path / "typed.onnx")
    (tmp_path / "outside").mkdir()
    onnx.save(plain, tmp_path / "outside" / "m.onnx", save_as_external_data=True, location="sub_w.bin", size_threshold=100)
    options = ("--data", data / "train.npz", "--epochs", 1, "--quiet")
    train(MLP, tmp_path / "plain", *options)
    train(tmp_path / "typed.onnx", tmp_path / "run_typed", *options)
    train(tmp_path / "outside" / "m.onnx", tmp_path / "run_outside", *options)
    expected = weights(tmp_path / "plain" / "model.onnx")
    for run in ("run_typed", "run_outside"):
        found = weights(tmp_path / run / "model.onnx")
        assert all((found[name] == value).all() for name, value in expected.items()), run
    # The file itself only names its data.
    before, after = (tmp_path / "outside" / "m.onnx"), (tmp_path / "run_outside" / "model.onnx")
    inline = [t for t in onnx.load(before, load_external_data=False).graph.initializer if not t.external_data]
    assert len(differing(before.read_bytes(), after.read_bytes())) <= sum(len(t.raw_data) for t in inline)
    assert (tmp_path / "outside" / "sub_w.bin").stat().st_size == (tmp_path / "run_outside" / "sub_w.bin").stat().st_size
    sentence = refusal(tmp_path / "run_outside" / "model.onnx", tmp_path / "run_outside", *options[:-1])
    assert "would be written over" in sentence


# ---------------------------------------------------------------- random numbers


def dropout(opset=17, ratio=0.5):
    """Gemm, Dropout in training mode, a normal number for each unit, Gemm, cross entropy."""
    chance = np.random.default_rng(5)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["z1"]),
        helper.make_node("Relu", ["z1"], ["h1"]),
        helper.make_node("Dropout", ["h1", "ratio", "training"], ["d1", "mask"]),
        helper.make_node("RandomNormalLike", ["d1"], ["n"], mean=0.0, scale=0.1),
        helper.make_node("Add", ["d1", "n"], ["e1"]),
        helper.make_node("Gemm", ["e1", "w2", "b2"], ["logits"]),
        helper.make_node("SoftmaxCrossEntropyLoss", ["logits", "y"], ["loss"], reduction="mean"),
    ]
    scale = {"w1": 0.1, "b1": 0.0, "w2": 0.1, "b2": 0.0}
    shapes = {"w1": (64, 96), "b1": (96,), "w2": (96, 10), "b2": (10,)}
    values = {name: (scale[name] * chance.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    values |= {"ratio": np.array(ratio, np.float32), "training": np.array(True)}
    inputs = [("x", nets.FLOAT, ["N", 64]), ("y", TensorProto.INT64, ["N"])]
    outputs = [("loss", nets.FLOAT, []), ("logits", nets.FLOAT, ["N", 10])]
    return nets.model(nodes, inputs, outputs, values, opset)


def test_dropout_and_noise_follow_from_the_seed_and_are_off_in_evaluation(data, tmp_path):
    onnx.save(dropout(), tmp_path / "m.onnx")
    options = ("--data", data / "train.npz", "--epochs", 3, "--quiet", "--checkpoint-every", 4, "--keep", 99, "--layers", "relu", "--coef", 0.01, "--slices", 16)
    ends = {}
    for seed, run in [(1, "a"), (1, "b"), (2, "c")]:
        train(tmp_path / "m.onnx", tmp_path / run, *options, "--seed", seed, "--no-shuffle", "--eval", data / "test.npz")
        ends[run] = (tmp_path / run / "model.onnx").read_bytes()
    assert ends["a"] == ends["b"] != ends["c"]
    found = losses(tmp_path / "a")
    assert len(set(found)) == len(found)
    # In evaluation there is no mask; what else the model draws, it draws.
    quiet = dropout()
    quiet.graph.node[4].input[0] = "h1"
    quiet.graph.node[4].input[1] = "zero"
    del quiet.graph.node[2:4]
    quiet.graph.initializer.append(numpy_helper.from_array(np.zeros(96, np.float32), "zero"))
    for tensor in quiet.graph.initializer:
        if tensor.name in ("w1", "b1", "w2", "b2"):
            tensor.CopyFrom(numpy_helper.from_array(weights(tmp_path / "a" / "model.onnx")[tensor.name], tensor.name))
    session = onnxruntime.InferenceSession(quiet.SerializeToString(), providers=["CPUExecutionProvider"])
    loss = float(session.run(["loss"], dict(np.load(data / "test.npz")))[0])
    assert evaluations(tmp_path / "a")[-1]["task_loss"] == pytest.approx(loss, abs=0.02)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5])
def test_masks_of_dropout_keep_the_mean(ratio, data, tmp_path):
    """Of ones, the mean behind Dropout is that of the mask: 1, with a variance of p/(1 − p) an element."""
    nodes = [
        helper.make_node("Dropout", ["w", "ratio", "training"], ["d"]),
        helper.make_node("ReduceMean", ["d"], ["mean"], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Mul", ["m", "zero"], ["nothing"]),
        helper.make_node("Add", ["mean", "nothing"], ["loss"]),
    ]
    values = {"w": np.ones((40, 50), np.float32), "ratio": np.array(ratio, np.float32), "training": np.array(True), "zero": np.array(0, np.float32)}
    model = nets.model(nodes, [("x", nets.FLOAT, ["N", 64])], [("loss", nets.FLOAT, [])], values)
    onnx.save(model, tmp_path / "m.onnx")
    train(tmp_path / "m.onnx", tmp_path / "run", "--data", data / "train.npz", "--epochs", 50, "--batch-size", 70, "--lr", 0, "--wrt", "w", "--quiet")
    found = losses(tmp_path / "run")
    deviation = np.sqrt(ratio / (1 - ratio) / 2000)
    # Five standard errors of 500 means; and of their own deviation.
    assert abs(found.mean() - 1) <= 5 * deviation / np.sqrt(500) + 1e-7
    assert abs(found.std() - deviation) <= 5 * deviation / np.sqrt(1000) + 1e-7


def test_shapes_that_only_a_run_knows_are_asked_of_one(data, tmp_path):
    """A Dropout behind a Reshape to a computed shape."""
    model = dropout()
    graph = model.graph
    del graph.value_info[:]
    shape = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Concat", ["rows", "minus"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["h1", "wanted"], ["h2"]),
    ]
    nodes = list(graph.node)
    nodes[2].input[0] = "h2"
    del graph.node[:]
    graph.node.extend([*nodes[:2], *shape, *nodes[2:]])
    graph.initializer.extend([numpy_helper.from_array(np.array([0]), "zero"), numpy_helper.from_array(np.array([-1]), "minus")])
    onnx.save(model, tmp_path / "m.onnx")
    onnx.save(dropout(), tmp_path / "plain.onnx")
    for name in ("m", "plain"):
        train(tmp_path / f"{name}.onnx", tmp_path / name, "--data", data / "train.npz", "--epochs", 2, "--quiet")
    np.testing.assert_allclose(losses(tmp_path / "m"), losses(tmp_path / "plain"), rtol=0, atol=1e-5)


# ---------------------------------------------------------------- interruptions


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """A run with everything that is random, and what it leaves. Its checkpoints are large beside its steps."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    model = dropout()
    chance = np.random.default_rng(6)
    for tensor in model.graph.initializer:
        resized = {"w1": (64, 8192), "b1": (8192,), "w2": (8192, 10)}.get(tensor.name)
        if resized:
            tensor.CopyFrom(numpy_helper.from_array((0.02 * chance.standard_normal(resized)).astype(np.float32), tensor.name))
    onnx.save(model, folder / "m.onnx")
    options = ("--data", data / "train.npz", "--eval", data / "test.npz", "--epochs", 4, "--batch-size", 32, "--optimizer", "adam", "--lr", 1e-3, "--checkpoint-every", 5, "--layers", "relu", "--coef", 1e-2, "--slices", 2)
    train(folder / "m.onnx", folder / "run", *options, "--quiet")
    return folder / "m.onnx", options, folder / "run"


def same_end(run, expected):
    assert (run / "model.onnx").read_bytes() == (expected / "model.onnx").read_bytes()
    last = max(checkpoints(expected))
    assert checkpoints(run)[last].read_bytes() == checkpoints(expected)[last].read_bytes()
    for part in (steps, epochs, evaluations):
        of_run, of_expected = ([{k: v for k, v in values.items() if "per_second" not in k} for values in part(path)] for path in (run, expected))
        assert of_run == of_expected, part.__name__


def killed_and_resumed(uninterrupted, folder, wanted, seed, kills_a_chain=12):
    """How many kills there were, and how many of them while a checkpoint was being written (True)."""
    model, options, expected = uninterrupted
    chance = random.Random(seed)
    kills = {True: 0, False: 0}
    while sum(kills.values()) < wanted:
        out = folder / str(sum(kills.values()))
        killed = 0
        while True:
            process = start(model, out, *options, *(["--resume"] if killed else []))
            if killed == kills_a_chain:
                assert process.wait() == 0, process.stderr.read()
                break
            is_writing = chance.random() < 0.65
            delay = chance.uniform(0, 0.25)
            if not (kill_while_writing if is_writing else kill_after)(process, delay):
                assert process.returncode == 0, process.stderr.read()
                break
            process.stderr.close()
            killed += 1
            kills[is_writing] += 1
        same_end(out, expected)
        shutil.rmtree(out)
    return kills


def test_killed_runs_end_where_uninterrupted_ones_do(uninterrupted, tmp_path):
    """PER_INJECT_TEST_TRAIN_KILLS says how many kills; tests/nightly makes many more."""
    wanted = int(os.environ.get("PER_INJECT_TEST_TRAIN_KILLS", 100))
    kills = killed_and_resumed(uninterrupted, tmp_path, wanted, 7)
    print(f"{sum(kills.values())} kills, {kills[True]} of them while a checkpoint was written")
    assert kills[True] >= wanted / 2, kills


def test_ctrl_c_finishes_the_step_and_says_how_to_go_on(uninterrupted, tmp_path):
    model, options, expected = uninterrupted
    for sent in (signal.SIGINT, signal.SIGTERM):
        out = tmp_path / sent.name
        process = start(model, out, *options)
        while not checkpoints(out) if (out / "checkpoints").exists() else True:
            time.sleep(0.01)
        process.send_signal(sent)
        assert process.wait() == 128 + sent
        said = process.stderr.read().decode()
        last = max(checkpoints(out))
        assert f"stopped after step {last};" in said and "--resume" in said
        assert position(checkpoints(out)[last])["step"] == last and not (out / "model.onnx").exists()
        train(model, out, *options, "--resume", "--quiet")
        same_end(out, expected)


def test_another_run_is_not_gone_on_with(uninterrupted, tmp_path, data):
    model, options, expected = uninterrupted
    assert "holds a run already; go on with it with --resume" in refusal(model, expected, *options)
    other = [*options]
    other[other.index("--optimizer") + 1] = "adamw"
    assert "it belongs to a run with --optimizer adam --beta1 0.9" in refusal(model, expected, *other, "--resume")
    sentence = refusal(model, expected, *[0.002 if o == 1e-3 else o for o in options], "--resume")
    assert "it belongs to a run with --lr 0.001, and this one has 0.002" in sentence
    assert "the model" in refusal(MLP, expected, *options, "--resume")
    # More epochs are no other run.
    longer = [5 if o == 4 else o for o in options]
    train(model, expected, *longer, "--resume", "--quiet")
    train(model, tmp_path / "whole", *longer, "--quiet")
    same_end(expected, tmp_path / "whole")


# ---------------------------------------------------------------- what goes wrong


def test_a_step_that_gives_no_number_is_named_and_the_state_before_it_kept(data, tmp_path):
    options = ("--data", data / "train.npz", "--epochs", 2, "--batch-size", 100, "--lr", 1e9)
    sentence = refusal(MLP, tmp_path / "run", *options)
    assert "step 3 gave a loss of NaN: the first NaN is in \"logits\", made by" in sentence and "--on-nan skip" in sentence
    kept = tensors(checkpoints(tmp_path / "run")[2])
    assert all(np.isfinite(value).all() for value in kept.values())
    train(MLP, tmp_path / "run", *options, "--resume", "--on-nan", "skip", "--quiet")
    assert list(np.isfinite(losses(tmp_path / "run"))) == [True] * 2 + [False] * 12
    end = tensors(tmp_path / "run" / "model.safetensors")
    assert all((end[name] == value).all() for name, value in kept.items())


def test_data_that_does_not_fit_is_refused_before_anything_runs(data, tmp_path):
    good = dict(np.load(data / "train.npz"))
    nan = good["x"].copy()
    nan[5, 7] = np.nan
    for name, arrays, words in [
        ("shape", {"x": good["x"][:, :60], "y": good["y"]}, ['"x"', "60", "64"]),
        ("missing", {"x": good["x"], "labels": good["y"]}, ['"y"', "--map y=labels"]),
        ("type", {"x": good["x"], "y": good["y"].astype(np.float32)}, ['"y"', "float", "int64"]),
        ("rows", {"x": good["x"], "y": good["y"][:-1]}, ["700 rows", "699"]),
        ("class", {"x": good["x"], "y": good["y"] + 1}, ['"y"', "holds 10", "0 to 9"]),
        ("nan", {"x": nan, "y": good["y"]}, ["row 5", '"x"', "NaN"]),
        ("few", {"x": good["x"][:0], "y": good["y"][:0]}, ["empty"]),
    ]:
        np.savez(tmp_path / f"{name}.npz", **arrays)
        sentence = refusal(MLP, tmp_path / name, "--data", tmp_path / f"{name}.npz")
        assert all(word in sentence for word in [*words, f"the training data, --data {tmp_path / name}.npz: "]), (name, sentence)
        assert not (tmp_path / name).exists()
    sentence = refusal(MLP, tmp_path / "evaluation", "--data", data / "train.npz", "--eval", tmp_path / "class.npz")
    assert f"the evaluation data, --eval {tmp_path}/class.npz: row " in sentence
    assert "given by its own path" in refusal(MLP, tmp_path / "folder", "--data", tmp_path)
    np.savez(tmp_path / "named.npz", image=good["x"], labels=good["y"])
    train(MLP, tmp_path / "mapped", "--data", tmp_path / "named.npz", "--map", "x=image,y=labels", "--epochs", 1, "--quiet")
    train(MLP, tmp_path / "plain", "--data", data / "train.npz", "--epochs", 1, "--quiet")
    assert (tmp_path / "mapped" / "model.onnx").read_bytes() == (tmp_path / "plain" / "model.onnx").read_bytes()
    sentence = refusal(models.MODELS / "mlp_relu.dyn.onnx", tmp_path / "fixed", "--data", data / "train.npz", "--batch-size", 32)
    assert "takes 16 samples at once, and --batch-size asks for 32" in sentence
    run = train(models.MODELS / "mlp_relu.dyn.onnx", tmp_path / "fixed", "--data", data / "train.npz", "--epochs", 1)
    assert "the graph takes 16 samples at once; the last 12 of 700 are left out" in run.stderr
    assert epochs(tmp_path / "fixed")[0]["samples"] == 688


def test_where_samples_lie_is_said_when_it_is_guessed_and_when_it_does_not_fit(data, sentences, tmp_path):
    """Of a model whose sizes are all fixed any axis could count the samples."""
    fixed, guess = models.MODELS / "mlp_relu.dyn.onnx", "its first axis is taken for the samples (--batch-axis x=1"
    assert guess in train(fixed, tmp_path / "guessed", "--data", data / "train.npz", "--epochs", 1).stderr
    assert guess not in train(fixed, tmp_path / "said", "--data", data / "train.npz", "--epochs", 1, "--batch-axis", "x=0").stderr
    assert guess not in train(MLP, tmp_path / "open", "--data", data / "train.npz", "--epochs", 1).stderr
    turned = {name: array.T for name, array in np.load(sentences).items()}
    np.savez(tmp_path / "turned.npz", **turned)
    sentence = refusal(models.MODELS / "seq_lstm_lm.ts17.onnx", tmp_path / "lstm", "--data", tmp_path / "turned.npz")
    assert "int64[9, N] with the samples along axis 1 (in the data they come first: transpose it)" in sentence


def test_a_model_with_per_in_its_loss_is_measured_as_the_original(data, tmp_path):
    per_inject(MLP, "--layers", "relu", "--coef", 0.01, "--estimator", "exact", "-o", tmp_path / "per.onnx")
    per_inject(tmp_path / "per.onnx", "--layers", "relu,#1", "--coef", 0.01, "--estimator", "exact", "-o", tmp_path / "twice.onnx")
    for name in ("per.onnx", "twice.onnx"):
        out = tmp_path / f"{name}.run"
        train(tmp_path / name, out, "--data", data / "train.npz", "--eval", data / "test.npz", "--epochs", 1, "--lr", 0.1, "--quiet")
        assert 0.1 < evaluations(out)[0]["accuracy"] <= 1


def test_a_graph_with_gradients_is_refused_as_that(data, tmp_path):
    per_inject("differentiate", MLP, "-o", tmp_path / "step.onnx")
    assert "holds its backward pass already" in refusal(tmp_path / "step.onnx", tmp_path / "run", "--data", data / "train.npz")


@pytest.mark.parametrize("option", ["--lr", "--epochs", "--weight-decay", "--batch-size"])
def test_numbers_below_zero_are_refused_as_such(option, data, tmp_path):
    run = train(MLP, tmp_path, "--data", data / "train.npz", option, "-1", check=False)
    assert run.returncode and "unexpected argument" not in run.stderr and "-1" in run.stderr, run.stderr


def test_a_constant_of_another_optimizer_is_refused(data, tmp_path):
    for option, others in [("--momentum", "momentum or nesterov"), ("--beta1", "adam or adamw"), ("--alpha", "rmsprop")]:
        run = train(MLP, tmp_path, "--data", data / "train.npz", option, 0.5, check=False)
        assert run.returncode == 2 and f"{option} is of --optimizer {others}, and this is sgd" in run.stderr
        run = per_inject("differentiate", MLP, "-o", tmp_path / "step.onnx", option, 0.5, check=False)
        assert run.returncode == 2 and f"{option} is of --optimizer {others}, and this is none" in run.stderr


def test_a_gpu_that_is_not_there_is_an_error_and_never_the_cpu(data, tmp_path):
    options = ("--data", data / "train.npz", "--epochs", 1)
    sentence = refusal(MLP, tmp_path, *options, "--device", "cuda:1", "--tf32", "--cudnn-search", "heuristic", "--cuda-graph", "--cuda-arena", "exact")
    assert "the device cuda:1 cannot be had" in sentence and "pip install onnxruntime-gpu" in sentence
    for wrong in (["--device", "cuda:-1"], ["--device", "tpu"], ["--tf32"], ["--cuda-graph"], ["--optimizer", "none"], ["--coef", "1"]):
        run = train(MLP, tmp_path, *options, *wrong, check=False)
        assert run.returncode == 2, (wrong, run.stderr)


def test_where_nodes_run_is_told_when_asked(data, tmp_path):
    run = train(MLP, tmp_path, "--data", data / "train.npz", "--epochs", 1, "--verbose")
    assert "nodes of the step on CPUExecutionProvider." in run.stdout


def test_memory_stays_what_it_is(data, tmp_path):
    """Resident memory after 300 steps and after 4,000, or as many as PER_INJECT_TEST_TRAIN_STEPS says: of 4,000 steps, a tensor each would be
    9 MB, and their batches 120 MB."""
    end = int(os.environ.get("PER_INJECT_TEST_TRAIN_STEPS", 4000))
    process = start(MLP, tmp_path, "--data", data / "train.npz", "--epochs", end, "--batch-size", 128, "--checkpoint-every", 100000, *SAMPLED)

    def resident():
        with open(f"/proc/{process.pid}/statm") as f:
            return int(f.read().split()[1]) * 4096

    log = tmp_path / "log.jsonl"
    sizes = {}
    while process.poll() is None and len(sizes) < 2:
        made = log.read_bytes().count(b"\n") if log.exists() else 0
        for at in (300, end):
            if made >= at and at not in sizes:
                sizes[at] = resident()
        time.sleep(0.02)
    process.kill()
    process.wait()
    print(f"after 300 and {end} steps: {sizes[300] / 1e6:.1f} and {sizes[end] / 1e6:.1f} MB resident")
    assert sizes[end] - sizes[300] < 6e6, sizes
