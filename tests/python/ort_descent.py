"""Gradient descent by ONNX Runtime's training API: ort_descent.py MODEL FOLDER STEPS RATE, run by .venv-ort-training.

FOLDER holds feeds.npz and parameters.json (names), and receives moved.npz: `loss` of the last step, and `moved:<name>`, each
parameter's value before the first step less that after the last.
"""

import json
import pathlib
import sys
import types

# The training package imports its PyTorch-only half unless a module of that name is there already.
sys.modules["onnxruntime.training.optim"] = types.ModuleType("onnxruntime.training.optim")

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module, Optimizer


def main(model_path, folder, steps, rate):
    model = onnx.load(model_path)
    parameters = json.loads((folder / "parameters.json").read_text())
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in parameters}
    artifacts.generate_artifacts(
        model,
        requires_grad=parameters,
        loss=None,
        optimizer=artifacts.OptimType.SGD,
        artifact_directory=str(folder),
        prefix="made_",
    )
    state = CheckpointState.load_checkpoint(str(folder / "made_checkpoint"))
    # No eval model: ONNX Runtime cannot load the one it makes of a training-mode BatchNormalization.
    module = Module(str(folder / "made_training_model.onnx"), state)
    optimizer = Optimizer(str(folder / "made_optimizer_model.onnx"), module)
    optimizer.set_learning_rate(rate)
    module.train()
    with np.load(folder / "feeds.npz") as arrays:
        feeds = [arrays[name] for name in module.input_names()]
    for _ in range(steps):
        results = module(*feeds)
        loss = results[0] if isinstance(results, tuple) else results
        optimizer.step()
        module.lazy_reset_grad()
        if not np.isfinite(loss).all():
            raise SystemExit(f"the loss is {loss}")
    moved = {f"moved:{name}": value - state.parameters[name].data for name, value in before.items()}
    np.savez(str(folder / "moved.npz"), loss=loss, **moved)


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
