"""Weights are never copied to memory, whatever has to be spelt out first."""

import os
import resource
import subprocess

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

WEIGHTS = 300 << 20
# What a process may write to, stacks of its threads included: half of the weights.
MOST = WEIGHTS // 2


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 300 MB of weights in the file itself, with a local function and an operator that is spelt out on the way to the loss."""
    side = int((WEIGHTS / 4) ** 0.5)
    weight = numpy_helper.from_array(np.zeros((side, side), np.float32), "w")
    body = [helper.make_node("MatMul", ["a", "b"], ["m"]), helper.make_node("Celu", ["m"], ["c"])]
    function = helper.make_function("own", "Layer", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("Layer", ["x", "w"], ["h"], domain="own"),
        helper.make_node("HardSwish", ["h"], ["s"]),
        helper.make_node("ReduceMean", ["s"], ["loss"], keepdims=0),
    ]
    given = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", side])]
    made = [helper.make_tensor_value_info("loss", onnx.TensorProto.FLOAT, [])]
    graph = helper.make_graph(nodes, "g", given, made, [weight])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    path = tmp_path_factory.mktemp("large") / "model.onnx"
    onnx.save(helper.make_model(graph, functions=[function], opset_imports=imports, ir_version=8), path)
    assert path.stat().st_size > WEIGHTS * 0.99
    return path


def limited(*arguments, **options):
    """Runs the tool where no more than that can be allocated."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_DATA, (MOST, MOST))
    command = [os.environ["PER_INJECT"], *map(str, arguments)]
    return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, **options)


@pytest.mark.parametrize("options", [["--optimizer", "adam"], ["--layers", "none", "--for", "ort-training"]], ids=["differentiate", "lower"])
def test_calls_of_functions_are_spelt_out_without_a_copy_of_the_weights(tmp_path, large, options):
    command = ["differentiate"] if "--optimizer" in options else []
    run = limited(*command, large, *options, "-o", tmp_path / "out.onnx")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out.onnx").stat().st_size > large.stat().st_size


def test_the_limit_is_one(large):
    """What comes through a pipe has to be in memory, and there is no room for it."""
    with subprocess.Popen(["cat", large], stdout=subprocess.PIPE) as pipe:
        assert limited("inspect", "-", stdin=pipe.stdout).returncode != 0
        pipe.kill()
