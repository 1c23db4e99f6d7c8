"""The losses of runs of ONNX Runtime's training API: ort_curve.py MODEL FOLDER, run by .venv-ort-training.

FOLDER holds request.json (`parameters`: names, `optimizer`: sgd or adamw, `rate`, and for adamw `betas`, `epsilon`, `decay`; `steps`;
`moved`: names) and feeds.npz (for each input its batches, stacked; they are gone through again and again), and receives losses.npy: a row
for the run from the model's own weights, and one for each name in `moved` with the first entry of that parameter moved to the next float32.
"""

import json
import pathlib
import sys

import ort_gradients  # noqa: F401  (lets the training package be imported)
import numpy as np
import onnx
import onnxruntime
from onnxruntime.training import artifacts, onnxblock
from onnxruntime.training.api import CheckpointState, Module, Optimizer


def optimizer_block(request):
    if request["optimizer"] == "sgd":
        return onnxblock.optim.SGD()
    return onnxblock.optim.AdamW(betas=request["betas"], eps=request["epsilon"], weight_decay=request["decay"])


def main(model_path, folder):
    request = json.loads((folder / "request.json").read_text())
    artifacts.generate_artifacts(
        onnx.load(model_path),
        requires_grad=request["parameters"],
        loss=None,
        optimizer=optimizer_block(request),
        artifact_directory=str(folder),
        prefix="made_",
    )
    # Mode 1, which is what the block writes, puts ε elsewhere and decays after the step; mode 0 is PyTorch's AdamW.
    optimizer_model = onnx.load(folder / "made_optimizer_model.onnx")
    for node in optimizer_model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "adam_mode":
                attribute.i = 0
    onnx.save(optimizer_model, folder / "made_optimizer_model.onnx")
    with np.load(folder / "feeds.npz") as arrays:
        feeds = dict(arrays)
    np.save(folder / "losses.npy", np.array([run(folder, request, feeds, moved) for moved in [None, *request["moved"]]], np.float64))


def run(folder, request, feeds, moved):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    state = CheckpointState.load_checkpoint(str(folder / "made_checkpoint"))
    # No eval model: ONNX Runtime cannot load the one it makes of a training-mode BatchNormalization.
    module = Module(str(folder / "made_training_model.onnx"), state, session_options=options)
    optimizer = Optimizer(str(folder / "made_optimizer_model.onnx"), module)
    optimizer.set_learning_rate(request["rate"])
    # Only now: before there is a module, setting a parameter crashes.
    if moved is not None:
        value = state.parameters[moved].data.copy()
        value.flat[0] = np.nextafter(value.flat[0], np.float32(np.inf))
        state.parameters[moved] = value
        assert (state.parameters[moved].data == value).all()
    module.train()
    batches = [feeds[name] for name in module.input_names()]
    losses = []
    for step in range(request["steps"]):
        results = module(*(batch[step % len(batch)] for batch in batches))
        losses.append(results[0] if isinstance(results, tuple) else results)
        optimizer.step()
        module.lazy_reset_grad()
    return losses


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
