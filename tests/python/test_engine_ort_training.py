"""`per-inject train --engine ort-training`: ONNX Runtime's training API driven from Rust, inside a Python that has onnxruntime-training-cpu."""

import dataclasses
import json
import pathlib
import shutil
import subprocess

import numpy as np
import onnx
import pytest

import models
import ort
import python_package
import training

STEPS = 1000
TRAINING_PYTHON = ort.TRAINING_PYTHON


@pytest.fixture(scope="session")
def train():
    """`train(model, out, *options)` runs per-inject train --engine ort-training inside .venv-ort-training's Python; the finished process."""
    return lambda model, out, *options, check=True: python_package.train(model, out, "--engine", "ort-training", *options, check=check)


def loop(what, folder, **request):
    """A half of ort_loop.py, in `folder`."""
    (folder / "request.json").write_text(json.dumps(request))
    script = pathlib.Path(__file__).with_name("ort_loop.py")
    subprocess.run([TRAINING_PYTHON, script, what, folder], check=True, stdin=subprocess.DEVNULL, capture_output=True)


@dataclasses.dataclass(frozen=True)
class Case:
    model: str
    arrays: dict[str, np.ndarray]
    batch: int
    layers: str
    rate: float

    def feeds(self):
        transposed = self.model.startswith("seq")
        distinct = training.batches(self.arrays, self.batch, len(self.arrays["x"]) // self.batch, transposed)
        return {key: np.stack([batch[key] for batch in distinct]) for key in self.arrays}

    def options(self, steps, data, rate=None):
        epochs = -(-steps * self.batch // len(self.arrays["x"]))
        return ["--data", data, "--epochs", epochs, "--batch-size", self.batch, "--no-shuffle", "--lr", rate or self.rate, "--quiet"]


CASES = {
    "mlp": Case("mlp_relu.ts17", training.points(320, 1), 32, "relu", 0.1),
    "lstm": Case("seq_lstm_lm.ts17", training.sentences(80), 8, "lstm", 0.5),
}
KINDS = {
    "vanilla": ["--layers", "none"],
    # Without a seed the Python loop is not bit for bit that of another process either.
    "sampled": ["--slices", 64, "--coef", 0.1, "--seed", 7],
    "exact": ["--estimator", "exact", "--coef", 0.1],
}


def artifacts(case, inject, folder, kind, optimizer="sgd"):
    """What generate_artifacts makes of a model that PER was put into; the trained parameters."""
    model = models.reference(case.model)
    options = KINDS[kind] if kind == "vanilla" else ["--layers", case.layers, *KINDS[kind]]
    injected = inject(model.path, "--for", "ort-training", *options)
    (folder / "model.onnx").write_bytes(injected.data)
    loop("make", folder, parameters=model.trainable, optimizer=optimizer)
    np.savez(folder / "feeds.npz", **case.feeds())
    np.savez(folder / "data.npz", **case.arrays)
    return model.trainable


def same_bits(ours, expected):
    np.testing.assert_array_equal(np.asarray(ours).view(np.uint32), np.asarray(expected).view(np.uint32))


def check(folder, out, parameters, steps):
    """The run in `out` is, bit for bit, what the Python loop made of the artifacts in `folder`."""
    losses = training.losses(out)
    assert len(losses) == steps
    same_bits(losses.astype(np.float32), np.load(folder / "losses.npy").reshape(-1))
    trained = training.tensors(out / "model.safetensors")
    assert set(trained) == set(parameters)
    with np.load(folder / "parameters.npz") as expected:
        for name in parameters:
            same_bits(trained[name], expected[name])
    # It went somewhere.
    assert abs(losses[-1] - losses[0]) > 1e-3


@pytest.mark.parametrize("kind", ["vanilla", "sampled"])
@pytest.mark.parametrize("name", CASES)
def test_a_thousand_steps_are_bit_for_bit_those_of_the_python_loop(train, inject, name, kind, tmp_path):
    case = CASES[name]
    parameters = artifacts(case, inject, tmp_path, kind)
    loop("run", tmp_path, parameters=parameters, rate=case.rate, steps=STEPS)
    train(tmp_path / "artifacts", tmp_path / "out", *case.options(STEPS, tmp_path / "data.npz"))
    check(tmp_path, tmp_path / "out", parameters, STEPS)


@pytest.mark.parametrize("kind", ["sampled", "exact"])
def test_per_in_the_gradients_of_artifacts_is_trained_as_the_python_loop_does(train, inject, kind, tmp_path):
    case = CASES["mlp"]
    parameters = artifacts(case, inject, tmp_path, "vanilla", "adamw")
    path = tmp_path / "artifacts" / "training_model.onnx"
    plain = path.read_bytes()
    path.write_bytes(inject(path, "--layers", "relu", *KINDS[kind], check=False).data)
    assert path.read_bytes() != plain
    loop("run", tmp_path, parameters=parameters, rate=1e-3, steps=100)
    train(tmp_path / "artifacts", tmp_path / "out", *case.options(100, tmp_path / "data.npz", 1e-3))
    check(tmp_path, tmp_path / "out", parameters, 100)


@pytest.mark.parametrize("kind", ["vanilla", "exact"])
def test_artifacts_are_made_of_a_forward_model_and_its_weights_go_back_into_it(train, kind, tmp_path):
    case, model = CASES["mlp"], models.reference("mlp_relu.ts17")
    np.savez(tmp_path / "data.npz", **case.arrays)
    np.savez(tmp_path / "feeds.npz", **case.feeds())
    extra = [] if kind == "vanilla" else ["--layers", "relu", *KINDS[kind]]
    out = tmp_path / "out"
    train(model.path, out, *case.options(100, tmp_path / "data.npz"), "--python", TRAINING_PYTHON, *extra)
    (tmp_path / "artifacts").symlink_to(out / "artifacts")
    loop("run", tmp_path, parameters=model.trainable, rate=case.rate, steps=100)
    check(tmp_path, out, model.trainable, 100)
    # The file is the original but for the weights.
    trained, safe = onnx.load(out / "model.onnx"), training.tensors(out / "model.safetensors")
    for tensor in trained.graph.initializer:
        if tensor.name in safe:
            np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), safe[tensor.name])
    original = onnx.load(model.path)
    del trained.graph.initializer[:], original.graph.initializer[:]
    assert trained == original


