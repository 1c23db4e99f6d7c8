"""`per-inject train --accumulate` and `--loss-scale`: small batches in place of a large one, and gradients that half precision can hold."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import models
import training
from training import checkpoints, losses, position, refusal, tensors, train, weights

MLP = models.MODELS / "mlp_relu.ts17.onnx"
OPTIMIZERS = {"sgd": 0.1, "momentum": 0.05, "adamw": 1e-3}
EXACT = ("--layers", "relu", "--estimator", "exact", "--coef", 0.5)
ROWS, BATCH = 600, 60


@pytest.fixture
def data(tmp_path):
    np.savez(tmp_path / "data.npz", **training.points(ROWS, 1))
    return tmp_path / "data.npz"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_so_many_small_batches_are_one_large_batch(data, tmp_path, optimizer):
    """Both are means over the same rows, so that only the order of float32 sums differs: 6e-8 a step, over forty steps."""
    options = ("--data", data, "--epochs", 4, "--no-shuffle", "--optimizer", optimizer, "--lr", OPTIMIZERS[optimizer], "--weight-decay", 0.01)
    options += ("--clip-norm", 0.5, "--quiet", *EXACT)
    if optimizer == "adamw":
        options += ("--epsilon", 1e-4)
    train(MLP, tmp_path / "large", *options, "--batch-size", BATCH)
    large = losses(tmp_path / "large")
    for count in (2, 4):
        run = tmp_path / str(count)
        train(MLP, run, *options, "--batch-size", BATCH // count, "--accumulate", count)
        small = losses(run).reshape(len(large), count).mean(axis=1)
        np.testing.assert_allclose(small, large, rtol=0, atol=1e-5)
        expected = weights(tmp_path / "large" / "model.onnx")
        for name, value in weights(run / "model.onnx").items():
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5, err_msg=name)
    assert large[0] - large[-1] > 0.05


def test_an_epochs_last_gradients_are_not_kept_for_the_next(data, tmp_path):
    """Ten batches an epoch in fours: the last two make a step of their own, so that nothing is held at the end."""
    options = ("--data", data, "--no-shuffle", "--batch-size", BATCH, "--lr", 0.1, "--quiet", "--keep", 100, "--checkpoint-every", 1)
    train(MLP, tmp_path / "run", *options, "--epochs", 2, "--accumulate", 4)
    found = [(position(path)["updates"], position(path)["held"]) for _, path in sorted(checkpoints(tmp_path / "run").items())]
    epoch = [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (3, 0)]
    assert found == epoch + [(updates + 3, held) for updates, held in epoch]
    sums = {name: value for name, value in tensors(checkpoints(tmp_path / "run")[10]).items() if name.endswith("_sum")}
    assert sums and not any(value.any() for value in sums.values())
    # One weight after another stays between steps.
    before, after = (tensors(checkpoints(tmp_path / "run")[step]) for step in (4, 7))
    assert all((before[name] == after[name]).all() for name in weights(MLP) if name in before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_goes_on_in_the_middle_of_a_sum_bit_for_bit(data, tmp_path, optimizer):
    options = ("--data", data, "--epochs", 2, "--batch-size", 30, "--optimizer", optimizer, "--lr", OPTIMIZERS[optimizer], "--accumulate", 3, "--quiet")
    options += ("--layers", "relu", "--coef", 0.1, "--slices", 16, "--keep", 100, "--checkpoint-every", 1)
    train(MLP, tmp_path / "whole", *options)
    whole = checkpoints(tmp_path / "whole")
    # In the first epoch and in the second, one and two gradients in; and at the end of an epoch.
    for step in (4, 5, 20, 28):
        run = tmp_path / f"from-{step}"
        (run / "checkpoints").mkdir(parents=True)
        shutil.copy(whole[step], run / "checkpoints")
        shutil.copy(tmp_path / "whole" / "log.jsonl", run)
        assert (position(whole[step])["held"] > 0) == (step != 20)
        train(MLP, run, *options, "--resume")
        assert (run / "model.onnx").read_bytes() == (tmp_path / "whole" / "model.onnx").read_bytes()
        assert (losses(run) == losses(tmp_path / "whole")).all()
        end = tensors(checkpoints(run)[40])
        assert all((value == end[name]).all() for name, value in tensors(whole[40]).items())
    other = [2 if option == 3 else option for option in options]
    assert "--accumulate 3, and this one has 2" in refusal(MLP, tmp_path / "whole", *[o for o in other if o != "--quiet"], "--resume")


def half(tmp_path):
    """The MLP in float16, with a loss so small that its gradients are below what float16 holds, 6e-8."""
    model = onnx.load(MLP)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    [loss] = [node for node in model.graph.node if "loss" in node.output]
    loss.output[list(loss.output).index("loss")] = "large_loss"
    model.graph.initializer.append(numpy_helper.from_array(np.float16(2**-15), "scale_of_loss"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["large_loss", "scale_of_loss"], ["loss"]))
    path = tmp_path / "half.onnx"
    onnx.save(model, path)
    return path


def test_a_scaled_loss_keeps_gradients_that_half_precision_would_lose(data, tmp_path):
    """2⁻¹⁵ in the loss is made up for by 2¹⁵ in its scale and in the learning rate: the steps are those of the plain loss."""
    options = ("--data", data, "--epochs", 1, "--no-shuffle", "--batch-size", BATCH, "--freeze", "scale_of_loss", "--quiet")
    path, plain = half(tmp_path), tmp_path / "plain.onnx"
    model = onnx.load(path)
    [scale] = [t for t in model.graph.initializer if t.name == "scale_of_loss"]
    scale.CopyFrom(numpy_helper.from_array(np.float16(1), "scale_of_loss"))
    onnx.save(model, plain)
    train(plain, tmp_path / "plain", *options, "--lr", 0.1)
    train(path, tmp_path / "scaled", *options, "--lr", 0.1 * 2**15, "--loss-scale", 2**15)
    train(path, tmp_path / "lost", *options, "--lr", 0.1 * 2**15)
    gradients = {run: losses(tmp_path / run, "gradient_norm") for run in ("plain", "scaled", "lost")}
    # float16 rounds to 5e-4; what falls below 6e-8 is gone.
    np.testing.assert_allclose(gradients["scaled"] * 2**15, gradients["plain"], rtol=2e-3)
    start, *ends = (weights(p) for p in (path, tmp_path / "plain" / "model.onnx", tmp_path / "scaled" / "model.onnx", tmp_path / "lost" / "model.onnx"))
    moved = [np.concatenate([(end[n].astype(np.float64) - start[n]).ravel() for n in start if start[n].dtype == np.float16 and n != "scale_of_loss"]) for end in ends]
    apart = lambda other: np.linalg.norm(other - moved[0]) / np.linalg.norm(moved[0])
    assert apart(moved[1]) < 0.02 < 5 * 0.02 < apart(moved[2])


def test_a_scale_that_is_too_large_is_no_number(data, tmp_path):
    options = ("--data", data, "--epochs", 1, "--batch-size", BATCH, "--lr", 0.1, "--freeze", "scale_of_loss", "--loss-scale", 2.0**40)
    path = half(tmp_path)
    message = refusal(path, tmp_path / "stop", *options)
    assert "step 1 gave a gradient norm of" in message
    train(path, tmp_path / "skip", *options, "--on-nan", "skip", "--quiet")
    found, start = weights(tmp_path / "skip" / "model.onnx"), weights(path)
    assert all((found[name] == value).all() for name, value in start.items())


@pytest.mark.parametrize("name, layers", [("mlp_relu.ts17", "relu"), ("seq_lstm_lm.ts17", "lstm")])
def test_what_is_made_ahead_on_another_thread_is_what_is_made_when_it_is_wanted(name, layers, tmp_path):
    """Random numbers, and the axis that counts samples; the epoch's last batch is smaller, and the second epoch begins again."""
    np.savez(tmp_path / "data.npz", **(training.points(100, 2) if name.startswith("mlp") else training.sentences(40)))
    options = ("--data", tmp_path / "data.npz", "--eval", tmp_path / "data.npz", "--epochs", 2, "--batch-size", 16, "--lr", 0.1)
    options += ("--layers", layers, "--coef", 0.1, "--slices", 8, "--quiet")
    for ahead in (0, 1, 3):
        train(models.MODELS / f"{name}.onnx", tmp_path / str(ahead), *options, "--ahead", ahead)
    for ahead in (1, 3):
        assert (tmp_path / str(ahead) / "model.onnx").read_bytes() == (tmp_path / "0" / "model.onnx").read_bytes()
        assert (losses(tmp_path / str(ahead)) == losses(tmp_path / "0")).all()
        assert training.evaluations(tmp_path / str(ahead)) and [
            {k: v for k, v in e.items() if k != "samples_per_second"} for e in training.evaluations(tmp_path / str(ahead))
        ] == [{k: v for k, v in e.items() if k != "samples_per_second"} for e in training.evaluations(tmp_path / "0")]


def test_nodes_that_go_on_drawing_themselves_are_named_at_the_start(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x) => (float loss) <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, float[N,4] r> {
      h = MatMul(x, w)  k = Multinomial<sample_size = 1>(x)  kf = Cast<to = 1>(k)  s = Mul(h, kf)  c = Constant<value = bool {1}>()
      r = If(c) <then_branch = t () => (float[N,4] p) { q = RandomNormalLike(s)  p = Add(s, q) }, else_branch = e () => (float[N,4] z) { z = Neg(s) }>
      loss = ReduceMean<keepdims = 0>(r)
    }"""
    (tmp_path / "m.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).random((16, 4), np.float32))
    run = train(tmp_path / "m.onnx", tmp_path / "run", "--data", tmp_path / "data.npz", "--epochs", 1, "--batch-size", 8)
    said = [line for line in run.stderr.splitlines() if line.startswith("warning: ")]
    assert len(said) == 2 and all("a resumed run draws other numbers there than an uninterrupted one" in line for line in said)
    assert "(Multinomial)" in said[0] and "(If): what it draws, it draws in a body" in said[1]
