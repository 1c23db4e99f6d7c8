"""examples/from_pytorch, from an exported model on: what needs no PyTorch."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import per_inject
from conftest import ROOT

EXAMPLE = ROOT / "examples" / "from_pytorch" / "from_pytorch.py"


def exported(path):
    """The graph that PyTorch 1.13 exports of the example's network."""
    generator = np.random.default_rng(0)
    nodes, weights, value, width = [], [], "x", 64
    for i, size in ((0, 128), (2, 128), (4, 10)):
        bound = width**-0.5
        for name, shape in ((f"body.{i}.weight", (size, width)), (f"body.{i}.bias", (size,))):
            weights.append(numpy_helper.from_array(generator.uniform(-bound, bound, shape).astype(np.float32), name))
        last = i == 4
        output = "logits" if last else f"/body/{i}/Gemm_output_0"
        inputs = [value, f"body.{i}.weight", f"body.{i}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [output], f"/body/{i}/Gemm", alpha=1.0, beta=1.0, transB=1))
        if not last:
            value = f"/body/{i + 1}/Relu_output_0"
            nodes.append(helper.make_node("Relu", [output], [value], f"/body/{i + 1}/Relu"))
        width = size
    nodes.append(helper.make_node("SoftmaxCrossEntropyLoss", ["logits", "y"], ["loss"], "/loss", ignore_index=-100, reduction="mean"))
    graph = helper.make_graph(
        nodes,
        "torch_jit",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64]), helper.make_tensor_value_info("y", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("loss", TensorProto.FLOAT, []), helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)


def test_it_trains_an_exported_model_with_per_and_without(tmp_path):
    exported(tmp_path / "forward.onnx")
    run = subprocess.run([sys.executable, EXAMPLE, tmp_path], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    accuracy = {m[1]: float(m[2]) for m in re.finditer(r"^(\w+) +test accuracy ([\d.]+) ", run.stdout, re.MULTILINE)}
    # A tenth of the labels is chance.
    assert set(accuracy) == {"plain", "per"} and min(accuracy.values()) > 0.5, run.stdout
    # The example's other half loads these into PyTorch's network by name.
    names = {f"body.{i}.{what}" for i in (0, 2, 4) for what in ("weight", "bias")}
    trained = {t.name for t in onnx.load(tmp_path / "per" / "model.onnx").graph.initializer}
    assert trained == names
    forward = (tmp_path / "forward.onnx").read_bytes()
    assert per_inject.strip((tmp_path / "forward_per.onnx").read_bytes()) == forward
    assert pathlib.Path(tmp_path, "plain", "model.onnx").read_bytes() != pathlib.Path(tmp_path, "per", "model.onnx").read_bytes()