def test_slices_and_a_coefficient_that_changes_are_those_of_the_other_engine(train, tmp_path):
    case, model = CASES["mlp"], models.reference("mlp_relu.ts17").path
    np.savez(tmp_path / "data.npz", **case.arrays)
    options = [*case.options(20, tmp_path / "data.npz"), "--layers", "relu", "--slices", 64, "--coef", "linear:0..0.5"]
    run = train(model, tmp_path / "ours", *[o for o in options if o != "--quiet"], "--python", TRAINING_PYTHON)
    assert "every step has to feed" not in run.stderr
    training.train(model, tmp_path / "theirs", *options)
    for key in ["loss", "task_loss", "coefficient", "per/net/net.1/Relu"]:
        found, expected = (training.losses(tmp_path / name, key) for name in ("ours", "theirs"))
        # Twenty steps of two sets of kernels in float32.
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(set(training.losses(tmp_path / "ours", "coefficient"))) == 20


def test_a_run_of_adamw_that_was_stopped_goes_on_bit_for_bit(train, inject, tmp_path):
    case = CASES["mlp"]
    artifacts(case, inject, tmp_path, "exact", "adamw")
    [half, whole] = [case.options(steps, tmp_path / "data.npz", 1e-3) for steps in (10, 20)]
    train(tmp_path / "artifacts", tmp_path / "whole", *whole)
    train(tmp_path / "artifacts", tmp_path / "halves", *half)
    train(tmp_path / "artifacts", tmp_path / "halves", *whole, "--resume")
    same_bits(training.losses(tmp_path / "halves").astype(np.float32), training.losses(tmp_path / "whole").astype(np.float32))
    whole, halves = (training.tensors(tmp_path / name / "model.safetensors") for name in ("whole", "halves"))
    for name, value in whole.items():
        same_bits(halves[name], value)


