"""TensorBoard itself reads the event files that are written: those in tests/data/tensorboard, which a Rust test compares with its own."""

import math
import pathlib
import shutil
import struct

import pytest
from tensorboard.backend.event_processing import event_accumulator, event_file_loader

FOLDER = pathlib.Path(__file__).parent.parent / "data" / "tensorboard"
FIRST, SECOND = sorted(FOLDER.iterdir())


def scalars(folder):
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_scalar_comes_back_with_its_step_and_time(tmp_path):
    shutil.copy(FIRST, tmp_path)
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/per/relu1", "eval/loss", "eval/per/relu1"}
    loss = events.Scalars("train/loss")
    assert [(e.wall_time, e.step, e.value) for e in loss] == [
        (1700000001.5, 1, 2.5),
        (1700000002.5, 2, 0.0),
        (1700000003.5, 3, 7.0),
        (1700000004.5, 4, 8.0),
    ]
    (evaluation,) = events.Scalars("eval/loss")
    assert evaluation.step == 4 and math.isnan(evaluation.value)


def test_what_a_resumed_run_repeats_replaces_what_was_there():
    assert scalars(FOLDER) == {
        "train/loss": [(1, 2.5), (2, 0.0), (3, -1.5)],
        "train/per/relu1": [(1, 1.25), (2, 1.25), (3, 1.25)],
        "eval/loss": [(3, 0.75)],
        "eval/per/relu1": [(3, 1.25)],
    }


@pytest.mark.parametrize("path", [FIRST, SECOND], ids=["first", "resumed"])
def test_the_first_record_names_the_version_of_the_format(path):
    first = next(event_file_loader.EventFileLoader(str(path)).Load())
    assert first.file_version == "brain.Event:2"


def test_tensorboard_checks_the_sums_that_were_written(tmp_path):
    """So the tests above do read the check sums: one wrong byte in a message, and the rest of the file is gone."""
    data = bytearray(FIRST.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    data[12 + length + 4 + 12 + 3] ^= 1  # in the second message
    (tmp_path / FIRST.name).write_bytes(data)
    assert scalars(tmp_path) == {}
