"""`per-inject train --engine tract` against the same run on ONNX Runtime, and where there is none."""

import os
import subprocess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import models
import training
from training import checkpoints, evaluations, losses, refusal, tensors, train, weights

MLP = models.MODELS / "mlp_relu.ts17.onnx"
TRACT = ("--engine", "tract")
# Both engines round every operation to float32 and add in another order; what 100 steps make of that.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Training data for each family of models: seven batches of 16 an epoch, the last one of 4."""
    folder = tmp_path_factory.mktemp("data")
    arrays = {"mlp": training.points(100, 1), "images": training.images(100), "seq": training.sentences(100)}
    for name, each in arrays.items():
        np.savez(folder / f"{name}.npz", **each)
    x = np.random.default_rng(5).integers(0, 100, (100, 12))
    np.savez(folder / "gpt.npz", x=x, y=(x + 1) % 100)
    for family in ("cnn", "fixup", "bn"):
        (folder / f"{family}.npz").symlink_to(folder / "images.npz")
    return lambda model: folder / f"{model.split('_')[0].removesuffix('11').removesuffix('20')}.npz"


def both(model, out, *options):
    """The losses of a run on ONNX Runtime, and of the same one on tract."""
    train(models.MODELS / f"{model}.onnx", out / "ort", "--engine", "ort", "--quiet", *options)
    train(models.MODELS / f"{model}.onnx", out / "tract", *TRACT, "--quiet", *options)
    return losses(out / "ort"), losses(out / "tract")


EXACT = ("--estimator", "exact", "--coef", 0.1, "--layers")


@pytest.mark.parametrize("regulariser", ["vanilla", "exact"])
@pytest.mark.parametrize(
    "model, layers, rate",
    [
        ("mlp_relu.ts17", "relu", 0.1),
        ("mlp_relu.ts13", "relu", 0.1),
        ("cnn11_elu.ts17", "elu", 0.05),
        ("fixup_resnet20.ts17", "relu", 0.01),
        ("seq_lstm_lm.ts17", "lstm", 0.5),
        ("gpt_gelu.ts17", "gelu", 0.05),
    ],
)
def test_a_hundred_steps_are_those_of_onnx_runtime(model, layers, rate, regulariser, data, tmp_path):
    options = ("--data", data(model), "--batch-size", 16, "--epochs", 15, "--lr", rate)
    expected, found = both(model, tmp_path, *options, *((*EXACT, layers) if regulariser == "exact" else ()))
    assert len(found) == 105
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    # The state is that of a run that learnt: its weights moved, and to the same place.
    before, there, here = (weights(p) for p in (models.MODELS / f"{model}.onnx", tmp_path / "ort" / "model.onnx", tmp_path / "tract" / "model.onnx"))
    moved = {name for name in before if (before[name] != there[name]).any()}
    assert moved
    for name in moved:
        distance = np.abs(there[name] - before[name]).max()
        np.testing.assert_allclose(here[name], there[name], rtol=0, atol=0.05 * distance, err_msg=name)


@pytest.mark.parametrize("regulariser", ["vanilla", "exact"])
def test_ten_steps_of_a_network_with_batch_statistics_are_those_of_onnx_runtime(regulariser, data, tmp_path):
    """Training with batch statistics is chaotic: one weight moved by 6e-8 moves the loss by 2e-2 within 100 steps, so only the first ten
    can be compared, and the gradients by the state after one step."""
    exact = (*EXACT, "relu") if regulariser == "exact" else ()
    options = ("--data", data("bn_resnet8"), "--batch-size", 16, "--lr", 0.02, *exact)
    expected, found = both("bn_resnet8.ts17", tmp_path, *options, "--epochs", 2)
    np.testing.assert_allclose(found[:10], expected[:10], rtol=TOLERANCE)
    both("bn_resnet8.ts17", tmp_path / "one", *options, "--epochs", 1, "--checkpoint-every", 1, "--keep", 7)
    there, here = (tensors(checkpoints(tmp_path / "one" / engine)[1]) for engine in ("ort", "tract"))
    # Running statistics are among the state.
    assert there.keys() == here.keys() and any("running_var" in name for name in here)
    before = weights(models.MODELS / "bn_resnet8.ts17.onnx")
    for name, value in there.items():
        np.testing.assert_allclose(here[name], value, rtol=0, atol=1e-4 * np.abs(value - before[name]).max() + 1e-7, err_msg=name)


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "adamw", "rmsprop"])
def test_optimizers_with_state_and_noise_from_outside_make_the_same_steps(optimizer, data, tmp_path):
    options = ("--data", data("mlp"), "--batch-size", 16, "--epochs", 15, "--lr", 1e-3, "--optimizer", optimizer, "--layers", "relu", "--coef", 0.1, "--slices", 32)
    expected, found = both("mlp_relu.ts17", tmp_path, *options, "--clip-norm", 0.5)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