def test_the_model_of_artifacts_is_exported_for_inference(train, inject, session, tmp_path):
    case = CASES["mlp"]
    artifacts(case, inject, tmp_path, "vanilla")
    out = tmp_path / "out"
    run = train(tmp_path / "artifacts", out, *case.options(50, tmp_path / "data.npz"), "--eval", tmp_path / "data.npz", "--json")
    summary = json.loads(run.stdout or "null") or {}
    exported = onnx.load(out / "model.onnx")
    onnx.checker.check_model(exported)
    assert [value.name for value in exported.graph.input] == ["x"]
    [logits] = session(out / "model.onnx").run(None, {"x": case.arrays["x"]})
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    chances = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = -chances[np.arange(len(logits)), case.arrays["y"]].mean()
    [evaluation] = [e["loss"] for e in training.evaluations(out)][-1:]
    # The mean of means of ten batches in float32.
    assert evaluation == pytest.approx(loss, rel=1e-5)
    assert summary.get("steps", 50) == 50


def refusal(run):
    assert run.returncode == 1, run
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


def test_a_stock_runtime_is_refused_with_what_trains_on_it(tmp_path):
    np.savez(tmp_path / "data.npz", **CASES["mlp"].arrays)
    model = models.reference("mlp_relu.ts17").path
    message = training.refusal(model, tmp_path / "out", "--data", tmp_path / "data.npz", "--engine", "ort-training")
    assert "was built without ONNX Runtime's training API" in message and "--engine ort " in message


