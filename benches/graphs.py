"""Training graphs of any size, as an exporter would write them but with small weights; and one with 1.6 GB of them.

    python benches/graphs.py residual 100000 OUT.onnx
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper

CHANNELS = 4
SIDE = 16


def _tensor(name: str, values: np.ndarray) -> TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, values.shape, values.astype("<f4").tobytes(), raw=True)


def _value(name: str, *dims: int | str):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def _model(nodes, inputs, initializers, value_info=()) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "main", inputs, [_value("loss")], initializers, value_info=list(value_info))
    return helper.make_model(
        graph, producer_name="benches", ir_version=8, opset_imports=[helper.make_opsetid("", 17)]
    )


def residual(nodes: int, declared: bool = True) -> onnx.ModelProto:
    """Blocks of Conv, BatchNormalization, Relu and Add: one Relu in four nodes. With or without value_info."""
    random = np.random.default_rng(0)
    made, initializers, value_info, x = [], [], [], "x"
    for i in range((nodes - 3) // 4):
        block = f"/blocks.{i}"
        conv, normed, relu, total = (f"{block}/{n}_output_0" for n in ("conv/Conv", "bn/BatchNormalization", "act/Relu", "Add"))
        weight = f"blocks.{i}.conv.weight"
        initializers.append(_tensor(weight, random.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 6))
        statistics = [f"blocks.{i}.bn.{n}" for n in ("weight", "bias", "running_mean", "running_var")]
        initializers += [_tensor(n, random.random(CHANNELS)) for n in statistics]
        made += [
            helper.make_node("Conv", [x, weight], [conv], f"{block}/conv/Conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node(
                "BatchNormalization",
                [conv, *statistics],
                [normed, f"{block}/bn/mean_out", f"{block}/bn/var_out"],
                f"{block}/bn/BatchNormalization",
                training_mode=1,
            ),
            helper.make_node("Relu", [normed], [relu], f"{block}/act/Relu"),
            helper.make_node("Add", [relu, x], [total], f"{block}/Add"),
        ]
        if declared:
            value_info += [_value(v, "N", CHANNELS, SIDE, SIDE) for v in (conv, normed, relu, total)]
        x = total
    made += [
        helper.make_node("GlobalAveragePool", [x], ["pooled"], "/pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["pooled"], ["logits"], "/Flatten"),
        helper.make_node("SoftmaxCrossEntropyLoss", ["logits", "target"], ["loss"], "/loss/SoftmaxCrossEntropyLoss"),
    ]
    target = helper.make_tensor_value_info("target", TensorProto.INT64, ["N"])
    return _model(made, [_value("x", "N", CHANNELS, SIDE, SIDE), target], initializers, value_info)


def perceptron(nodes: int, declared: bool = True) -> onnx.ModelProto:
    """Gemm and Relu in turn: one Relu in two nodes, the most that a graph has to tap."""
    random = np.random.default_rng(0)
    made, initializers, value_info, x = [], [], [], "x"
    for i in range((nodes - 1) // 2):
        gemm, relu = f"/net.{2 * i}/Gemm_output_0", f"/net.{2 * i + 1}/Relu_output_0"
        weight, bias = f"net.{2 * i}.weight", f"net.{2 * i}.bias"
        initializers += [_tensor(weight, random.standard_normal((8, 8))), _tensor(bias, random.standard_normal(8))]
        made += [
            helper.make_node("Gemm", [x, weight, bias], [gemm], f"/net.{2 * i}/Gemm", transB=1),
            helper.make_node("Relu", [gemm], [relu], f"/net.{2 * i + 1}/Relu"),
        ]
        if declared:
            value_info += [_value(gemm, "N", 8), _value(relu, "N", 8)]
        x = relu
    made.append(helper.make_node("ReduceMean", [x], ["loss"], "/loss/ReduceMean", keepdims=0))
    return _model(made, [_value("x", "N", 8)], initializers, value_info)


def _varint(n: int) -> bytes:
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def write_large(path: pathlib.Path, layers: int = 15, width: int = 5120) -> None:
    """15 Gemm layers of 5120×5120 float32, 1.6 GB inline. Written piece by piece: protobuf in memory would take three times that."""
    names = [f"net.{2 * i}.weight" for i in range(layers)]
    skeleton = perceptron(2 * layers + 1)
    graph = skeleton.graph
    del graph.initializer[:], graph.value_info[:], graph.input[:]
    graph.input.append(_value("x", "N", width))
    for node in graph.node:
        del node.input[2:]  # without the biases
    heads = [TensorProto(dims=[width, width], data_type=TensorProto.FLOAT, name=n).SerializeToString() for n in names]
    size = 4 * width * width
    raw = bytes([9 << 3 | 2]) + _varint(size)
    tensors = [bytes([5 << 3 | 2]) + _varint(len(h) + len(raw) + size) + h + raw for h in heads]
    before = onnx.GraphProto(node=graph.node, name=graph.name).SerializeToString()
    after = onnx.GraphProto(input=graph.input, output=graph.output).SerializeToString()
    total = len(before) + sum(len(t) + size for t in tensors) + len(after)
    opsets = list(skeleton.opset_import)
    graph.Clear()
    skeleton.ClearField("graph")
    skeleton.ClearField("opset_import")
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(skeleton.SerializeToString() + bytes([7 << 3 | 2]) + _varint(total) + before)
        for tensor in tensors:
            file.write(tensor)
            file.write(random.random(width * width, dtype=np.float32).tobytes())
        file.write(after + onnx.ModelProto(opset_import=opsets).SerializeToString())


GRAPHS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "residual": residual,
    "residual-undeclared": lambda n: residual(n, declared=False),
    "perceptron": perceptron,
}


def main(args: Iterable[str]) -> None:
    kind, nodes, path = args
    if kind == "large":
        write_large(pathlib.Path(path))
    else:
        pathlib.Path(path).write_bytes(GRAPHS[kind](int(nodes)).SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1:])
