"""`per-inject train` where something else goes wrong: streams that are full or closed, signals, other runs, broken files, slips of the pen."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

import models
from command import per_inject
from training import checkpoints, command, environment, epochs, evaluations, losses, points, position, refusal, start, tensors, train, weights

MLP = models.MODELS / "mlp_relu.ts17.onnx"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Training data, and so much to evaluate on that it takes seconds."""
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "train.npz", **points(320, 1))
    np.savez(folder / "other.npz", **points(320, 3))
    np.savez(folder / "test.npz", **points(100, 2))
    np.savez(folder / "large.npz", **points(200_000, 2))
    return folder


def in_shell(redirection, model, out, *options):
    """The finished process of a shell that redirects."""
    line = f"set -o pipefail; {shlex.join(command(model, out, *options))} {redirection}"
    return subprocess.run(["bash", "-c", line], env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def has_checkpoint(out):
    return lambda: (out / "checkpoints").exists() and bool(checkpoints(out))


# ---------------------------------------------------------------- streams and signals


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(head -n 1 >/dev/null)"])
def test_nobody_has_to_read_the_progress(redirection, data, tmp_path):
    run = in_shell(redirection, MLP, tmp_path / "run", "--data", data / "train.npz", "--epochs", 40)
    assert run.returncode == 0, run
    assert len(epochs(tmp_path / "run")) == 40 and (tmp_path / "run" / "model.onnx").exists()


def test_a_summary_that_cannot_be_written_is_an_error_and_a_reader_that_went_away_is_none(data, tmp_path):
    options = ("--data", data / "train.npz", "--epochs", 1, "--json", "--quiet")
    run = in_shell(">/dev/full", MLP, tmp_path / "full", *options)
    assert run.returncode == 1 and "standard output cannot be written: No space left on device" in run.stderr, run
    assert "what it made is in" in run.stderr and (tmp_path / "full" / "model.onnx").exists()
    run = in_shell("| true", MLP, tmp_path / "closed", *options)
    assert run.returncode == 0 and run.stderr == "", run
    inspect = [os.environ["PER_INJECT"], "inspect", str(MLP)]
    for arguments in (inspect, [inspect[0], "man"], [inspect[0], "completions", "bash"]):
        run = subprocess.run(["bash", "-c", f"{shlex.join(arguments)} >/dev/full"], capture_output=True, text=True)
        assert run.returncode == 1 and "standard output cannot be written" in run.stderr, run


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_exit_code_says_which_signal_it_was(sent, code, data, tmp_path):
    process = start(MLP, tmp_path, "--data", data / "train.npz", "--epochs", 1_000_000)
    wait_for(has_checkpoint(tmp_path), process)
    process.send_signal(sent)
    assert process.wait() == code
    assert "go on with the same command and --resume" in process.stderr.read().decode()


def test_a_signal_that_was_ignored_before_stays_so(data, tmp_path):
    arguments = command(MLP, tmp_path, "--quiet", "--data", data / "train.npz", "--epochs", 1_000_000)
    ignoring = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = subprocess.Popen(arguments, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=ignoring)
    wait_for(has_checkpoint(tmp_path), process)
    process.send_signal(signal.SIGHUP)
    before = max(checkpoints(tmp_path))
    wait_for(lambda: max(checkpoints(tmp_path), default=0) > before + 10, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143, process.stderr.read()


def test_a_file_that_may_not_grow_is_told(data, tmp_path):
    line = f"ulimit -f 8; {shlex.join(command(MLP, tmp_path, '--quiet', '--data', data / 'train.npz'))}"
    run = subprocess.run(["bash", "-c", line], env=environment(), capture_output=True, text=True)
    assert run.returncode == 1 and "File too large" in run.stderr, run


# ---------------------------------------------------------------- evaluations


def test_evaluation_data_is_checked_before_the_first_step(data, tmp_path):
    good = points(100, 2)
    nan = good["x"].copy()
    nan[5, 7] = np.nan
    for name, arrays, words in [
        ("tiny", {key: value[:3] for key, value in good.items()}, "3 rows, fewer than a batch of 16 takes"),
        ("nan", {"x": nan, "y": good["y"]}, "row 5"),
        ("shape", {"x": good["x"][:, :60], "y": good["y"]}, "60"),
    ]:
        np.savez(tmp_path / f"{name}.npz", **arrays)
        path = tmp_path / f"{name}.npz"
        sentence = refusal(models.MODELS / "mlp_relu.dyn.onnx", tmp_path / name, "--data", data / "train.npz", "--eval", path)
        assert f"the evaluation data, --eval {path}: " in sentence and words in sentence, sentence
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_what_an_epoch_brought_is_kept_before_its_evaluation(sent, data, tmp_path):
    options = ("--data", data / "train.npz", "--eval", data / "large.npz", "--epochs", 2, "--batch-size", 16)
    train(MLP, tmp_path / "whole", *options, "--quiet")
    out = tmp_path / "run"
    process = start(MLP, out, *options)
    wait_for(has_checkpoint(out), process)
    process.send_signal(sent)
    assert process.wait() == (143 if sent == signal.SIGTERM else -9)
    kept = position(checkpoints(out)[20])
    assert kept["evaluation_due"] and kept["epoch"] == 0 and not kept["history"] and not evaluations(out)
    train(MLP, out, *options, "--resume", "--quiet")
    assert (out / "model.onnx").read_bytes() == (tmp_path / "whole" / "model.onnx").read_bytes()
    for step in (20, 40):
        assert checkpoints(out)[step].read_bytes() == checkpoints(tmp_path / "whole")[step].read_bytes()
    assert position(checkpoints(out)[40])["evaluation_due"] is False
    for part in (epochs, evaluations):
        found, expected = ([{k: v for k, v in values.items() if "per_second" not in k} for values in part(run)] for run in (out, tmp_path / "whole"))
        assert found == expected and len(found) == 2, part.__name__


# ---------------------------------------------------------------- one run and another


def test_two_runs_do_not_write_into_one_folder(data, tmp_path):
    options = ("--data", data / "train.npz", "--epochs", 1_000_000)
    process = start(MLP, tmp_path, *options)
    wait_for(has_checkpoint(tmp_path), process)
    for more in ([], ["--resume"]):
        assert "another run is writing in" in refusal(MLP, tmp_path, *options, *more)
    process.kill()
    process.wait()
    assert "holds a run already" in refusal(MLP, tmp_path, *options)


def test_a_broken_checkpoint_is_named_and_takes_no_good_one_along(data, tmp_path):
    options = ("--data", data / "train.npz", "--keep", 2)
    train(MLP, tmp_path, *options, "--epochs", 2)
    # Broken by the disk, and later than all that follow.
    broken = tmp_path / "checkpoints" / "step-0000000999.safetensors"
    broken.write_bytes(checkpoints(tmp_path)[6].read_bytes()[:-9])
    run = train(MLP, tmp_path, *options, "--epochs", 3, "--resume")
    assert f"{broken}: it is no safetensors file, or is cut off" in run.stderr and "is passed over" in run.stderr
    assert set(checkpoints(tmp_path)) == {6, 9, 999}


def test_what_a_run_is_can_be_seen_where_another_one_is_refused(data, tmp_path):
    options = ["--data", data / "train.npz", "--eval", data / "test.npz", "--lr", "cosine:0.1..0", "--epochs", 2]
    run = train(MLP, tmp_path / "run", *options, "--resume")
    assert f"no checkpoint in {tmp_path / 'run' / 'checkpoints'}: the run starts anew\n" in run.stderr
    changed = lambda old, new: [new if option == old else option for option in options]
    for other, words in [
        (changed(2, 4), "with --epochs 2 (where a schedule ends), and this one has 4"),
        (changed(data / "train.npz", data / "other.npz"), "with the data x float[320, 64], y int64[320], rows "),
        (changed(data / "test.npz", data / "train.npz"), "with the evaluation data x float[100, 64], y int64[100], rows "),
        (options[:2] + options[4:], "with the evaluation data x float[100, 64]"),
        ([*options, "--metric", "none"], "with --metric auto, and this one has none"),
        ([*options, "--optimizer", "momentum"], "with --optimizer sgd --weight-decay 0.0, and this one has momentum --momentum 0.9 --weight-decay 0.0;"),
        ([*options, "--freeze", "*.bias"], "without --freeze, and this one has --freeze *.bias;"),
        ([*options, "--group", "*.bias=lr:0.1"], "without --group, and this one has --group *.bias=lr:0.1;"),
        ([*options, "--clip-norm", 2], "without --clip-norm, and this one has --clip-norm 2;"),
        ([*options, "--no-shuffle"], "without --no-shuffle, and this one has --no-shuffle;"),
    ]:
        sentence = refusal(MLP, tmp_path / "run", *other, "--resume")
        assert f"it belongs to a run {words}" in sentence and "go on with the same options and data" in sentence, sentence
    # The same data in another place.
    shutil.copy(data / "train.npz", tmp_path / "moved.npz")
    train(MLP, tmp_path / "run", *changed(data / "train.npz", tmp_path / "moved.npz"), "--resume")


# ---------------------------------------------------------------- numbers


def test_steps_without_a_number_are_not_left_out_for_ever(data, tmp_path):
    options = ("--data", data / "train.npz", "--eval", data / "test.npz", "--batch-size", 16, "--lr", 1e9, "--on-nan", "skip", "--epochs", 9)
    sentence = refusal(MLP, tmp_path, *options)
    assert "that makes 20 steps in a row without a number" in sentence and "start again with a lower --lr" in sentence, sentence
    last = checkpoints(tmp_path)[max(checkpoints(tmp_path))]
    assert position(last)["skipped_in_a_row"] == 19 and all(np.isfinite(value).all() for value in tensors(last).values())
    assert not np.isfinite(losses(tmp_path)[-19:]).any()


def test_a_loss_that_is_no_number_is_never_the_best(data, tmp_path):
    # One step, which makes weights whose loss overflows.
    options = ("--data", data / "train.npz", "--eval", data / "test.npz", "--batch-size", 320, "--lr", 1e30, "--epochs", 1)
    summary = json.loads(train(MLP, tmp_path, *options, "--json").stdout)
    assert summary["evaluation"]["task_loss"] is None and summary["best"] is None
    assert not (tmp_path / "checkpoints" / "best.safetensors").exists()


def test_slips_of_the_pen_are_refused(data, tmp_path):
    options = ("--data", data / "train.npz", "--epochs", 1)
    for given, code, words in [
        (("--threads", 100_000), 2, "this machine has"),
        (("--checkpoint-every", 0), 2, "a whole number from 1 up"),
        (("--keep", 0), 2, "a whole number from 1 up"),
        (("--momentum", 2), 2, "a number from 0 up to 1, without 1"),
        (("--optimizer", "momentum", "--momentum", 1), 2, "a number from 0 up to 1, without 1"),
        (("--slices", 0), 1, "--slices 0 is out of range"),
        (("--layers", "relu", "--estimator", "exact", "--slices", 0), 1, "--slices 0 is out of range"),
        (("--layers", "relu", "--coef", "1e30"), 2, "would drown every task loss"),
        (("--layers", "relu", "--coef", "linear:0..5000"), 2, "the coefficient 5e3 would drown every task loss"),
    ]:
        arguments = [os.environ["PER_INJECT"], "train", MLP, "--out", tmp_path / "run", *options, *given]
        run = subprocess.run(list(map(str, arguments)), env=environment(), capture_output=True, text=True)
        assert run.returncode == code and words in run.stderr, (given, run.stderr)
        assert not (tmp_path / "run").exists()
    train(MLP, tmp_path / "run", *options, "--layers", "relu", "--coef", 1000, "--any-coef", "--quiet")


def test_weights_that_are_no_numbers_are_told(tmp_path):
    values = {name: value for name, value in weights(MLP).items() if name.startswith("net.")}
    values["net.2.bias"] = np.full_like(values["net.2.bias"], np.nan)
    np.savez(tmp_path / "w.npz", **values)
    run = per_inject("weights", "put", MLP, "--from", tmp_path / "w.npz", "-o", tmp_path / "m.onnx")
    assert "warning: these are given NaN or infinite elements: net.2.bias\n" in run.stdout
    report = json.loads(per_inject("weights", "put", MLP, "--from", tmp_path / "w.npz", "--dry-run", "--json").stdout)
    assert report["not_finite"] == ["net.2.bias"]
