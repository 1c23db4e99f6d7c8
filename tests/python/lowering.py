"""One operator at a time through `--for ort-training`: small graphs, and the gradient of each by central differences in float64."""

from __future__ import annotations

import copy
import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import reference_ops

FLOAT, DOUBLE, INT64, INT32, BOOL = (getattr(TensorProto, t) for t in ("FLOAT", "DOUBLE", "INT64", "INT32", "BOOL"))

# Central differences with this step: 1e-6² of truncation and 1e-16/1e-6 of rounding.
STEP = 1e-6


def node(op: str, inputs: str, outputs: str = "y", domain: str = "", **attributes) -> onnx.NodeProto:
    """A node; inputs and outputs are words, `-` leaves one out."""
    words = lambda text: ["" if word == "-" else word for word in text.split()]
    return helper.make_node(op, words(inputs), words(outputs), domain=domain, **attributes)


@dataclasses.dataclass(frozen=True)
class Case:
    """`nodes` make `y` from `h` = x + p0, from trained `p1`, `p2` … and from constants; the loss is mean(y·c) for a fixed random c.

    Names of initializers that start with `p` are trained. `x` may hold given values, for points that matter.
    """

    name: str
    nodes: Sequence[onnx.NodeProto]
    shape: Sequence[int] = (3, 4)
    initializers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    feeds: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    opset: int = 17
    x: np.ndarray | None = None
    functions: Sequence[onnx.FunctionProto] = ()
    # The operators that must be gone or in another form; none where ONNX Runtime takes the graph as it is.
    rewrites: Sequence[str] | None = None
    # The same where the first dimension is open, if it differs.
    rewrites_open: Sequence[str] | None = None
    # What a refusal says where the first dimension is open, and no exact rewriting is known.
    refused_open: str | None = None
    # Whether stock ONNX Runtime runs the graph as it is; else the float64 evaluation says what it means.
    has_kernel: bool = True

    def __str__(self) -> str:
        return self.name

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(self.name.encode()))

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """x and p0, of float32."""
        rng = self.rng()
        x = rng.standard_normal(self.shape) if self.x is None else np.asarray(self.x, float)
        return x.astype(np.float32), (0.0 if self.x is not None else 0.1) * rng.standard_normal(x.shape).astype(np.float32)

    def model(self, dynamic: bool) -> onnx.ModelProto:
        """The graph with a symbolic first dimension, or all fixed."""
        x, p0 = self.values()
        dims = [("N" if dynamic and axis == 0 else n) for axis, n in enumerate(x.shape)]
        if dynamic and x.ndim:
            # One parameter for all samples.
            p0 = p0[:1]
        body = [node("Add", "x p0", "h"), *self.nodes]
        ends = [node("Mul", "y c", "yc"), node("ReduceMean", "yc", "loss", keepdims=0)]
        fed = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in self.feeds.items()]
        inputs = [helper.make_tensor_value_info("x", FLOAT, dims), *fed]
        tensors = [numpy_helper.from_array(v, n) for n, v in {"p0": p0, **self.initializers}.items()]
        domains = {n.domain for n in self.nodes if n.domain} | {f.domain for f in self.functions}
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in sorted(domains))]
        probe = self._assemble(body, inputs, tensors, opsets, [helper.make_tensor_value_info("y", FLOAT, None)])
        [y] = evaluator(float64(probe)).run(["y"], as64({"x": x, **self.feeds}))
        y = np.asarray(y)
        c = self.rng().uniform(0.5, 1.5, y.shape).astype(np.float32)
        tensors.append(numpy_helper.from_array(c, "c"))
        outputs = [helper.make_tensor_value_info("loss", FLOAT, []), helper.make_tensor_value_info("y", FLOAT, [None] * y.ndim)]
        return self._assemble(body + ends, inputs, tensors, opsets, outputs)

    def _assemble(self, nodes, inputs, tensors, opsets, outputs):
        graph = helper.make_graph(copy.deepcopy(nodes), self.name, inputs, outputs, tensors)
        ir_version = max(8, helper.find_min_ir_version_for(opsets, ignore_unknown=True))
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=self.functions)

    def all_feeds(self) -> dict[str, np.ndarray]:
        return {"x": self.values()[0], **self.feeds}


def float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in float64, without calls of functions."""
    model = copy.deepcopy(model)
    # onnx's inliner forgets the defaults of a function's attributes.
    defaults = {(f.domain, f.name): f.attribute_proto for f in model.functions}
    for call in [n for part in (model.graph, *model.functions) for n in part.node]:
        given = {a.name for a in call.attribute}
        call.attribute.extend(a for a in defaults.get((call.domain, call.op_type), []) if a.name not in given)
    model = onnx.inliner.inline_local_functions(model)
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.type.tensor_type.elem_type == FLOAT:
            value.type.tensor_type.elem_type = DOUBLE
    for tensor in model.graph.initializer:
        if tensor.data_type == FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for each in model.graph.node:
        for attribute in each.attribute:
            if attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = DOUBLE
            if attribute.HasField("t") and attribute.t.data_type == FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float64)))
    return model


def evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    return ReferenceEvaluator(model, new_ops=reference_ops.ALL)


def as64(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: v.astype(np.float64) if v.dtype == np.float32 else v for name, v in feeds.items()}


def differences(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """d loss / d parameter by central differences, of every element of every trained initializer."""
    double = float64(model)
    # As inputs the parameters can be moved without building the model anew.
    names = [t.name for t in double.graph.initializer if t.name.startswith("p")]
    parameters = {t.name: numpy_helper.to_array(t) for t in double.graph.initializer if t.name in names}
    kept = [t for t in double.graph.initializer if t.name not in names]
    del double.graph.initializer[:]
    double.graph.initializer.extend(kept)
    double.graph.input.extend(helper.make_tensor_value_info(n, DOUBLE, v.shape) for n, v in parameters.items())
    run = evaluator(double)
    loss = lambda moved: float(np.asarray(run.run(["loss"], {**as64(feeds), **moved})[0]))
    gradients = {}
    for name in names:
        gradient = np.zeros(parameters[name].shape)
        for index in np.ndindex(*gradient.shape):
            sides = []
            for step in (STEP, -STEP):
                moved = parameters[name].copy()
                moved[index] += step
                sides.append(loss({**parameters, name: moved}))
            gradient[index] = (sides[0] - sides[1]) / (2 * STEP)
        gradients[name] = gradient
    return gradients