@pytest.mark.parametrize("model", ["mlp_relu.ts17", "bn_resnet8.ts17"])
def test_evaluations_are_those_of_onnx_runtime(model, data, tmp_path):
    """Steps so small that the weights stay the same; statistics are the running ones, which move all the same."""
    options = ("--data", data(model), "--eval", data(model), "--batch-size", 16, "--epochs", 2, "--lr", 1e-9)
    both(model, tmp_path, *options)
    for there, here in zip(evaluations(tmp_path / "ort"), evaluations(tmp_path / "tract"), strict=True):
        assert there.keys() == here.keys() and here["accuracy"] == there["accuracy"] and here["samples"] == 100
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-5)


def test_a_resumed_run_ends_in_the_same_bits(data, tmp_path):
    options = ("--data", data("mlp"), "--eval", data("mlp"), "--batch-size", 16, "--optimizer", "adam", "--lr", 1e-3, "--layers", "relu", "--coef", 0.1, "--slices", 16, "--quiet", *TRACT)
    train(MLP, tmp_path / "whole", *options, "--epochs", 4)
    train(MLP, tmp_path / "parts", *options, "--epochs", 2)
    train(MLP, tmp_path / "parts", *options, "--epochs", 4, "--resume")
    assert (losses(tmp_path / "parts") == losses(tmp_path / "whole")).all()
    assert (tmp_path / "parts" / "model.onnx").read_bytes() == (tmp_path / "whole" / "model.onnx").read_bytes()


def test_one_engine_goes_on_where_the_other_stopped(data, tmp_path):
    options = ("--data", data("mlp"), "--batch-size", 16, "--lr", 0.1, "--quiet")
    train(MLP, tmp_path / "ort", *options, "--engine", "ort", "--epochs", 4)
    train(MLP, tmp_path / "parts", *options, "--engine", "ort", "--epochs", 2)
    train(MLP, tmp_path / "parts", *options, *TRACT, "--epochs", 4, "--resume")
    np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "ort"), rtol=TOLERANCE)


