"""The networks of benches/ort_training.py: forward pass and loss, weights by He's rule, as an exporter would write them.

`cnn11` is the 11-layer CNN of the paper, `width` times as wide; `perceptron` is 784-1024-1024-10.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

# (channels, kernel, whether 2×2 max pooling follows), of all but the last convolution.
CNN11 = [
    (192, 5, True), (192, 1, False), (240, 3, True), (240, 1, False), (260, 3, True), (260, 1, False),
    (280, 3, True), (280, 1, False), (300, 3, True), (300, 1, False),
]  # fmt: skip


class Writer:
    """Nodes and weights in the order in which they are written."""

    def __init__(self) -> None:
        self.nodes, self.weights = [], []
        self.random = np.random.default_rng(0)

    def node(self, op: str, inputs: list[str], **attributes) -> str:
        output = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def weight(self, name: str, shape: tuple[int, ...], fan_in: int = 0) -> str:
        """Normal with variance 2/fan_in; zero for a bias."""
        values = self.random.standard_normal(shape) * np.sqrt(2 / fan_in) if fan_in else np.zeros(shape)
        self.weights.append(helper.make_tensor(name, TensorProto.FLOAT, shape, values.astype("<f4").tobytes(), raw=True))
        return name

    def model(self, logits: str, x_shape: tuple[int | str, ...], batch: int | str, opset: int) -> onnx.ModelProto:
        loss = self.node("SoftmaxCrossEntropyLoss", [logits, "target"], reduction="mean")
        inputs = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape),
            helper.make_tensor_value_info("target", TensorProto.INT64, [batch]),
        ]
        outputs = [helper.make_tensor_value_info(loss, TensorProto.FLOAT, [])]
        graph = helper.make_graph(self.nodes, "net", inputs, outputs, self.weights)
        made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
        return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def cnn11(width: float = 1.0, activation: str = "Elu", batch: int | str = 16, opset: int = 17) -> onnx.ModelProto:
    """On 32×32 images of 10 classes; ten activations."""
    writer, x, channels = Writer(), "x", 3
    for i, (wide, kernel, is_pooled) in enumerate(CNN11):
        out = round(wide * width)
        weight = writer.weight(f"conv{i}.weight", (out, channels, kernel, kernel), channels * kernel * kernel)
        bias = writer.weight(f"conv{i}.bias", (out,))
        x = writer.node("Conv", [x, weight, bias], kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)
        x = writer.node(activation, [x])
        if is_pooled:
            x = writer.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
        channels = out
    x = writer.node("Conv", [x, writer.weight("conv10.weight", (10, channels, 1, 1), channels), writer.weight("conv10.bias", (10,))])
    logits = writer.node("Flatten", [x])
    return writer.model(logits, (batch, 3, 32, 32), batch, opset)


def perceptron(activation: str = "Relu", batch: int | str = 128, opset: int = 17) -> onnx.ModelProto:
    """Two hidden layers of 1,024; two activations."""
    writer, x, width = Writer(), "x", 784
    for i, out in enumerate((1024, 1024, 10)):
        x = writer.node("Gemm", [x, writer.weight(f"fc{i}.weight", (out, width), width), writer.weight(f"fc{i}.bias", (out,))], transB=1)
        if out > 10:
            x = writer.node(activation, [x])
        width = out
    return writer.model(x, (batch, 784), batch, opset)
