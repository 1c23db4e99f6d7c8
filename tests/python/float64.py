"""A model in float64, and its training steps by onnx's reference implementation: what both float32 runs are measured against."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import reference_ops


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float64 wherever it has float32."""

    def wide(tensor):
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))

    graph = model.graph
    for tensor in graph.initializer:
        wide(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                wide(attribute.t)
            if (node.op_type, attribute.name, attribute.i) == ("Cast", "to", TensorProto.FLOAT):
                attribute.i = TensorProto.DOUBLE
    return model


def losses(step: pathlib.Path, batches: list[Mapping[str, np.ndarray]], rate: float) -> np.ndarray:
    """The losses of a step graph of `per-inject differentiate`, one a batch."""
    model = onnx.load(step)
    evaluator = ReferenceEvaluator(model, new_ops=reference_ops.ALL)
    outputs = [output.name for output in model.graph.output]
    carried = [name.removesuffix("_next") for name in outputs if name.endswith("_next")]
    state = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in carried}
    for value in model.graph.input:
        if value.name in carried and value.name not in state:
            ty = value.type.tensor_type
            state[value.name] = np.zeros([d.dim_value for d in ty.shape.dim], onnx.helper.tensor_dtype_to_np_dtype(ty.elem_type))
    found = []
    for batch in batches:
        wide = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in batch.items()}
        results = dict(zip(outputs, evaluator.run(None, {**wide, **state, "learning_rate": np.float32(rate)})))
        state = {name: np.asarray(results[f"{name}_next"]) for name in carried}
        found.append(float(results[outputs[0]]))
    return np.array(found)
