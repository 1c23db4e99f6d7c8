"""Trainer runs the loop of `per-inject train`: the same bits, from arrays in memory."""

import contextlib
import errno
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import per_inject
from conftest import MODELS, ROOT, program

MLP = MODELS / "mlp_relu.ts17.onnx"
ORT = importlib.util.find_spec("onnxruntime").submodule_search_locations[0]

pytestmark = pytest.mark.filterwarnings("ignore::per_inject.PerInjectWarning")


@pytest.fixture(scope="module")
def arrays():
    """160 samples, of which a fixed function makes the labels."""
    given = np.load(MODELS / "mlp_relu.inputs.npz")
    generator = np.random.default_rng(0)
    x = generator.standard_normal((160, *given["x"].shape[1:])).astype(np.float32)
    y = np.abs(x.reshape(160, -1) @ generator.standard_normal((x[0].size, 10))).argmax(1).astype(np.int64)
    return {"x": x, "y": y}


def settings():
    """Of the trainer, and of the program."""
    return (
        {"layers": "relu", "coef": "cosine:1e-2..0", "optimizer": "adam", "lr": 1e-3, "batch_size": 32, "seed": 3, "threads": 1},
        ["--layers", "relu", "--coef", "cosine:1e-2..0", "--optimizer", "adam", "--lr", "0.001", "--batch-size", "32", "--seed", "3"],
    )


@pytest.fixture(scope="module")
def trained_by_program(arrays, tmp_path_factory):
    """The folder of the program's run on the same data, and its summary."""
    folder = tmp_path_factory.mktemp("program")
    np.savez(folder / "data.npz", **arrays)
    np.savez(folder / "eval.npz", **{name: array[:48] for name, array in arrays.items()})
    options = [*settings()[1], "--threads", 1, "--ort", ORT, "--epochs", 3, "--eval", folder / "eval.npz", "--json", "--quiet"]
    run = program("train", MLP, "--data", folder / "data.npz", "--out", folder / "run", *options)
    return folder / "run", json.loads(run.stdout)


def timeless(summary):
    """What does not depend on the clock or the folder."""
    if isinstance(summary, dict):
        return {key: timeless(value) for key, value in summary.items() if key not in ("samples_per_second", "written", "time")}
    return summary


def test_it_ends_in_the_bits_of_the_programs_run(kind, arrays, trained_by_program, tmp_path):
    folder, expected = trained_by_program
    trainer = per_inject.Trainer(kind.give(MLP), **settings()[0])
    with pytest.raises(AttributeError, match="fit"):
        trainer.weights
    out = tmp_path / "run" if kind.name in ("str", "path") else None
    summary = trainer.fit(arrays, {name: array[:48] for name, array in arrays.items()}, epochs=3, out=out)
    assert timeless(summary) == timeless(expected)
    assert summary["evaluation"]["accuracy"] > 0.2

    result = trainer.model
    if out:
        assert type(result) is type(kind.give(MLP)) and pathlib.Path(result) == out / "model.onnx"
        result = pathlib.Path(result).read_bytes()
    else:
        result = kind.take(result)
    assert result == kind.same((folder / "model.onnx").read_bytes())

    model = onnx.load_from_string(bytes(result))
    before = {t.name: numpy_helper.to_array(t) for t in onnx.load(MLP).graph.initializer}
    assert trainer.weights.keys() == before.keys()
    for tensor in model.graph.initializer:
        weights = trainer.weights[tensor.name]
        assert weights.dtype == np.float32 and weights.flags.writeable
        np.testing.assert_array_equal(weights, numpy_helper.to_array(tensor))
        assert not np.array_equal(weights, before[tensor.name])

    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [timeless(e["values"]) for e in trainer.history if "epoch/loss" not in e["values"]] == [
        {k: v for k, v in e["values"].items() if k != "samples_per_second"} for e in log if "epoch/loss" not in e["values"]
    ]
    assert [e["kind"] for e in trainer.history] == (["train"] * 6 + ["eval"]) * 3


def test_arrays_of_any_layout_and_files_train_the_same(arrays, tmp_path):
    def weights(data):
        trainer = per_inject.Trainer(MLP.read_bytes(), batch_size=32, threads=1)
        trainer.fit(data, epochs=1)
        return trainer.weights

    np.savez(tmp_path / "data.npz", **arrays)
    np.save(tmp_path / "y.npy", arrays["y"])
    np.save(tmp_path / "x.npy", arrays["x"])
    expected = weights(arrays)
    for data in (
        {"x": np.asfortranarray(arrays["x"]), "y": arrays["y"].tolist()},
        {"x": arrays["x"].astype(">f4"), "y": arrays["y"].astype(np.int32), "unused": np.zeros((160, 2))},
        {"x": np.repeat(arrays["x"], 2, 0)[::2], "y": arrays["y"]},
        tmp_path / "data.npz",
        [str(tmp_path / "x.npy"), tmp_path / "y.npy"],
    ):
        for name, values in weights(data).items():
            np.testing.assert_array_equal(values, expected[name])


