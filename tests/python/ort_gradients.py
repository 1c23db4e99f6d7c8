"""Loss and gradients by ONNX Runtime's training API: ort_gradients.py MODEL FOLDER [MODEL FOLDER …], run by .venv-ort-training.

FOLDER holds feeds.npz and parameters.json (names, or null for every float32 initializer but running statistics), and receives
step.npz: `output:<name>` for every output of the graph, `grad:<name>` for every parameter. Where there are several, a refusal goes
to `refused.txt` of its folder, and the others go on.
"""

import json
import pathlib
import sys
import types

# The training package imports its PyTorch-only half unless a module of that name is there already.
sys.modules["onnxruntime.training.optim"] = types.ModuleType("onnxruntime.training.optim")

import numpy as np
import onnx
import onnxruntime
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module


def float_parameters(graph):
    statistics = {name for node in graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]}
    floats = [tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    return [name for name in floats if name not in statistics]


def main(model_path, folder):
    model = onnx.load(model_path)
    parameters = json.loads((folder / "parameters.json").read_text())
    if parameters is None:
        parameters = float_parameters(model.graph)
    outputs = [output.name for output in model.graph.output]
    artifacts.generate_artifacts(model, requires_grad=parameters, loss=None, artifact_directory=str(folder), prefix="made_")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    state = CheckpointState.load_checkpoint(str(folder / "made_checkpoint"))
    # No eval model: ONNX Runtime cannot load the one it makes of a training-mode BatchNormalization.
    module = Module(str(folder / "made_training_model.onnx"), state, session_options=options)
    module.train()
    with np.load(folder / "feeds.npz") as arrays:
        results = module(*[arrays[name] for name in module.input_names()])
    results = results if isinstance(results, tuple) else (results,)
    assert module.output_names() == outputs, (module.output_names(), outputs)
    step = {"output:" + name: value for name, value in zip(outputs, results)}
    # The outputs `<p>_grad.accumulation.out` only say that the buffer was written; the buffer is the parameter's `grad`.
    for name in parameters:
        step["grad:" + name] = state.parameters[name].grad
    np.savez(str(folder / "step.npz"), **step)


if __name__ == "__main__":
    *pairs, last = [pathlib.Path(argument) for argument in sys.argv[1:]]
    if str(last) != "--many":
        main(*pairs, last)
    else:
        for model_path, folder in zip(pairs[::2], pairs[1::2]):
            try:
                main(model_path, folder)
            except Exception as error:
                (folder / "refused.txt").write_text(f"{type(error).__name__}: {error}")
