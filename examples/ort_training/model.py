"""The paper's 11-layer convolutional network, an eighth as wide, as a forward graph with its loss inside.

    x float[N, 1, 32, 32], y int64[N]  →  loss float[] (mean cross entropy), logits float[N, 10]

Any exporter writes such a graph; this one needs nothing but onnx. Ten convolutions, each with an activation, and a last one that makes
the logits. Weights are drawn from N(0, 2/fan_in) (He et al. 2015), biases are zero.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

# (channels, kernel) of the convolutions between one pooling and the next.
STAGES = [
    [(192, 5)],
    [(192, 1), (240, 3)],
    [(240, 1), (260, 3)],
    [(260, 1), (280, 3)],
    [(280, 1), (300, 3)],
    [(300, 1)],
]
NARROWER = 8
CLASSES = 10


class Builder:
    """Nodes and parameters in the order in which they are added."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.parameters = [], []

    def add(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, x, name, inputs, outputs, kernel):
        fan_in = inputs * kernel**2
        weight = self.random.normal(0, np.sqrt(2 / fan_in), (outputs, inputs, kernel, kernel))
        for suffix, value in (("weight", weight), ("bias", np.zeros(outputs))):
            self.parameters.append(numpy_helper.from_array(value.astype(np.float32), f"{name}.{suffix}"))
        return self.add("Conv", [x, f"{name}.weight", f"{name}.bias"], name, pads=[kernel // 2] * 4)


def cnn11(activation, seed=0):
    """The model with `activation` ("Relu", "Elu") after each of the first ten convolutions."""
    net, x, channels, layer = Builder(seed), "x", 1, 0
    for number, stage in enumerate(STAGES):
        if number > 0:
            x = net.add("MaxPool", [x], f"pool{number}", kernel_shape=[2, 2], strides=[2, 2])
        for width, kernel in stage:
            layer += 1
            x = net.convolution(x, f"conv{layer}", channels, width // NARROWER, kernel)
            x = net.add(activation, [x], f"{activation.lower()}{layer}")
            channels = width // NARROWER
    x = net.convolution(x, f"conv{layer + 1}", channels, CLASSES, 1)
    net.add("Flatten", [x], "logits")
    net.add("SoftmaxCrossEntropyLoss", ["logits", "y"], "loss")

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        net.nodes,
        f"cnn11_{activation.lower()}",
        inputs=[value("x", onnx.TensorProto.FLOAT, ["N", 1, 32, 32]), value("y", onnx.TensorProto.INT64, ["N"])],
        outputs=[value("loss", onnx.TensorProto.FLOAT, []), value("logits", onnx.TensorProto.FLOAT, ["N", CLASSES])],
        initializer=net.parameters,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