def handler_of_ones_own(number, frame):
    raise RuntimeError("a handler of one's own")


@contextlib.contextmanager
def signalled_at_a_checkpoint(folder, number):
    """Sends this process the signal as soon as a run has written a checkpoint into its folder."""
    is_over = threading.Event()

    def watch():
        while not is_over.wait(0.001):
            if list(folder.glob("checkpoints/step-*")):
                os.kill(os.getpid(), number)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("number, handler, raised", [
    (signal.SIGINT, signal.default_int_handler, KeyboardInterrupt),
    (signal.SIGALRM, handler_of_ones_own, RuntimeError),
])  # fmt: skip
def test_it_goes_on_where_it_was_stopped_and_ends_in_the_same_bits(arrays, number, handler, raised, tmp_path):
    def trainer():
        return per_inject.Trainer(MLP, "relu", 1e-2, batch_size=8, threads=1, optimizer="adam")

    folder, per_epoch = tmp_path / "run", 20
    stopped, before = trainer(), signal.signal(number, handler)
    try:
        # Of so many epochs none but a signal makes an end.
        with signalled_at_a_checkpoint(folder, number), pytest.raises(raised):
            stopped.fit(arrays, epochs=1_000_000, out=folder, checkpoint_every=7)
    finally:
        signal.signal(number, before)
    # The state where it was stopped, as in memory.
    assert per_inject.weights_put(MLP.read_bytes(), stopped.weights) == stopped.model.read_bytes() != MLP.read_bytes()
    assert stopped.model == folder / "model.onnx" and stopped.history[-1]["step"] >= 7
    done = max(int(path.stem.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))
    assert done >= 7 and len((folder / "log.jsonl").read_text().splitlines()) >= done, "a stopped run leaves its state and its log"

    # One more epoch at least, for the run that goes on and for one that never stopped.
    epochs = done // per_epoch + 2
    summary = stopped.fit(arrays, epochs=epochs, out=folder, resume=True)
    assert (summary["resumed_from"], summary["steps"]) == (done, epochs * per_epoch)
    whole = trainer()
    whole.fit(arrays, epochs=epochs, out=tmp_path / "whole")
    for name, values in whole.weights.items():
        np.testing.assert_array_equal(stopped.weights[name], values)
    losses = [[e["values"].get("loss") for e in run.history if e["kind"] == "train"] for run in (stopped, whole)]
    assert losses[0] == losses[1]


