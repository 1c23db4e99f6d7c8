"""`examples/onnxblock_per.py` does what its head says, on ONNX Runtime training."""

import os
import re
import subprocess

import pytest

import ort

EXAMPLE = ort.ROOT / "examples" / "onnxblock_per.py"


@pytest.fixture(scope="module")
def rows():
    """Of each way to the loss: (loss, per_loss) before and after training."""
    run = subprocess.run([ort.TRAINING_PYTHON, EXAMPLE], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ)
    assert run.returncode == 0, run.stdout + run.stderr
    line = re.compile(r"^(.{26})  ([\d.]+) -> ([\d.]+)   ([\d.]+) -> ([\d.]+)$", re.MULTILINE)
    found = {m[1].strip(): [float(v) for v in m.groups()[1:]] for m in line.finditer(run.stdout)}
    assert len(found) == 2, run.stdout
    return found


def test_the_block_of_ones_own_trains_the_sum_and_the_term_falls(rows):
    loss, last_loss, per, last_per = rows["a block of one's own"]
    assert last_loss < loss
    assert last_per < per


def test_the_stock_block_drops_the_term_silently(rows):
    loss, last_loss, per, last_per = rows["stock, logits alone"]
    # Its loss is that of the other without the term; four digits are printed.
    assert loss == pytest.approx(rows["a block of one's own"][0] - per, abs=2e-4)
    assert last_loss < loss
    # Nothing pulls the term down: training the task alone moves it away from its minimum.
    assert last_per > per
