"""Steps of a finished training model: ort_steps.py MODEL CHECKPOINT FOLDER, run by .venv-ort-training.

FOLDER holds feeds.npz and request.json (`steps`, `rate`: SGD between them, `varying`: names of inputs and of parameters of which there is
one value a step), and receives step.npz: `losses` of all steps, and of the last one `output:<name>` for every output and `grad:<name>`
for every parameter that is trained.
"""

import json
import pathlib
import sys

import ort_gradients  # noqa: F401  (lets the training package be imported)
import numpy as np
import onnxruntime
from onnxruntime.training.api import CheckpointState, Module


def main(model, checkpoint, folder):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    request = json.loads((folder / "request.json").read_text())
    state = CheckpointState.load_checkpoint(str(checkpoint))
    module = Module(str(model), state, session_options=options)
    module.train()
    with np.load(folder / "feeds.npz") as arrays:
        feeds = {name: arrays[name] for name in arrays}
    varying = set(request["varying"])
    losses = []
    for step in range(request["steps"]):
        now = {name: np.asarray(value[step]) if name in varying else value for name, value in feeds.items()}
        for name in varying - set(module.input_names()):
            state.parameters[name].data = now[name]
        results = module(*(now[name] for name in module.input_names()))
        results = results if isinstance(results, tuple) else (results,)
        losses.append(results[0])
        gradients = {name: parameter.grad for name, parameter in state.parameters if parameter.requires_grad}
        if step + 1 < request["steps"]:
            for name, gradient in gradients.items():
                state.parameters[name].data = state.parameters[name].data - request["rate"] * gradient
            module.lazy_reset_grad()
    made = {"losses": np.array(losses)}
    made |= {"output:" + name: value for name, value in zip(module.output_names(), results)}
    made |= {"grad:" + name: value for name, value in gradients.items()}
    np.savez(str(folder / "step.npz"), **made)


main(*map(pathlib.Path, sys.argv[1:4]))
