"""The loop of ONNX Runtime's Python API: ort_loop.py make|run FOLDER, run by .venv-ort-training.

`make` makes the artifacts of FOLDER/model.onnx in FOLDER/artifacts; request.json has `parameters` (names) and `optimizer` (sgd or adamw).
`run` trains them: request.json has `rate` and `steps` as well, feeds.npz for each input its batches, stacked, which are gone through again and
again. It writes losses.npy, the first output of every step, and parameters.npz, what the parameters are afterwards.
"""

import json
import pathlib
import sys

import ort_gradients  # noqa: F401  (lets the training package be imported)
import numpy as np
import onnx
import onnxruntime
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module, Optimizer


def make(folder, request):
    (folder / "artifacts").mkdir()
    kind = artifacts.OptimType.SGD if request["optimizer"] == "sgd" else artifacts.OptimType.AdamW
    artifacts.generate_artifacts(
        onnx.load(folder / "model.onnx"),
        requires_grad=request["parameters"],
        loss=None,
        optimizer=kind,
        artifact_directory=str(folder / "artifacts"),
    )


def run(folder, request):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    made = folder / "artifacts"
    state = CheckpointState.load_checkpoint(str(made / "checkpoint"))
    module = Module(str(made / "training_model.onnx"), state, session_options=options)
    optimizer = Optimizer(str(made / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(request["rate"])
    module.train()
    with np.load(folder / "feeds.npz") as arrays:
        feeds = [arrays[name] for name in module.input_names()]
    losses = []
    for step in range(request["steps"]):
        results = module(*(feed[step % len(feed)] for feed in feeds))
        losses.append(results[0] if isinstance(results, tuple) else results)
        optimizer.step()
        module.lazy_reset_grad()
    np.save(folder / "losses.npy", np.array(losses))
    np.savez(folder / "parameters.npz", **{name: state.parameters[name].data for name in request["parameters"]})


{"make": make, "run": run}[sys.argv[1]](pathlib.Path(sys.argv[2]), json.loads((pathlib.Path(sys.argv[2]) / "request.json").read_text()))
