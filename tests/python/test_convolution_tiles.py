"""Convolutions of 3×3 by tiles, as `differentiate --device cpu` writes them, against the formulas in float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from test_differentiate import differentiated, gradients

# Of the largest entry. Float32 rounds to 6e-8; a product of matrices over as many terms is off by 1e-6 at most, and tiles by up to four
# times as much.
TOLERANCE = {np.float32: 4e-6, np.float64: 1e-13}


@dataclasses.dataclass(frozen=True)
class Case:
    """Conv of x [samples, inputs, h, w] times s [1, inputs, 1, 1]."""

    name: str
    shape: tuple[int, int, int, int]
    outputs: int
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    attributes: dict = dataclasses.field(default_factory=dict)
    opset: int = 17
    is_open: bool = False
    has_bias: bool = True
    dtype: type = np.float32
    kernel: tuple[int, int] = (3, 3)
    group: int = 1

    def arrays(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(5)
        inputs = self.shape[1]
        arrays = {
            "x": rng.standard_normal(self.shape),
            "s": rng.uniform(0.5, 1.5, (1, inputs, 1, 1)),
            "w": rng.standard_normal((self.outputs, inputs // self.group, *self.kernel)) / (3 * inputs**0.5),
            "b": rng.standard_normal(self.outputs),
        }
        return {name: value.astype(self.dtype) for name, value in arrays.items() if self.has_bias or name != "b"}

    def model(self) -> onnx.ModelProto:
        arrays = self.arrays()
        elem = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        attributes = self.attributes or {"pads": self.pads}
        nodes = [
            helper.make_node("Mul", ["x", "s"], ["h"]),
            helper.make_node("Conv", ["h", "w", "b"][: 2 + self.has_bias], ["y"], "conv", **attributes),
            helper.make_node("Mul", ["y", "y"], ["q"]),
            helper.make_node("ReduceMean", ["q"], ["loss"], keepdims=0),
        ]
        shape = ["n", *self.shape[1:]] if self.is_open else self.shape
        value = helper.make_tensor_value_info
        tensors = [numpy_helper.from_array(v, n) for n, v in arrays.items() if n != "x"]
        graph = helper.make_graph(nodes, "g", [value("x", elem, shape)], [value("loss", elem, [])], tensors)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=max(4, helper.find_min_ir_version_for(opsets)))

    def expected(self) -> tuple[float, dict[str, np.ndarray]]:
        """The mean of y² and its gradients, by the definition of a convolution, in float64."""
        arrays = {name: value.astype(np.float64) for name, value in self.arrays().items()}
        x, s, w = arrays["x"], arrays["s"], arrays["w"]
        top, left, bottom, right = self.pads
        edges = ((0, 0), (0, 0), (top, bottom), (left, right))
        padded = np.pad(x * s, edges)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        y = np.einsum("nchwij,ocij->nohw", windows, w) + arrays.get("b", np.zeros(1)).reshape(1, -1, 1, 1)
        dy = 2 * y / y.size
        dpadded = np.zeros_like(padded)
        high, wide = y.shape[2:]
        for i, j in np.ndindex(3, 3):
            dpadded[:, :, i : i + high, j : j + wide] += np.einsum("nohw,oc->nchw", dy, w[:, :, i, j])
        dh = dpadded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        found = {"s": (dh * x).sum((0, 2, 3), keepdims=True), "w": np.einsum("nchwij,nohw->ocij", windows, dy), "b": dy.sum((0, 2, 3))}
        return float((y * y).mean()), {name: found[name] for name in arrays if name != "x"}


def kinds(step: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(step).graph.node]


CASES = [
    Case("square", (3, 128, 16, 16), 128),
    Case("open-batch", (5, 128, 8, 8), 96, is_open=True),
    Case("no-bias", (5, 128, 16, 12), 96, has_bias=False),
    Case("lengths-that-are-no-tiles", (7, 128, 13, 9), 128, (0, 2, 1, 0)),
    Case("wide-pads", (3, 128, 12, 15), 128, (3, 0, 2, 4)),
    Case("same-upper", (5, 128, 12, 12), 128, attributes={"auto_pad": "SAME_UPPER"}),
    Case("same-lower-open", (4, 96, 11, 12), 128, attributes={"auto_pad": "SAME_LOWER"}, is_open=True),
    Case("valid", (8, 128, 10, 14), 128, (0, 0, 0, 0), {"auto_pad": "VALID"}),
    Case("one-tile", (48, 128, 4, 4), 128),
    Case("opset-9", (5, 128, 8, 8), 96, opset=9, is_open=True),
    Case("opset-23", (5, 128, 8, 8), 96, opset=23, is_open=True),
    Case("double", (10, 128, 9, 8), 128, dtype=np.float64),
    Case("double-open", (5, 96, 8, 10), 128, is_open=True, dtype=np.float64),
    Case("many-channels", (8, 256, 8, 8), 192),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tiles_are_the_convolution(session, case):
    expected_loss, expected = case.expected()
    step = differentiated(case.model().SerializeToString(), "--wrt", "s,w,b" if case.has_bias else "s,w")
    assert "Conv" not in kinds(step) and "ConvTranspose" not in kinds(step)
    loss, found = gradients(session, step, {"x": case.arrays()["x"]})
    tolerance = TOLERANCE[case.dtype]
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert np.abs(found[name] - gradient).max() <= tolerance * np.abs(gradient).max(), name


@pytest.mark.parametrize(
    "case",
    [
        Case("strides", (4, 128, 16, 16), 96, attributes={"pads": [1] * 4, "strides": [2, 1]}),
        Case("dilations", (4, 128, 16, 16), 96, attributes={"pads": [2] * 4, "dilations": [2, 2]}),
        Case("groups", (4, 128, 16, 16), 96, attributes={"pads": [1] * 4, "group": 2}, group=2),
        Case("five-by-five", (4, 128, 16, 16), 96, attributes={"pads": [2] * 4}, kernel=(5, 5)),
        Case("few-channels", (8, 4, 32, 32), 512),
        Case("few-places", (100, 192, 2, 2), 192),
        Case("weights-larger-than-all-tiles", (8, 512, 4, 4), 512),
        Case("little-to-do", (4, 128, 8, 8), 128),
        Case("large-map", (2, 64, 96, 96), 64),
        Case("half", (4, 128, 16, 16), 96, dtype=np.float16),
    ],
    ids=lambda case: case.name,
)
def test_where_tiles_are_not_right_or_not_faster_a_convolution_stays_one(case):
    assert "Conv" in kinds(differentiated(case.model().SerializeToString(), "--wrt", "w"))


def test_places_of_unknown_number_leave_a_convolution_as_it_is():
    case = CASES[0]
    model = case.model()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "h"
    assert "Conv" in kinds(differentiated(model.SerializeToString(), "--wrt", "w"))


def test_for_a_gpu_convolutions_stay_as_they_are(session):
    case = CASES[0]
    model = case.model().SerializeToString()
    kept = differentiated(model, "--wrt", "s,w,b", "--device", "cuda")
    forward = onnx.load_from_string(model).graph.node
    assert list(onnx.load_from_string(kept).graph.node[: len(forward)]) == list(forward)
    expected_loss, expected = case.expected()
    loss, found = gradients(session, kept, {"x": case.arrays()["x"]})
    assert loss == pytest.approx(expected_loss, rel=TOLERANCE[np.float32])
    for name, gradient in expected.items():
        assert np.abs(found[name] - gradient).max() <= TOLERANCE[np.float32] * np.abs(gradient).max(), name


def test_a_convolution_in_a_body_stays_one():
    """Every run of the body would keep its tiles, and make those of the weights again."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[4,128,16,16] x, bool c) => (float loss) {
        y = If(c)<then_branch = t () => (float[4,128,16,16] a) { a = Conv<pads = [1, 1, 1, 1]>(x, w) },
                  else_branch = e () => (float[4,128,16,16] b) { b = Mul(x, x) }>
        q = Mul(y, y) loss = ReduceMean<keepdims = 0>(q) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((128, 128, 3, 3), np.float32), "w"))
    step = onnx.load_from_string(differentiated(model.SerializeToString(), "--wrt", "w"))
    bodies = [a.g for node in step.graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    assert any(node.op_type == "Conv" for body in bodies for node in body.node)
