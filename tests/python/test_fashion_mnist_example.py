"""`examples/fashion_mnist` learns, with PER and without it, from a part of the data."""

import gzip
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import training

EXAMPLE = training.ROOT / "examples" / "fashion_mnist" / "compare.py"
DATA = pathlib.Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))

# Of 60,000 and 10,000; two runs of 25 s of one core each.
IMAGES, MEASURED = 24_000, 2_000
OPTIONS = ["--optimizer", "adam", "--lr", "cosine:0.003..0"]


def first(name, rows):
    """The first rows of an IDX file, as an IDX file: two zeros, the type, the rank, the dimensions, the bytes."""
    raw = gzip.decompress((DATA / name).read_bytes())
    rank = raw[3]
    dims = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    size = int(np.prod(dims[1:]))
    return raw[:4] + rows.to_bytes(4, "big") + raw[8 : 4 + 4 * rank + rows * size]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the example printed, and the folder that it wrote."""
    folder = tmp_path_factory.mktemp("fashion")
    (folder / "data").mkdir()
    for part, rows in [("train", IMAGES), ("t10k", MEASURED)]:
        for kind in ("images-idx3", "labels-idx1"):
            name = f"{part}-{kind}-ubyte.gz"
            (folder / "data" / name).write_bytes(gzip.compress(first(name, rows), 1))
    environment = training.environment() | {"FASHION_MNIST": str(folder / "data"), "VIRTUAL_ENV": str(training.VENV)}
    command = [sys.executable, EXAMPLE, "--out", folder / "out", *OPTIONS]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout, folder / "out"


def test_it_learns_with_per_and_without_it_and_says_how_well(run):
    printed, out = run
    [accuracies] = [line.split()[2:] for line in printed.splitlines() if line.startswith("test accuracy")]
    for method, shown in zip(("vanilla", "PER"), accuracies, strict=True):
        [last] = training.evaluations(out / method)
        assert last["samples"] == MEASURED and shown == f"{last['accuracy']:.2%}"
        assert last["accuracy"] > 0.8


def test_per_of_every_layer_is_measured_and_the_commands_are_shown(run):
    printed, out = run
    commands = [line for line in printed.splitlines() if line.startswith("$ ")]
    assert [" --layers all --coef " in line for line in commands] == [False, True]
    [last] = training.evaluations(out / "PER")
    assert sum(name.startswith("per/") for name in last) == 10
    log = [json.loads(line) for line in (out / "PER" / "log.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in log) == IMAGES // 32
