"""Drives a step graph of `per-inject differentiate` with stock ONNX Runtime: the whole training loop, in any language, is this.

    per-inject models/mlp_relu.ts17.onnx --layers relu --coef 3e-5 --estimator exact -o mlp_per.onnx
    per-inject differentiate mlp_per.onnx -o step.onnx --optimizer momentum
    python examples/drive_step.py step.onnx models/mlp_relu.inputs.npz

needs onnx, onnxruntime and numpy. A parameter p is an input with its initializer as default, and becomes the output p_next; so does every
state of the optimiser, which starts as zeros. The graph's own outputs, the loss first, keep their names.
"""

import sys

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

step_file, data_file = sys.argv[1:3]
graph = onnx.load(step_file).graph
options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # each parameter is an input that has a default, which ONNX Runtime would remark upon
session = onnxruntime.InferenceSession(step_file, options, providers=["CPUExecutionProvider"])
outputs = [output.name for output in session.get_outputs()]
carried = [name.removesuffix("_next") for name in outputs if name.endswith("_next")]

# Every value that a step hands on: parameters and running statistics from the file, states of the optimiser as zeros.
values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in carried}
for value in graph.input:
    if value.name in carried and value.name not in values:
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        values[value.name] = np.zeros(shape, np.float32)

batch = dict(np.load(data_file))
for step in range(20):
    feeds = {**batch, **values, "learning_rate": np.array(0.05, np.float32)}
    if "step" in {value.name for value in graph.input}:
        feeds["step"] = np.array(step, np.int64)
    results = dict(zip(outputs, session.run(None, feeds)))
    values = {name: results[f"{name}_next"] for name in carried}
    print(f"step {step:2}: {outputs[0]} {float(results[outputs[0]]):.4f}")
