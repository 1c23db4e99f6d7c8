"""`examples/ort_training` learns, with PER and without it, and what it exports is free of PER."""

import json
import os
import subprocess

import numpy as np
import onnx
import pytest

import ort

EXAMPLE = ort.ROOT / "examples" / "ort_training" / "compare.py"
ACTIVATIONS = ["Relu", "Elu"]

# Four runs of 200 steps: a minute on two idle cores.
SMALL = ["--images", "6400", "--measured", "1000", "--coef", "0.03"]


def run_example(*arguments, **variables):
    command = [ort.TRAINING_PYTHON, EXAMPLE, *map(str, arguments)]
    environment = {**os.environ, **variables}
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=environment)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder that the example wrote."""
    folder = tmp_path_factory.mktemp("example") / "out"
    run = run_example(*SMALL, "--out", folder)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr[-2000:]}"
    # `$ per-inject …`, of the runs with PER one more than of those without.
    lines = [line for line in run.stdout.splitlines() if line.startswith("$ per-inject ")]
    assert [" --coef " in line for line in lines] == [False, True, False] * len(ACTIVATIONS)
    return folder


@pytest.fixture(scope="module")
def results(out):
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("method", ["vanilla", "PER"])
def test_it_learns(results, activation, method):
    run = results[activation][method]
    # The first entry is from before the first step.
    first, last = run["history"][0], run["history"][-1]
    assert last["loss"] < 0.3 * first["loss"]
    losses = np.array(run["losses"])
    assert len(losses) == last["step"] == 200 and np.isfinite(losses).all()
    assert losses[-20:].mean() < 0.5 * losses[:20].mean()
    # Chance is 0.1.
    assert first["accuracy"] < 0.3 and run["accuracy"] > 0.55


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_per_of_every_layer_is_lower_than_without_per(results, activation):
    vanilla, regularised = (np.array([entry["per"] for entry in results[activation][m]["history"]]) for m in ("vanilla", "PER"))
    # Both start from the same weights.
    np.testing.assert_array_equal(regularised[0], vanilla[0])
    assert regularised.shape[1] == 10
    assert (regularised[-1] < vanilla[-1]).all()
    # The excess over the least value, √(2/π), which PER has where all activations are 0.
    floor = np.sqrt(2 / np.pi)
    assert (regularised[-1] - floor).mean() < 0.7 * (vanilla[-1] - floor).mean()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_exported_model_has_the_nodes_of_the_one_without_per(out, activation):
    vanilla, regularised = (onnx.load(out / f"{activation}_{m}" / "inference.onnx").graph for m in ("vanilla", "PER"))
    assert [node.op_type for node in regularised.node] == [node.op_type for node in vanilla.node]
    assert not {"Erf", "Sqrt", "RandomNormal"} & {node.op_type for node in regularised.node}
    assert [output.name for output in regularised.output] == ["logits"]
    sizes = lambda graph: sorted(list(tensor.dims) for tensor in graph.initializer)
    assert sizes(regularised) == sizes(vanilla)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("method", ["vanilla", "PER"])
def test_the_exported_model_gives_the_logits_of_the_original_graph_with_the_trained_weights(out, per_inject, session, activation, method):
    folder = out / f"{activation}_{method}"
    per_inject("strip", "--all", folder / "forward.onnx", "-o", folder / "original.onnx")
    original, exported = onnx.load(folder / "original.onnx"), onnx.load(folder / "inference.onnx")
    assert {node.op_type for node in original.graph.node} == {"Conv", activation, "MaxPool", "Flatten", "SoftmaxCrossEntropyLoss"}
    trained = {tensor.name: tensor for tensor in exported.graph.initializer}
    assert len(original.graph.initializer) == 22
    for tensor in original.graph.initializer:
        assert trained[tensor.name].raw_data != tensor.raw_data
        tensor.CopyFrom(trained[tensor.name])
    x = np.random.default_rng(0).standard_normal((16, 1, 32, 32)).astype(np.float32)
    [expected] = session(original).run(["logits"], {"x": x, "y": np.zeros(16, np.int64)})
    [got] = session(exported).run(None, {"x": x})
    # Elu as ONNX Runtime's training takes it rounds differently, ten layers deep.
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_the_curves_are_a_picture(out):
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (out / "curves.png").stat().st_size > 10_000


def test_without_the_data_it_says_where_to_get_it(tmp_path):
    run = run_example(*SMALL, "--out", tmp_path, FASHION_MNIST=str(tmp_path / "nowhere"))
    assert run.returncode == 1
    assert f"Fashion-MNIST is not in {tmp_path / 'nowhere'}" in run.stderr and "apt-get install dataset-fashion-mnist" in run.stderr
    assert "Traceback" not in run.stderr


def test_without_the_tool_it_says_how_to_get_it(tmp_path):
    run = run_example(*SMALL, "--out", tmp_path, PER_INJECT=str(tmp_path / "nowhere"))
    assert run.returncode == 1
    assert "cargo install" in run.stderr and "Traceback" not in run.stderr
