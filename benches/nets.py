"""The networks of benches/ort_training.py, train.py and gpu.py: forward pass and loss, weights by He's rule, as an exporter would write them.

`cnn11` is the 11-layer CNN of the paper, `width` times as wide; `perceptron` is 784-1024-1024-10; `fixup_resnet` is the residual network for
CIFAR-10, of 6n + 2 layers, without normalisation.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

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
        return self.constant(name, self.random.standard_normal(shape) * np.sqrt(2 / fan_in) if fan_in else np.zeros(shape))

    def constant(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(values if values.dtype.kind == "i" else values.astype(np.float32), name))
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


def fixup_resnet(depth: int = 110, batch: int | str = 128, opset: int = 17) -> onnx.ModelProto:
    """On 32×32 images of 10 classes; an activation behind the first layer and two in every block. As step_nets.FixupBlock computes it,
    with the parameters in the order in which PyTorch has them."""
    writer = Writer()
    blocks = (depth - 2) // 6
    x = writer.node("Conv", ["x", writer.weight("stem.weight", (16, 3, 3, 3), 27)], kernel_shape=[3, 3], pads=[1] * 4)
    x, channels = writer.node("Relu", [x]), 16
    for i, (out, stride) in enumerate((width, 2 if width > 16 and n == 0 else 1) for width in (16, 32, 64) for n in range(blocks)):
        scale = writer.constant(f"block{i}.scale", np.ones(1))
        a, b, c, d = (writer.weight(f"block{i}.bias{n}", (1,)) for n in range(4))
        # Fixup's rule: the first convolution is scaled down by the square root of the number of blocks, the last one begins at zero.
        conv1 = writer.weight(f"block{i}.conv1", (out, channels, 3, 3), 9 * channels * 3 * blocks)
        conv2 = writer.weight(f"block{i}.conv2", (out, out, 3, 3))
        moved = writer.node("Add", [x, a])
        h = writer.node("Conv", [moved, conv1], kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2)
        h = writer.node("Add", [writer.node("Relu", [writer.node("Add", [h, b])]), c])
        h = writer.node("Conv", [h, conv2], kernel_shape=[3, 3], pads=[1] * 4)
        h = writer.node("Add", [writer.node("Mul", [h, scale]), d])
        if stride > 1:
            pooled = writer.node("AveragePool", [moved], kernel_shape=[1, 1], strides=[2, 2])
            more = writer.constant(f"block{i}.more", np.array([0, 0, 0, 0, 0, out - channels, 0, 0]))
            x = writer.node("Pad", [pooled, more])
        x, channels = writer.node("Relu", [writer.node("Add", [h, x])]), out
    x = writer.node("Flatten", [writer.node("GlobalAveragePool", [x])])
    x = writer.node("Gemm", [x, writer.weight("fc.weight", (10, channels)), writer.weight("fc.bias", (10,))], transB=1)
    return writer.model(x, (batch, 3, 32, 32), batch, opset)
