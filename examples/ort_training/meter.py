"""Measures parameters in the middle of training, with PER and without it by the same scale."""

import subprocess

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

BATCH = 500


class Meter:
    """Task loss, accuracy, and PER of every layer on a set of images.

    `per-inject --outputs` exposes these as outputs of the forward graph, and stock inference runs that with the parameters of the moment.
    """

    def __init__(self, per_inject, forward, images, labels):
        file = forward.with_name("meter.onnx")
        exposed = ["--layers", "all", "--coef", "1", "--estimator", "exact", "--outputs", "task,layers"]
        subprocess.run([per_inject, forward, *exposed, "-o", file], check=True, stdout=subprocess.DEVNULL)
        self.model = onnx.load(file)
        # "per_inject/elu1/per" is the PER of the layer elu1.
        self.outputs = [output.name for output in self.model.graph.output if output.name.endswith("/per")]
        self.layers = [name.split("/")[1] for name in self.outputs]
        self.images, self.labels = images, labels

    def measure(self, parameters):
        """`parameters` are arrays by name."""
        for tensor in self.model.graph.initializer:
            if tensor.name in parameters:
                tensor.CopyFrom(numpy_helper.from_array(parameters[tensor.name], tensor.name))
        session = onnxruntime.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
        rows = []
        for start in range(0, len(self.images), BATCH):
            x, y = self.images[start : start + BATCH], self.labels[start : start + BATCH]
            loss, logits, *per = session.run(["per_inject/task_loss", "logits", *self.outputs], {"x": x, "y": y})
            rows.append([loss, (logits.argmax(axis=1) == y).mean(), *per])
        loss, accuracy, *per = np.mean(rows, axis=0, dtype=float).tolist()
        return {"loss": loss, "accuracy": accuracy, "per": per}
