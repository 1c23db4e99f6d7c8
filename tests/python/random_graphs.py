"""Random graphs of smooth operators: 3 to 12 nodes with broadcasting, shared values and several uses of one value."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Shapes that broadcast with one another, to [2, 3, 4] at most.
SHAPES = [(), (1,), (4,), (3, 1), (3, 4), (2, 1, 1), (2, 3, 1), (1, 3, 4), (2, 3, 4)]

UNARY = ["Tanh", "Sigmoid", "Sin", "Cos", "Softplus", "Atan", "Neg", "Mish", "Erf", "Identity"]
BINARY = ["Add", "Sub", "Mul"]
REDUCTIONS = ["ReduceSum", "ReduceMean", "ReduceLogSumExp", "ReduceSumSquare"]


class _Graph:
    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.nodes: list = []
        self.tensors: dict = {}
        # Values by name with their shapes.
        self.values: dict = {}

    def make(self, op: str, inputs: list, shape: tuple | None, **attributes) -> str:
        """A node's value; without a shape, one that broadcasts with no other and is read by the next node alone."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        if shape is not None:
            self.values[name] = shape
        return name

    def integers(self, values) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors[name] = np.array(values, np.int64)
        return name

    def pick(self, fits=lambda shape: True) -> str | None:
        names = [n for n, shape in self.values.items() if fits(shape)]
        return names[self.rng.integers(len(names))] if names else None

    def step(self) -> None:
        kind = self.rng.choice(["unary", "binary", "binary", "divide", "reduce", "move", "matmul", "softmax", "join", "many"])
        x = self.pick()
        shape = self.values[x]
        rank = len(shape)
        if kind == "unary":
            self.make(self.rng.choice(UNARY), [x], shape)
        elif kind in ("binary", "divide"):
            y = self.pick()
            both = np.broadcast_shapes(shape, self.values[y])
            if kind == "divide":
                # By something well above 0.
                y = self.make("Exp", [self.make("Tanh", [y], self.values[y])], self.values[y])
            self.make("Div" if kind == "divide" else self.rng.choice(BINARY), [x, y], both)
        elif kind == "reduce" and rank:
            axes = sorted(int(a) for a in self.rng.choice(rank, self.rng.integers(1, rank + 1), replace=False))
            # Without its first axes a value still broadcasts with all others.
            keep = int(self.rng.integers(2)) if axes == list(range(len(axes))) else 1
            left = tuple(1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes)
            self.make(self.rng.choice(REDUCTIONS), [x, self.integers(axes)], left, keepdims=keep)
        elif kind == "move" and rank > 1:
            perm = [int(p) for p in self.rng.permutation(rank)]
            turned = self.make("Transpose", [x], None, perm=perm)
            self.make("Reshape", [turned, self.integers(shape)], shape)
        elif kind == "matmul" and rank >= 2:
            y = self.pick(lambda s: len(s) == 2 and s[-1] == shape[-1])
            if y is not None:
                product = self.make("MatMul", [x, self.make("Transpose", [y], None, perm=[1, 0])], None)
                self.make("MatMul", [product, y], shape)
        elif kind == "softmax" and rank:
            self.make(self.rng.choice(["Softmax", "LogSoftmax"]), [x], shape, axis=int(self.rng.integers(-rank, rank)))
        elif kind == "join" and rank:
            axis = int(self.rng.integers(rank))
            y = self.pick(lambda s: s == shape)
            joined = self.make("Concat", [x, y], None, axis=axis)
            start = int(self.rng.integers(shape[axis] + 1))
            bounds = [self.integers([n]) for n in (start, start + shape[axis], axis)]
            self.make("Slice", [joined, *bounds], shape)
        elif kind == "many":
            others = [self.pick() for _ in range(self.rng.integers(2, 4))]
            self.make(self.rng.choice(["Sum", "Mean"]), [x, *others], np.broadcast_shapes(shape, *(self.values[o] for o in others)))


def random_graph(seed: int) -> tuple[onnx.ModelProto, dict]:
    """A graph whose loss weighs every value that nobody reads, in float64, and its parameters."""
    rng = np.random.default_rng(seed)
    graph = _Graph(rng)
    parameters = {}
    for i in range(rng.integers(1, 5)):
        shape = SHAPES[rng.integers(len(SHAPES))]
        parameters[f"p{i}"] = rng.normal(size=shape)
        graph.values[f"p{i}"] = shape
    size = int(rng.integers(3, 13))
    while len(graph.nodes) < size:
        graph.step()
    read = {name for each in graph.nodes for name in each.input}
    ends = [name for name in graph.values if name not in read]
    sums = []
    for i, name in enumerate(ends):
        graph.tensors[f"w{i}"] = rng.uniform(0.5, 1.5, graph.values[name])
        graph.nodes.append(helper.make_node("Mul", [name, f"w{i}"], [f"m{i}"]))
        graph.nodes.append(helper.make_node("ReduceSum", [f"m{i}"], [f"s{i}"], keepdims=0))
        sums.append(f"s{i}")
    graph.nodes.append(helper.make_node("Sum", sums, ["the_loss"]))
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in {**parameters, **graph.tensors}.items()]
    loss = helper.make_tensor_value_info("the_loss", TensorProto.DOUBLE, [])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "g", [], [loss], tensors), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    return model, parameters
