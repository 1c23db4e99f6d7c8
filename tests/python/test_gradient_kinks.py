"""What gradients are where an operator has no derivative: PyTorch's conventions, as docs/operators.md has them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lowering import node
from operators_page import listing
from test_differentiate import differentiated, gradients

x = [-1.0, 0.0, 0.0, 2.0]

# name: (nodes that make y of p0, p1 …, the parameters, their gradients for a loss Σ w·y with w = 1, 2, 3 …, constants).
KINKS = {
    "Relu": ([node("Relu", "p0", "y")], [x], [[0, 0, 0, 4]], {}),
    "LeakyRelu": ([node("LeakyRelu", "p0", "y", alpha=0.5)], [x], [[0.5, 1, 1.5, 4]], {}),
    "PRelu": ([node("PRelu", "p0 p1", "y")], [x, [0.5]], [[0.5, 1, 1.5, 4], [-1]], {}),
    "Elu": ([node("Elu", "p0", "y", alpha=0.5)], [[0, 1]], [[0.5, 2]], {}),
    "Elu-parts": ([node("Elu", "p0", "y")], [[-1, 0, 1]], [[np.exp(-1), 2, 3]], {}),
    "Selu": ([node("Selu", "p0", "y", alpha=2.0, gamma=3.0)], [[0, 1]], [[6, 6]], {}),
    "Celu": ([node("Celu", "p0", "y", alpha=2.0)], [[0, 1]], [[1, 2]], {}),
    "ThresholdedRelu": ([node("ThresholdedRelu", "p0", "y", alpha=2.0)], [[1, 2, 3]], [[0, 0, 3]], {}),
    "HardSigmoid": ([node("HardSigmoid", "p0", "y", alpha=0.25, beta=0.5)], [[-2, 0, 2]], [[0, 0.5, 0]], {}),
    "HardSwish": ([node("HardSwish", "p0", "y")], [[-3, 0, 3]], [[0, 1, 3]], {}),
    "Shrink": ([node("Shrink", "p0", "y", lambd=1.0, bias=0.0)], [[-1, 0, 1, 2]], [[0, 0, 0, 4]], {}),
    "Abs": ([node("Abs", "p0", "y")], [x], [[-1, 0, 0, 4]], {}),
    "ReduceL1": ([node("ReduceL1", "p0", "y")], [x], [[-1, 0, 0, 1]], {}),
    "ReduceL2": ([node("ReduceL2", "p0", "y")], [[0, 0]], [[0, 0]], {}),
    "LpNormalization": ([node("LpNormalization", "p0", "y", axis=0)], [[0, 0]], [[1, 2]], {}),
    "Clip": ([node("Clip", "p0 p1 p2", "y")], [[-2, -1, 0, 1, 2], -1, 1], [[0, 2, 3, 4, 0], 1, 5], {}),
    "Clip-crossed": ([node("Clip", "p0 p1 p2", "y")], [[-2, 0, 2], 1, -1], [[0, 0, 0], 0, 6], {}),
    "Max": ([node("Max", "p0 p1", "y")], [[1, 2, 3], [1, 1, 4]], [[0.5, 2, 0], [0.5, 0, 3]], {}),
    "Min": ([node("Min", "p0 p1", "y")], [[1, 2, 3], [1, 1, 4]], [[0.5, 0, 3], [0.5, 2, 0]], {}),
    "ReduceMax": ([node("ReduceMax", "p0", "y")], [[1, 3, 3, 3]], [[0, 1 / 3, 1 / 3, 1 / 3]], {}),
    "ReduceMin": ([node("ReduceMin", "p0", "y")], [[1, 1, 3]], [[0.5, 0.5, 0]], {}),
    "GlobalMaxPool": ([node("GlobalMaxPool", "p0", "y")], [[[[1, 2, 2]]]], [[[[0, 1, 0]]]], {}),
    "MaxPool": ([node("MaxPool", "p0", "y", kernel_shape=[2], strides=[1])], [[[[5, 5, 5, 1]]]], [[[[1, 2, 3, 0]]]], {}),
    "MaxPool-apart": ([node("MaxPool", "p0", "y", kernel_shape=[2], strides=[2])], [[[[5, 5, 1, 1]]]], [[[[1, 0, 2, 0]]]], {}),
    # Windows with equal maxima in each order, the third place of a window included.
    "MaxPool-halves": (
        [node("MaxPool", "p0", "y", kernel_shape=[2, 2], strides=[2, 2])],
        [[[[[5, 5, 1, 2, 0, 0], [5, 5, 2, 2, 7, 7], [-np.inf, 0, 1, 0, 1, 9], [0, -1, 0, 3, 9, 9]]]]],
        [[[[[1, 0, 0, 2, 0, 0], [0, 0, 0, 0, 3, 0], [0, 4, 0, 0, 0, 6], [0, 0, 0, 5, 0, 0]]]]],
        {},
    ),
    "TopK": ([node("TopK", "p0 k", "y i")], [[4, 4, 1, 4]], [[1, 2, 0, 0]], {"k": np.array([2])}),
    "Mod": ([node("Mod", "p0 p1", "y", fmod=1)], [[2, 3], [2, 2]], [[1, 2], [-1, -2]], {}),
    "Pow": ([node("Pow", "p0 p1", "y")], [[0, 1, 2], [2, 2, 2]], [[0, 4, 12], [0, 0, 3 * 4 * np.log(2)]], {}),
    "ScatterElements": (
        [node("ScatterElements", "p0 i p1", "y", axis=0, reduction="max")],
        [[1, 5, 2], [5, 3, 3]],
        [[1, 1, 0], [1, 1.5, 1.5]],
        {"i": np.array([1, 2, 2])},
    ),
    "ScatterND": (
        [node("ScatterND", "p0 i p1", "y", reduction="min")],
        [[1, 5, 2], [5, 2]],
        [[1, 1, 1.5], [1, 1.5]],
        {"i": np.array([[1], [2]])},
    ),
    "GridSample": ([node("GridSample", "p0 p1", "y", mode="nearest")], [[[[[1, 2]]]], [[[[-0.5, 0]]]]], [[[[[1, 0]]]], [[[[0, 0]]]]], {}),
    "GridSample-linear": (
        [node("GridSample", "p0 p1", "y", align_corners=1, padding_mode="border")],
        [[[[[1, 2, 4]], [[0, 0, 0]]]], [[[[0, 0]]]]],
        [[[[[0, 1, 0]], [[0, 2, 0]]]], [[[[2, 0]]]]],
        {},
    ),
}


@pytest.mark.parametrize("name", KINKS)
def test_the_gradient_at_a_kink_is_the_one_documented(session, name):
    nodes, values, expected, constants = KINKS[name]
    parameters = {f"p{i}": np.array(v, np.float32) for i, v in enumerate(values)}
    tensors = [numpy_helper.from_array(v, n) for n, v in {**parameters, **constants}.items()]
    imports = [helper.make_opsetid("", 20)]
    probe = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors)
    [y] = session(helper.make_model(probe, opset_imports=imports, ir_version=9)).run(["y"], {})
    w = np.arange(1, y.size + 1, dtype=np.float32).reshape(y.shape)
    behind = [node("Mul", "y w", "yw"), node("ReduceSum", "yw", "loss", keepdims=0)]
    loss = helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])
    graph = helper.make_graph([*nodes, *behind], "g", [], [loss], [*tensors, numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    _, found = gradients(session, differentiated(model.SerializeToString(), "--wrt", "re:^p"), {})
    for i, gradient in enumerate(expected):
        # All of these numbers are exact in float32, or nearly.
        given = found.get(f"p{i}", np.zeros_like(parameters[f"p{i}"]))
        np.testing.assert_allclose(given, np.array(gradient, np.float32), rtol=1e-6, atol=0)


def test_every_convention_documented_is_checked():
    documented = {o["name"] for o in listing()["operators"] if "kinks" in o}
    assert documented == {name.split("-")[0] for name in KINKS}
