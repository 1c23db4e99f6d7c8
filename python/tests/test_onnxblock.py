"""`per_inject.onnxblock.PERLoss` in ONNX Runtime's training environment, of another Python than this one: the wheel serves it as it is."""

import importlib
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

import per_inject
from conftest import PROGRAM, ROOT

PYTHON = ROOT / ".venv-ort-training" / "bin" / "python"
SCRIPT = pathlib.Path(__file__).with_name("train_with_onnxblock.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the script prints, with the package that is tested here and nothing else of this environment."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(pathlib.Path(per_inject.__file__).parent, folder / "per_inject")
    environment = {**os.environ, "PYTHONPATH": str(folder), "PER_INJECT": PROGRAM, "PYTHONWARNINGS": "ignore"}
    run = subprocess.run([PYTHON, SCRIPT], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_the_block_trains_in_the_bits_of_a_block_of_ones_own(found):
    """Loss and term, step by step; the other block adds an output that the program put into the graph."""
    assert found["package"] == found["own"]
    losses, terms = np.array(found["package"]).T
    assert losses[-1] < losses[0] and terms[-1] < terms[0]


def test_the_loss_is_the_task_loss_and_the_term(found):
    (loss, term), (task,) = found["package"][0], found["plain"][0]
    # One addition in float32.
    assert loss == pytest.approx(task + term, rel=2e-7)
    assert term > 0.01
    # The term reaches the gradients.
    assert found["package"][1][0] - found["package"][1][1] != found["plain"][1][0]


def test_blocks_may_be_several(found):
    loss, first, second = found["halves"][0]
    # Sums of the same ten terms in another order, in float32.
    assert first + second == pytest.approx(found["package"][0][1], rel=1e-6)
    assert loss == pytest.approx(found["package"][0][0], rel=1e-6)


def test_parameters_are_those_of_the_model(found):
    assert found["parameters"] == found["initializers"]


def test_without_the_training_wheel_the_import_says_what_to_install():
    with pytest.raises(ImportError, match="per_inject.onnxblock.*pip install onnxruntime-training-cpu") as caught:
        importlib.import_module("per_inject.onnxblock")
    assert caught.value.name.startswith("onnxruntime")


def test_a_refusal_is_that_of_inject(found):
    kind, sentence = found["refused"]
    assert kind == "RefusedError" and "did you mean `relu`" in sentence
