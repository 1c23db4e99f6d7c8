"""docs/engines.md, from a step of every engine on every model.

    PER_INJECT=target/debug/per-inject .venv/bin/python tests/python/engines_page.py

writes it anew. The column of an engine that the program was built without stays as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
import subprocess
import tempfile

import numpy as np

import models
import python_package
import training

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "engines.md"

ENGINES = ["ort", "ort-training", "tract"]
MODELS = {"mlp_relu": "relu", "cnn11_elu": "elu", "fixup_resnet20": "relu", "bn_resnet8": "relu", "seq_lstm_lm": "lstm"}
KINDS = {"vanilla": "vanilla", "exact": "per_channel"}

# Every engine computes in float32 what PyTorch computed in float64; measured: losses to 4e-7 and gradients to 1e-5 of a parameter's largest.
LOSS_TOLERANCE = 2e-6
GRADIENT_TOLERANCE = 2e-4

# A step of plain gradient descent moves a parameter by this times its gradient. So far that what it was before costs no digits.
RATE = 1024.0

HEAD = f"""\
# Engines

Written by `tests/python/engines_page.py`; a test fails where it is out of date. `per-inject train --engine` takes one of these:

| engine | what makes a step | what it wants |
|---|---|---|
| `ort` | ONNX Runtime, on a graph that per-inject differentiates into standard operators | a library of ONNX Runtime 1.17 or later, such as that of the wheel `onnxruntime` |
| `ort-training` | the training API of ONNX Runtime: its own gradients, its SGD or AdamW | the wheel `onnxruntime-training-cpu` or `onnxruntime-training` from inside its Python (`python -m per_inject train`), or a library that was built with that API |
| `tract` | tract, on the graph that `ort` runs | a program that was built with `--features tract`, and nothing else |

`--engine auto`, the default, is `ort` where ONNX Runtime is found, else `tract` where the program has it; what was chosen is printed with the reason.

Below, every engine makes one step on models of `models/`, without PER and with the exact estimator (`--view channel --coef 0.1`).
*agrees*: the loss is that of PyTorch in float64 to {LOSS_TOLERANCE:.0e}, relative, and every gradient to {GRADIENT_TOLERANCE:.0e} of its largest entry (or of a
thousandth of the model's largest): float32 rounds every sum of a deep network. Anything else is what the engine does not run, with the
operator.

"""

TAIL = """
## What else differs
- `ort-training` leaves the running statistics of BatchNormalization as they came, and warns of it; it measures no norm of the gradients, and refuses
  `--clip-norm`, `--clip-value`, `--group` and every optimiser but `sgd` and `adamw`.
- `ort-training` takes the folder of artifacts of `generate_artifacts` in place of a model as well, and trains them as they are.
- Checkpoints of `ort` and `tract` are the same; one of `ort-training` holds the runtime's own checkpoint and goes on with that engine only.
- `--device cuda` is for `ort` and `ort-training`, where the build of ONNX Runtime has it. No test has run `ort-training` on a GPU.
"""


class NotBuiltIn(Exception):
    """The program has not this engine."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """How far a step is from PyTorch's, or why there is none."""

    loss: float = 0.0
    gradient: float = 0.0
    refusal: str = ""

    @property
    def agrees(self) -> bool:
        return not self.refusal and self.loss <= LOSS_TOLERANCE and self.gradient <= GRADIENT_TOLERANCE

    def __str__(self) -> str:
        if self.refusal:
            return self.refusal
        return "agrees" if self.agrees else f"DIFFERS: loss {self.loss:.0e}, gradients {self.gradient:.0e}"


def train(engine: str, model: pathlib.Path, out: pathlib.Path, *options: object) -> subprocess.CompletedProcess[str]:
    options = ("--engine", engine, "--quiet", *options)
    if engine == "ort-training":
        return python_package.train(model, out, *options, check=False)
    return training.train(model, out, *options, check=False)


@functools.cache
def cell(engine: str, family: str, kind: str) -> Cell:
    """One step from the weights that the model has, on the batch of its inputs."""
    model = models.reference(f"{family}.ts17")
    expected = model.gradients(KINDS[kind])
    per = ["--layers", MODELS[family], "--estimator", "exact", "--view", "channel", "--coef", expected.coef] if kind == "exact" else []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        rows = {key: value.T.copy() if family.startswith("seq") else value for key, value in model.feeds.items()}
        np.savez(folder / "data.npz", **rows)
        once = ["--data", folder / "data.npz", "--batch-size", len(rows["x"]), "--epochs", 1, "--no-shuffle", "--lr", RATE]
        run = train(engine, model.path, folder / "run", *once, "--metric", "none", *per)
        if "was built without tract" in run.stderr:
            raise NotBuiltIn(engine)
        if run.returncode:
            return Cell(refusal=" ".join(run.stderr.split()).lstrip("× "))
        [loss] = training.losses(folder / "run")
        after = training.tensors(folder / "run" / "model.safetensors")
    before = models.initializers(model.model)
    gradients = {key: (before[key].astype(np.float64) - after[key]) / RATE for key in model.trainable}
    return Cell(abs(loss - expected.loss) / abs(expected.loss), max(model.errors(gradients, KINDS[kind]).values()))


def column(engine: str, old: str) -> dict[tuple[str, str], str]:
    """The cells of an engine by model and kind; those of the old page where the program has it not."""
    keys = [(family, kind) for family in MODELS for kind in KINDS]
    try:
        return {key: str(cell(engine, *key)) for key in keys}
    except NotBuiltIn:
        rows = [[part.strip() for part in line.strip("| ").split(" | ")] for line in old.splitlines() if re.match(r"\| `\w+` \| (vanilla|exact)", line)]
        known = {(row[0].strip("`"), row[1]): row[2 + ENGINES.index(engine)] for row in rows}
        return {key: known.get(key, "not yet known") for key in keys}


def page(old: str) -> str:
    columns = [column(engine, old) for engine in ENGINES]
    lines = ["| model | loss | " + " | ".join(f"`{engine}`" for engine in ENGINES) + " |", "|---" * (2 + len(ENGINES)) + "|"]
    for family in MODELS:
        lines += [f"| `{family}` | {kind} | " + " | ".join(c[family, kind] for c in columns) + " |" for kind in KINDS]
    return HEAD + "\n".join(lines) + "\n" + TAIL


if __name__ == "__main__":
    os.environ.setdefault("PER_INJECT", "target/debug/per-inject")
    PAGE.write_text(page(PAGE.read_text() if PAGE.exists() else ""))
