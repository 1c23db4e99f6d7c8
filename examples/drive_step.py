"""Drives a step graph of `per-inject differentiate` with stock ONNX Runtime: the whole training loop, in any language, is this.

    per-inject models/mlp_relu.ts17.onnx --layers relu --coef 3e-5 --estimator exact -o mlp_per.onnx
    per-inject differentiate mlp_per.onnx -o step.onnx --optimizer momentum
    python examples/drive_step.py step.onnx models/mlp_relu.inputs.npz

needs onnxruntime and numpy, and takes every optimizer and every option of the step; a third argument is the learning rate. What each name
is for stands in the file's metadata (schemas/step.schema.json).
"""

import json
import sys

import numpy as np
import onnxruntime

step_file, data_file, rate = [*sys.argv[1:], 0.05][:3]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # each parameter is an input that has a default, which ONNX Runtime would remark upon
session = onnxruntime.InferenceSession(step_file, options, providers=["CPUExecutionProvider"])
names = json.loads(session.get_modelmeta().custom_metadata_map["per_inject.step"])
inputs, outputs = names["inputs"], names["outputs"]

# What a step hands on: inputs, and the outputs that take their places.
carried = {each["name"]: each["next"] for each in names["statistics"] + names["counters"]}
for parameter in names["parameters"]:
    carried[parameter["name"]] = parameter["next"]
    carried |= {state["name"]: state["next"] for state in parameter.get("state", [])}

# Parameters and statistics have the file's values as defaults in the first run; all else starts as zeros.
types = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
values = {i.name: np.zeros(i.shape, types[i.type]) for i in session.get_inputs() if i.name in carried}

batch = dict(np.load(data_file))
scale = 65536.0
for run in range(20):
    feeds = {**batch, **values, inputs["learning_rate"]: np.array(rate, np.float32)}
    if "apply" in inputs:  # --accumulate: a step with every second batch
        feeds[inputs["apply"]] = np.array(run % 2 == 1)
    if "loss_scale" in inputs:  # --loss-scale-input
        feeds[inputs["loss_scale"]] = np.array(scale, np.float32)
    made = [output.name for output in session.get_outputs()]
    results = dict(zip(made, session.run(None, feeds)))
    values = {name: results[successor] for name, successor in carried.items()}
    if "gradients_finite" in outputs and not results[outputs["gradients_finite"]]:
        scale /= 2  # nothing has changed
    print(f"run {run:2}: {names['loss']} {float(results[names['loss']]):.4f}")