def test_masks_of_dropout_have_the_shape_that_the_batch_gives_them(data, tmp_path):
    """A shape that no declaration tells, behind a Dropout that draws itself in the graph that tells it."""
    rng = np.random.default_rng(0)
    w, v = rng.standard_normal((64, 32)).astype(np.float32) / 8, rng.standard_normal((32, 10)).astype(np.float32) / 8
    constant = lambda name, value: onnx.numpy_helper.from_array(np.asarray(value), name)
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Dropout", ["a", "ratio", "on"], ["b"]),
        node("Relu", ["b"], ["c"]),
        node("NonZero", ["ones"], ["places"]),
        node("Shape", ["places"], ["extent"]),
        node("Gather", ["extent", "last"], ["n"], axis=0),
        node("Concat", ["n", "rest"], ["shape"], axis=0),
        node("Reshape", ["c", "shape"], ["d"]),
        node("Dropout", ["d", "ratio", "on"], ["e"]),
        node("Reshape", ["e", "flat"], ["f"]),
        node("MatMul", ["f", "v"], ["logits"]),
        node("SoftmaxCrossEntropyLoss", ["logits", "y"], ["loss"]),
        node("Shape", ["y"], ["ys"]),
        node("ConstantOfShape", ["ys"], ["ones_"], value=helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])),
        node("Identity", ["ones_"], ["ones"]),
    ]
    nodes = nodes[:3] + nodes[-3:] + nodes[3:-3]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "dropout",
        [value("x", TensorProto.FLOAT, ["N", 64]), value("y", TensorProto.INT64, ["N"])],
        [value("loss", TensorProto.FLOAT, [])],
        [
            constant("w", w), constant("v", v), constant("ratio", np.float32(0.25)), constant("on", np.bool_(True)),
            constant("last", np.array([1])), constant("rest", np.array([4, 8])), constant("flat", np.array([-1, 32])),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "dropout.onnx")
    options = ("--data", data("mlp"), "--batch-size", 16, "--epochs", 3, "--lr", 0.1, "--quiet")
    train(tmp_path / "dropout.onnx", tmp_path / "ort", "--engine", "ort", *options)
    train(tmp_path / "dropout.onnx", tmp_path / "tract", *TRACT, *options)
    np.testing.assert_allclose(losses(tmp_path / "tract"), losses(tmp_path / "ort"), rtol=TOLERANCE)


def test_a_step_that_gives_no_number_is_seen_and_traced(data, tmp_path):
    words = refusal(MLP, tmp_path, "--data", data("mlp"), "--batch-size", 16, "--epochs", 9, "--lr", 1e30, *TRACT)
    assert "step " in words and "the first NaN is in" in words and "is kept in" in words, words


def test_operators_that_tract_lacks_are_named_with_what_to_do(data, tmp_path):
    model = onnx.load(MLP)
    first = model.graph.node[0]
    model.graph.node.insert(0, helper.make_node("ReverseSequence", ["x", "lengths"], ["turned"], name="turn", batch_axis=0, time_axis=1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(16, 64), "lengths"))
    first_reader = next(n for n in model.graph.node if n.name == first.name and n.op_type == first.op_type)
    first_reader.input[list(first_reader.input).index("x")] = "turned"
    onnx.save(model, tmp_path / "turned.onnx")
    options = ("--data", data("mlp"), "--batch-size", 16, "--epochs", 1)
    words = refusal(tmp_path / "turned.onnx", tmp_path / "run", *options, *TRACT)
    assert 'node "turn" (ReverseSequence)' in words and "--engine ort" in words, words
    words = refusal(MLP, tmp_path / "gpu", *options, *TRACT, "--device", "cuda")
    assert "tract runs on the CPU alone" in words and "--engine ort" in words, words


def test_the_readme_example_runs_where_nothing_is_installed(data, tmp_path):
    """No ONNX Runtime, no Python, no environment."""
    for name in ("train", "test"):
        (tmp_path / f"{name}.npz").symlink_to(data("mlp"))
    (tmp_path / "model.onnx").symlink_to(MLP)
    readme = (models.ROOT / "README.md").read_text()
    line = next(l for l in readme.splitlines() if l.startswith("per-inject train model.onnx "))
    arguments = [os.environ["PER_INJECT"], *line.split()[1:]]
    for out, engine, words in [("run/", ["--engine", "tract"], "tract 0.23.9"), ("auto", [], "there is no ONNX Runtime")]:
        command = [out if a == "run/" else a for a in arguments] + engine
        run = subprocess.run(command, cwd=tmp_path, env={"PATH": str(tmp_path)}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert words in run.stderr and "10 epochs" in run.stdout, run
        assert (tmp_path / out / "model.onnx").is_file() and evaluations(tmp_path / out)
    command = [a if a != "run/" else "none" for a in arguments] + ["--engine", "ort"]
    run = subprocess.run(command, cwd=tmp_path, env={"PATH": str(tmp_path)}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert run.returncode == 1 and "no ONNX Runtime was found" in run.stderr, run
