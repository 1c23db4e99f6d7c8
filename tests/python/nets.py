"""Small graphs around one activation `h`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, DOUBLE, FLOAT16, BFLOAT16 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16


def model(nodes, inputs, outputs, initializers=(), opset: int = 17, ir_version: int | None = None) -> onnx.ModelProto:
    """A model of the lowest IR version that the operator set allows. Inputs and outputs are (name, type, dims or None)."""
    opsets = [helper.make_opsetid("", opset)]
    ir_version = ir_version or helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    tensors = [numpy_helper.from_array(value, name) for name, value in dict(initializers).items()]
    values = [helper.make_tensor_value_info(*each) for each in inputs]
    if ir_version < 4:
        # Every initializer is an input as well.
        values += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    graph = helper.make_graph(nodes, "g", values, [helper.make_tensor_value_info(*each) for each in outputs], tensors)
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def tap(dims: Sequence[int | str | None] | None, elem: int = FLOAT, opset: int = 17) -> onnx.ModelProto:
    """The activation `h`, fed flat with its shape. `dims`: what the graph says of it; None leaves even the rank open."""
    nodes = [helper.make_node("Reshape", ["flat", "shape"], ["h"]), helper.make_node("ReduceMean", ["h"], ["y"], keepdims=0)]
    made = model(nodes, [("flat", elem, ["n"]), ("shape", TensorProto.INT64, ["rank"])], [("y", elem, [])], opset=opset)
    if dims is not None:
        made.graph.value_info.append(helper.make_tensor_value_info("h", elem, dims))
    return made


def feed(h: np.ndarray) -> dict[str, np.ndarray]:
    """What `tap` is fed with to make `h`."""
    return {"flat": h.reshape(-1), "shape": np.array(h.shape, np.int64)}


def trained(h: np.ndarray) -> onnx.ModelProto:
    """The activation `h` is the initializer `h0` times the input `one`, and training wants a gradient of it."""
    nodes = [helper.make_node("Mul", ["h0", "one"], ["h"]), helper.make_node("Identity", ["h"], ["y"])]
    return model(nodes, [("one", FLOAT, [1])], [("y", FLOAT, h.shape)], {"h0": h})


def keep_output(injected: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The model with these outputs alone, in this order: ONNX Runtime's training API takes the first for the loss."""
    outputs = {output.name: output for output in [*injected.graph.output, *injected.graph.value_info]}
    del injected.graph.output[:]
    injected.graph.output.extend(outputs[name] for name in names)
    return injected
