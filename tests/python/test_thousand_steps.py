"""A thousand steps of gradient descent on an injected graph, through generate_artifacts of ONNX Runtime training."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import nets
import ort

STEPS, RATE = 1000, 0.05


def weights(**shapes):
    """Of variance 1/n, n the last axis but one."""
    random = np.random.default_rng(3)
    return {name: (random.standard_normal(shape) / np.sqrt(shape[-2])).astype(np.float32) for name, shape in shapes.items()}


def classifier(nodes, x, parameters, features, width):
    """Cross entropy of a linear layer on `features`, in five classes."""
    tensors = parameters | weights(out=(width, 5))
    tail = [
        helper.make_node("MatMul", [features, "out"], ["logits"]),
        helper.make_node("SoftmaxCrossEntropyLoss", ["logits", "y"], ["loss"]),
    ]
    inputs = [("x", nets.FLOAT, x), ("y", TensorProto.INT64, ["N"])]
    return nets.model([*nodes, *tail], inputs, [("loss", nets.FLOAT, [])], tensors), list(tensors)


def perceptron(activation, **attributes):
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a1"]),
        helper.make_node(activation, ["a1"], ["h1"], **attributes),
        helper.make_node("MatMul", ["h1", "w2"], ["a2"]),
        helper.make_node(activation, ["a2"], ["h2"], **attributes),
    ]
    return *classifier(nodes, ["N", 12], weights(w1=(12, 24), w2=(24, 16)), "h2", 16), (12,)


def lstm():
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r", "b"], ["h", "last"], hidden_size=10),
        helper.make_node("Squeeze", ["last", "axis"], ["features"]),
    ]
    parameters = weights(w=(1, 40, 6), r=(1, 40, 10)) | {"b": np.zeros((1, 80), np.float32)}
    made, names = classifier(nodes, ["N", 7, 6], parameters, "features", 10)
    made.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    return made, names, (7, 6)


NETS = {
    "relu": lambda: perceptron("Relu"),
    "leakyrelu": lambda: perceptron("LeakyRelu", alpha=0.1),
    "elu": lambda: perceptron("Elu"),
    "lstm": lstm,
}


@pytest.mark.parametrize("estimator", [["exact"], ["sampled", "--slices", 64, "--seed", 2]], ids=["exact", "sampled"])
@pytest.mark.parametrize("name", NETS)
def test_a_thousand_steps_keep_the_loss_finite_and_learn(inject, name, estimator):
    model, parameters, shape = NETS[name]()
    random = np.random.default_rng(4)
    feeds = {"x": random.standard_normal((20, *shape)).astype(np.float32), "y": random.integers(0, 5, 20)}
    injected = inject(model, "--for", "ort-training", "--layers", name, "--coef", 0.01, "--estimator", *estimator)
    assert injected.report["form"] == "loss" and len(injected.report["layers"]) == (1 if name == "lstm" else 2)
    # `descend` stops at the first loss that is not finite.
    first = ort.descend(injected.data, feeds, parameters).loss
    last = ort.descend(injected.data, feeds, parameters, steps=STEPS, rate=RATE)
    assert last.loss < 0.5 * first
    assert all(np.isfinite(moved).all() and moved.any() for moved in last.moved.values())