def test_a_run_that_is_interrupted_leaves_its_state_in_memory(arrays):
    """After so many steps that is what a run of as many steps over the same batches gives."""

    def trainer():
        return per_inject.Trainer(MLP.read_bytes(), "relu", 1e-2, batch_size=32, shuffle=False, threads=1)

    stopped = trainer()
    timer = threading.Timer(0.6, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            stopped.fit(arrays, epochs=1_000_000)
    finally:
        timer.cancel()
    steps = [event["step"] for event in stopped.history if "loss" in event["values"]]
    assert steps == list(range(1, len(steps) + 1))
    assert per_inject.weights_put(MLP.read_bytes(), stopped.weights) == stopped.model
    epochs, rest = divmod(len(steps), 5)
    whole = trainer()
    whole.fit(arrays, epochs=epochs + (rest > 0))
    losses = [[event["values"]["loss"] for event in run.history if "loss" in event["values"]] for run in (stopped, whole)]
    assert losses[0] == losses[1][: len(steps)]
    for name, values in whole.weights.items():
        assert np.array_equal(stopped.weights[name], values) == (rest == 0)


def test_a_run_without_a_number_leaves_the_state_before_that_step(arrays, tmp_path):
    """A learning rate of 10⁹ takes few steps to a loss that is none. What is left is what the steps before it give."""

    def trainer(model):
        return per_inject.Trainer(model, lr=1e9, threads=1, batch_size=32, shuffle=False)

    stopped = trainer(MLP.read_bytes())
    with pytest.raises(per_inject.RefusedError, match="step [0-9]+ gave") as caught:
        stopped.fit(arrays, epochs=3)
    said = str(caught.value)
    assert "the state before it is in weights, model and history of the Trainer; start" in said and "per-inject-" not in said and "--" not in said
    steps = [event["step"] for event in stopped.history if "loss" in event["values"]]
    assert 1 <= len(steps) < 5
    expected = trainer(MLP.read_bytes())
    expected.fit({name: array[: 32 * len(steps)] for name, array in arrays.items()}, epochs=1)
    assert stopped.model == expected.model
    for name, values in expected.weights.items():
        np.testing.assert_array_equal(stopped.weights[name], values)
        assert np.isfinite(values).all()

    # With out= the checkpoint is there, and the sentence names its folder.
    stopped = trainer(MLP)
    with pytest.raises(per_inject.RefusedError, match=f"kept in {tmp_path}/run/checkpoints.*resume=True"):
        stopped.fit(arrays, epochs=3, out=tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert stopped.model.read_bytes() == expected.model


def test_a_refused_run_leaves_the_one_before(arrays, tmp_path):
    trainer = per_inject.Trainer(MLP, batch_size=32, threads=1)
    trainer.fit(arrays, epochs=1, out=tmp_path / "run")
    before = trainer.weights
    with pytest.raises(per_inject.RefusedError, match="holds a run already"):
        trainer.fit(arrays, epochs=1, out=tmp_path / "run")
    assert trainer.weights is before
    other = per_inject.Trainer(MLP, batch_size=32, threads=1)
    with pytest.raises(per_inject.RefusedError, match="holds a run already"):
        other.fit(arrays, epochs=1, out=tmp_path / "run")
    with pytest.raises(AttributeError, match="nothing is trained yet"):
        other.weights


def test_other_threads_go_on_while_it_trains(arrays):
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            time.sleep(0.001)
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.perf_counter()
    try:
        per_inject.Trainer(MLP.read_bytes(), "relu", 1e-3, batch_size=32, threads=1).fit(arrays, epochs=20)
    finally:
        seconds = time.perf_counter() - started
        done.set()
        thread.join()
    gaps = np.diff([started, *ticks])
    assert gaps.max() < 0.5 * seconds, f"{gaps.max():.3f} s of {seconds:.3f} s"


def test_it_runs_beside_the_onnxruntime_that_python_has_loaded(arrays):
    data = per_inject.inject(MLP.read_bytes(), "relu", 1e-3, estimator="exact")
    feeds = {name: array[:8] for name, array in arrays.items()}
    (before,) = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(["loss"], feeds)
    trainer = per_inject.Trainer(data, batch_size=32, threads=1)
    trainer.fit(arrays, epochs=5)
    (after,) = onnxruntime.InferenceSession(trainer.model, providers=["CPUExecutionProvider"]).run(["loss"], feeds)
    assert after < before


def test_remarks_of_the_run_are_warnings(arrays):
    trainer = per_inject.Trainer(MLP.read_bytes(), batch_size=32, threads=1)
    with pytest.warns(per_inject.PerInjectWarning, match="unused") as caught:
        trainer.fit({**arrays, "unused": np.zeros((160, 2))}, epochs=1)
    assert caught[0].filename == __file__


def test_refusals(arrays, tmp_path):
    data = MLP.read_bytes()
    with pytest.raises(per_inject.UsageError, match='optimizer="none"'):
        per_inject.Trainer(data, optimizer="none").fit(arrays)
    with pytest.raises(per_inject.UsageError, match="out=FOLDER"):
        per_inject.Trainer(MLP).fit(arrays)
    with pytest.raises(per_inject.RefusedError, match="x"):
        per_inject.Trainer(data).fit({"y": arrays["y"]})
    with pytest.raises(per_inject.RefusedError, match="rows"):
        per_inject.Trainer(data).fit({"x": arrays["x"], "y": arrays["y"][:-1]})
    with pytest.raises(per_inject.RefusedError, match="y"):
        per_inject.Trainer(data).fit({"x": arrays["x"], "y": arrays["y"] + 10})
    with pytest.raises(per_inject.RefusedError, match="step 1 gave"):
        per_inject.Trainer(data).fit({"x": np.full_like(arrays["x"], 1e38), "y": arrays["y"]}, epochs=1)
    with pytest.raises(per_inject.AccessError, match="nowhere.npz: No such file or directory") as caught:
        per_inject.Trainer(data).fit(tmp_path / "nowhere.npz")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(per_inject.RefusedError, match="it is empty"):
        (tmp_path / "empty.npz").touch()
        per_inject.Trainer(data).fit(tmp_path / "empty.npz")
    with pytest.raises(OSError, match="which ort names"):
        per_inject.Trainer(data, ort=tmp_path).fit(arrays)
    with pytest.raises(ValueError, match="holds a run already"):
        per_inject.Trainer(data, batch_size=32).fit(arrays, epochs=1, out=tmp_path / "run")
        per_inject.Trainer(data, batch_size=32).fit(arrays, epochs=1, out=tmp_path / "run")
    for wrong in (
        lambda: per_inject.Trainer(3),
        lambda: per_inject.Trainer(data, lr=None).fit(3),
        lambda: per_inject.Trainer(data, momentum="much"),
        lambda: per_inject.Trainer(data, shuffle="no"),
        lambda: per_inject.Trainer(data).fit({"x": np.array([object()]), "y": arrays["y"]}),
        lambda: per_inject.Trainer(data).fit({1: arrays["x"]}),
        lambda: per_inject.Trainer(data).fit(arrays, epochs="many"),
        lambda: per_inject.Trainer(data).fit(b"data.npz"),
    ):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize(
    "model, options, words",
    [
        (MLP, {"optimizer": "adamm"}, "adamm"),
        (MLP, {"optimizer": "none"}, "changes no parameter"),
        (MLP, {"lr": "fast"}, "invalid value 'fast' for 'lr'"),
        (MLP, {"lr": "cosin:0.1..0"}, "cosine"),
        (MLP, {"lr": 10**400}, "lr is larger"),
        (MLP, {"engine": "ortt"}, "ortt"),
        (MLP, {"coef": 1}, "which layers"),
        (MLP, {"layers": "relu", "coef": 3e5}, "any_coef=True"),
        (MLP, {"layers": "relu", "coef": "cosine:1"}, "cosine"),
        (MLP, {"tf32": True}, "tf32"),
        (MLP, {"batch_size": 0}, "batch_size"),
        (b"", {}, "empty"),
        (b"nothing", {}, "not an ONNX model"),
        (MLP.parent, {}, "generate_artifacts"),
        (MLP.parent.parent / "README.md", {}, "text file"),
    ],
)
def test_what_cannot_be_is_refused_when_the_trainer_is_made(model, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        per_inject.Trainer(model, **options)
    assert isinstance(caught.value, per_inject.PerInjectError)


def test_a_missing_model_is_refused_when_the_trainer_is_made(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        per_inject.Trainer(tmp_path / "missing.onnx")
    assert caught.value.filename == str(tmp_path / "missing.onnx")


def test_arrays_without_names_are_refused_with_what_to_do(arrays):
    x, y = arrays["x"], arrays["y"]
    trainer = per_inject.Trainer(MLP.read_bytes())
    for data in ((x, y), [x, y], [{"x": x, "y": y}], x, x.tobytes()):
        with pytest.raises(TypeError, match='dict of arrays by the name of the input.*"x": x'):
            trainer.fit(data)
        with pytest.raises(TypeError, match="dict of arrays by the name of the input"):
            trainer.fit(arrays, data)


def test_numbers_of_numpy_are_numbers(arrays):
    expected = per_inject.Trainer(MLP.read_bytes(), "relu", 0.5, lr=0.25, momentum=0.5, optimizer="momentum", threads=1)
    options = {"lr": np.float16(0.25), "momentum": np.float64(0.5), "optimizer": "momentum", "threads": 1}
    found = per_inject.Trainer(MLP.read_bytes(), "relu", np.float32(0.5), **options)
    for trainer in (expected, found):
        trainer.fit(arrays, epochs=1)
    assert found.model == expected.model


def test_nothing_is_left_of_a_process_in_the_folder_of_temporary_files(arrays, tmp_path):
    """Neither on ONNX Runtime, nor on the training API of a wheel in another Python, whose library is loaded a second time."""
    np.savez(tmp_path / "data.npz", **arrays)
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, per_inject\n"
        "trainer = per_inject.Trainer(open(sys.argv[1], 'rb').read(), engine=sys.argv[3], batch_size=32, threads=1)\n"
        "print(trainer.fit(sys.argv[2], epochs=1)['steps'])\n"
    )
    shutil.copytree(pathlib.Path(per_inject.__file__).parent, tmp_path / "package" / "per_inject")
    training = ROOT / ".venv-ort-training" / "bin" / "python"
    for python, engine in ((sys.executable, "ort"), (training, "ort-training")):
        temporary = tmp_path / engine
        temporary.mkdir()
        # Without its telemetry, of which ONNX Runtime 1.32 keeps a file there.
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(tmp_path / "package"), "ORT_DISABLE_TELEMETRY": "1"}
        command = [python, script, MLP, tmp_path / "data.npz", engine]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert run.stdout.split() == ["5"]
        assert list(temporary.iterdir()) == []


def test_nothing_is_left_of_a_run_in_memory(arrays, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        per_inject.Trainer(MLP.read_bytes(), batch_size=32, threads=1).fit(arrays, epochs=1)
    assert list(tmp_path.iterdir()) == []
