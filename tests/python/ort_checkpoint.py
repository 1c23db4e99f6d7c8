"""Ten steps of AdamW with ONNX Runtime's training API, and a checkpoint: ort_checkpoint.py MODEL FOLDER, run by .venv-ort-training.

FOLDER holds request.json (`parameters`: names) and feeds.npz (one batch), and receives made_checkpoint and nominal_checkpoint
(generate_artifacts), checkpoint (save_checkpoint, with the optimiser's state) and parameters.npz (the parameters by the API itself).
"""

import json
import pathlib
import sys

import ort_gradients  # noqa: F401  (lets the training package be imported)
import numpy as np
import onnx
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module, Optimizer


def main(model_path, folder):
    parameters = json.loads((folder / "request.json").read_text())["parameters"]
    artifacts.generate_artifacts(
        onnx.load(model_path),
        requires_grad=parameters,
        loss=None,
        optimizer=artifacts.OptimType.AdamW,
        artifact_directory=str(folder),
        prefix="made_",
        nominal_checkpoint=True,
    )
    (folder / "made_nominal_checkpoint").rename(folder / "nominal_checkpoint")
    state = CheckpointState.load_checkpoint(str(folder / "made_checkpoint"))
    module = Module(str(folder / "made_training_model.onnx"), state)
    optimizer = Optimizer(str(folder / "made_optimizer_model.onnx"), module)
    module.train()
    with np.load(folder / "feeds.npz") as arrays:
        feeds = [arrays[name] for name in module.input_names()]
    for _ in range(10):
        module(*feeds)
        optimizer.step()
        module.lazy_reset_grad()
    state.properties["epoch"] = 3
    CheckpointState.save_checkpoint(state, str(folder / "checkpoint"), include_optimizer_state=True)
    np.savez(folder / "parameters.npz", **{name: parameter.data for name, parameter in state.parameters})


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