def test_artifacts_that_are_missing_or_garbled_are_named(train, inject, tmp_path):
    case = CASES["mlp"]
    artifacts(case, inject, tmp_path, "vanilla")
    options = case.options(10, tmp_path / "data.npz")
    made = tmp_path / "artifacts"
    refused = lambda folder, *more: refusal(train(folder, tmp_path / "out", *options, *more, check=False))
    assert "holds no training_model.onnx" in refused(tmp_path)
    for name, words in {
        "training_model.onnx": "holds no training_model.onnx",
        "optimizer_model.onnx": "optimizer_model.onnx is not beside it",
        "checkpoint": "checkpoint is not beside it",
    }.items():
        broken = tmp_path / f"without_{name}"
        shutil.copytree(made, broken)
        (broken / name).unlink()
        assert words in refused(broken)
    for name in ["training_model.onnx", "optimizer_model.onnx", "eval_model.onnx", "checkpoint"]:
        for what in ["cut", "text"]:
            broken = tmp_path / f"{what}_{name}"
            shutil.copytree(made, broken)
            whole = (broken / name).read_bytes()
            (broken / name).write_bytes(whole[: len(whole) // 2] if what == "cut" else b"no such thing")
            assert str(broken) in refused(broken)
    # The files of another prefix, named by one of them.
    for path in list(made.iterdir()):
        path.rename(made / f"mine_{path.name}")
    train(made / "mine_training_model.onnx", tmp_path / "out", *options)
    assert "puts PER into their gradients" in refused(made, "--layers", "relu")
    assert "--optimizer: artifacts hold" in refused(made, "--optimizer", "adamw")
    message = training.refusal(made, tmp_path / "other", "--data", tmp_path / "data.npz", "--engine", "ort")
    assert "which --engine ort-training takes" in message


def test_artifacts_of_a_newer_onnx_are_refused_with_the_one_to_install(train, inject, tmp_path):
    case = CASES["mlp"]
    artifacts(case, inject, tmp_path, "vanilla")
    # What an onnx of IR version 11 would have stamped.
    path = tmp_path / "artifacts" / "optimizer_model.onnx"
    made = onnx.load(path)
    made.ir_version = 11
    onnx.save(made, path)
    run = train(tmp_path / "artifacts", tmp_path / "out", *case.options(10, tmp_path / "data.npz"), check=False)
    message = refusal(run)
    assert "IR version" in message and 'pip install "onnx<1.18"' in message


def test_a_python_that_cannot_make_artifacts_and_an_optimizer_that_is_not_there_are_refused(train, tmp_path):
    case, model = CASES["mlp"], models.reference("mlp_relu.ts17").path
    np.savez(tmp_path / "data.npz", **case.arrays)
    refused = lambda *more: refusal(train(model, tmp_path / "out", *case.options(10, tmp_path / "data.npz"), *more, check=False))
    assert "has onnxruntime-training or" in refused("--python", training.VENV / "bin" / "python")
    assert "it is not there" in refused("--python", tmp_path / "python")
    assert "sgd and adamw, and no momentum" in refused("--python", TRAINING_PYTHON, "--optimizer", "momentum")
    assert "--group" in refused("--python", TRAINING_PYTHON, "--group", "all=lr:0.1")


def test_the_engine_that_was_chosen_is_told_with_the_reason(train, tmp_path):
    case, model = CASES["mlp"], models.reference("mlp_relu.ts17").path
    np.savez(tmp_path / "data.npz", **case.arrays)
    options = [o for o in case.options(10, tmp_path / "data.npz") if o != "--quiet"]
    told = lambda run: next(line for line in run.stderr.splitlines() if line.startswith("engine: "))
    assert told(training.train(model, tmp_path / "a", *options)).startswith("engine: ort (auto: it was found), ONNX Runtime 1.")
    assert told(training.train(model, tmp_path / "b", *options, "--engine", "ort")).startswith("engine: ort, ONNX Runtime 1.")
    inside = told(train(model, tmp_path / "c", *options, "--python", TRAINING_PYTHON))
    assert inside.startswith("engine: ort-training, the training API of ONNX Runtime 1.19.2") and inside.endswith("(of this process)")


def test_evaluations_are_in_inference_mode_and_running_statistics_that_stay_are_warned_of(train, session, tmp_path):
    model, images = models.reference("bn_resnet8.ts17"), training.images(16)
    np.savez(tmp_path / "data.npz", **images)
    options = ["--data", tmp_path / "data.npz", "--eval", tmp_path / "data.npz", "--epochs", 1, "--batch-size", 8, "--lr", 0.01]
    run = train(model.path, tmp_path / "out", *options, "--python", TRAINING_PYTHON)
    assert "leaves the running statistics of BatchNormalization as they came" in run.stderr
    trained = training.weights(tmp_path / "out" / "model.onnx")
    before = models.initializers(model.model)
    assert all((trained[name] == value).all() == (name not in model.trainable) for name, value in before.items())
    # The trained model in inference mode, without anything of per-inject.
    plain = onnx.load(tmp_path / "out" / "model.onnx")
    for node in plain.graph.node:
        if node.op_type == "BatchNormalization":
            kept = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
            del node.output[1:], node.attribute[:]
            node.attribute.extend(kept)
    del plain.graph.output[:]
    plain.graph.output.append(next(value for value in model.model.graph.output if value.name == "loss"))
    run = session(plain).run
    losses = [run(None, {name: value[first : first + 8] for name, value in images.items()})[0] for first in (0, 8)]
    [found] = training.evaluations(tmp_path / "out")
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_environment_of_onnxruntime_training_is_no_library_and_the_way_in_is_told(tmp_path):
    np.savez(tmp_path / "data.npz", **CASES["mlp"].arrays)
    model = models.reference("mlp_relu.ts17").path
    words = [training.os.environ["PER_INJECT"], "train", model, "--data", tmp_path / "data.npz", "--out", tmp_path / "out"]
    words += ["--engine", "ort-training", "--ort", training.ROOT / ".venv-ort-training", "--quiet"]
    run = subprocess.run([str(word) for word in words], env=training.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert "python -m per_inject train" in refusal(run)
    nowhere = training.environment() | {"PATH": str(tmp_path)}
    words = [word for word in words if word not in ("--ort", training.ROOT / ".venv-ort-training", "--quiet")]
    for engine in ["ort-training", "auto"]:
        words[words.index("--engine") + 1] = engine
        run = subprocess.run([str(word) for word in words], env=nowhere, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if engine == "auto" and run.returncode == 0:
            # A program with tract inside needs nothing else.
            assert "engine: tract" in run.stderr and "there is no ONNX Runtime" in run.stderr
        else:
            assert run.returncode == 1 and "no ONNX Runtime was found" in run.stderr and "pip install" in run.stderr
