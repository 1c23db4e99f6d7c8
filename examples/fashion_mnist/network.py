"""The 11-layer network of ../ort_training for images of 28 × 28, written by anyone who has onnx: `python network.py Relu cnn11.onnx`."""

import pathlib
import sys

import onnx

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "ort_training"))
from model import cnn11  # noqa: E402


def for_28_pixels(model):
    """The first convolution gets four rows and columns of zeros around the image, which make 32 × 32 of 28 × 28."""
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 28
    first = model.graph.node[0]
    assert first.op_type == "Conv"
    next(a for a in first.attribute if a.name == "pads").ints[:] = [4] * 4
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    activation, path = sys.argv[1:]
    onnx.save(for_28_pixels(cnn11(activation)), path)
