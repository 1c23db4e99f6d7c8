"""The wheel's command `per-inject` is the program."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from conftest import MODELS, program

COMMAND = pathlib.Path(sys.executable).with_name("per-inject")
MLP = MODELS / "mlp_relu.ts17.onnx"


def command(*arguments, **options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PER_INJECT")}
    return subprocess.run([str(COMMAND), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, env=environment, **options)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        [],
        ["train", "--help"],
        ["inspect", MLP],
        ["inspect", MLP, "--json"],
        [MLP, "--layers", "relu", "--coef", "3e-5", "--dry-run"],
        ["operators"],
        ["completions", "bash"],
        ["diff", MLP, MODELS / "mlp_relu.dyn.onnx", "--exit-code"],
        ["inspct", MLP],
        ["inspect", "missing.onnx"],
        [MLP, "--layers", "relu", "--coef", "x", "-o", "-"],
        ["strip", MLP, "-o", "-"],
    ],
)
def test_it_prints_what_the_program_prints_and_ends_as_it(arguments):
    expected, found = program(*arguments, check=False), command(*arguments)
    # The Python that makes artifacts is this one, unless another is named.
    said = found.stdout.replace(f"PER_INJECT_PYTHON={sys.executable}".encode(), b"PER_INJECT_PYTHON=")
    assert (found.returncode, said, found.stderr) == (expected.returncode, expected.stdout, expected.stderr)


def test_it_injects_the_same_bytes(tmp_path):
    arguments = [MLP, "--layers", "relu", "--coef", "3e-5", "-o"]
    program(*arguments, tmp_path / "program.onnx")
    assert command(*arguments, tmp_path / "wheel.onnx").returncode == 0
    assert (tmp_path / "wheel.onnx").read_bytes() == (tmp_path / "program.onnx").read_bytes()
    assert command(*arguments, "-").stdout == (tmp_path / "program.onnx").read_bytes()


def test_python_m_per_inject_is_the_same():
    run = subprocess.run([sys.executable, "-m", "per_inject", "--version"], capture_output=True, check=True)
    assert re.fullmatch(rb"per-inject \d+\.\d+\.\d+\n", run.stdout)


@pytest.mark.parametrize("start", [[COMMAND], [sys.executable, "-m", "per_inject"]], ids=["per-inject", "python -m"])
def test_the_onnxruntime_of_its_own_environment_is_found_where_that_is_not_active(start, tmp_path):
    """Before that of an environment which is active."""
    (tmp_path / "active").mkdir()
    environment = {"PATH": "/usr/bin:/bin", "VIRTUAL_ENV": str(tmp_path / "active")}
    arguments = ["diff", MLP, MLP, "--run", "--format", "json"]
    run = subprocess.run([*map(str, [*start, *arguments])], stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    assert run.returncode == 0, run.stderr.decode()
    found = json.loads(run.stdout)["run"]
    assert f"(of {sys.executable})" in found["engine"]
    assert found["agree"] is True


def test_ctrl_c_ends_it_at_once(tmp_path):
    os.mkfifo(tmp_path / "never")
    run = subprocess.Popen([str(COMMAND), "inspect", str(tmp_path / "never")], stderr=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(timeout=2)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=10) == -signal.SIGINT
