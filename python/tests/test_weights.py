"""weights_get and weights_put are the program's commands, on arrays."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import per_inject
from conftest import MODELS, program

MLP = MODELS / "mlp_relu.ts17.onnx"


def initializers(data):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(data).graph.initializer}


def test_weights_of_every_kind_of_model(kind):
    found = per_inject.weights_get(kind.give(MLP))
    expected = initializers(MLP.read_bytes())
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
    assert per_inject.weights_get(kind.give(MLP), wrt="name:*.bias").keys() == {n for n in expected if n.endswith("bias")}
    assert per_inject.weights_get(kind.give(MLP), all=True).keys() == expected.keys()


def test_what_is_put_in_is_what_the_program_puts_in(kind, tmp_path):
    weights = {name: values + 1 for name, values in per_inject.weights_get(MLP).items()}
    np.savez(tmp_path / "weights.npz", **weights)
    program("weights", "put", MLP, "--from", tmp_path / "weights.npz", "-o", tmp_path / "program.onnx")
    expected = (tmp_path / "program.onnx").read_bytes()
    for given in (weights, tmp_path / "weights.npz", str(tmp_path / "weights.npz")):
        assert kind.take(per_inject.weights_put(kind.give(MLP), given, **kind.options())) == kind.same(expected)
    for name, values in initializers(expected).items():
        np.testing.assert_array_equal(values, weights[name])
    # Back again, bit for bit.
    before = kind.take(per_inject.weights_put(kind.give(tmp_path / "program.onnx"), per_inject.weights_get(MLP), **kind.options()))
    assert before == kind.same(MLP.read_bytes())


def test_elements_of_every_type_and_field_go_out_and_in_again():
    """Typed fields too, whose varints change their length, and bfloat16 as float32, which has all of its numbers."""
    generator = np.random.default_rng(0)
    tensors = [
        helper.make_tensor("raw", TensorProto.FLOAT, [3], generator.standard_normal(3).astype("<f4").tobytes(), raw=True),
        helper.make_tensor("float", TensorProto.FLOAT, [2, 2], [1.0, -2.5, 0.0, 3e-8]),
        helper.make_tensor("double", TensorProto.DOUBLE, [2], [1 / 3, -1e300]),
        helper.make_tensor("half", TensorProto.FLOAT16, [2], [0.5, -3.0]),
        helper.make_tensor("brain", TensorProto.BFLOAT16, [3], [1.5, -0.0078125, 1e38]),
        helper.make_tensor("whole", TensorProto.INT64, [3], [0, -1, 2**40]),
        helper.make_tensor("flag", TensorProto.BOOL, [2], [True, False]),
        helper.make_tensor("scalar", TensorProto.FLOAT, [], [7.0]),
    ]
    nodes = [helper.make_node("Identity", [t.name], [f"{t.name}_out"]) for t in tensors]
    outputs = [helper.make_tensor_value_info(f"{t.name}_out", t.data_type, list(t.dims)) for t in tensors]
    model = helper.make_model(helper.make_graph(nodes, "types", [], outputs, tensors), opset_imports=[helper.make_opsetid("", 17)])
    data = model.SerializeToString()

    weights = per_inject.weights_get(data, all=True)
    assert {name: values.dtype for name, values in weights.items()} == {
        **{"raw": np.float32, "float": np.float32, "double": np.float64, "half": np.float16, "brain": np.float32},
        **{"whole": np.int64, "flag": np.bool_, "scalar": np.float32},
    }
    assert weights["scalar"].shape == () and weights["float"].shape == (2, 2)
    assert per_inject.weights_put(data, weights, all=True, strict=True) == data

    other = {name: ~values if values.dtype == bool else values * -2 for name, values in weights.items()}
    other["brain"] = np.array([1.0, -2.0, np.inf], np.float32)
    with pytest.warns(per_inject.PerInjectWarning, match="'brain' are NaN or infinite"):
        changed = per_inject.weights_put(data, other, all=True)
    onnx.checker.check_model(onnx.load_from_string(changed))
    for name, values in per_inject.weights_get(changed, all=True).items():
        np.testing.assert_array_equal(values, other[name])
    with pytest.raises(per_inject.RefusedError, match="not rounded"):
        per_inject.weights_put(data, {"brain": np.array([1.0, 0.1, 0.0], np.float32)}, all=True)


def test_a_trainers_weights_go_into_the_model_that_it_gives():
    pytest.importorskip("onnxruntime")
    generator = np.random.default_rng(0)
    x = generator.standard_normal((64, *np.load(MODELS / "mlp_relu.inputs.npz")["x"].shape[1:])).astype(np.float32)
    trainer = per_inject.Trainer(MLP.read_bytes(), batch_size=32)
    trainer.fit({"x": x, "y": generator.integers(0, 10, 64)}, epochs=1)
    assert per_inject.weights_put(MLP.read_bytes(), trainer.weights) == trainer.model


def test_names_may_differ():
    weights = per_inject.weights_get(MLP)
    renamed = {f"module.{name}": values.T if values.ndim == 2 else values for name, values in weights.items()}
    rules = {"module.*.bias": "*.bias", "module.*.weight": "*.weight:T"}
    zero = per_inject.weights_put(MLP.read_bytes(), {name: values * 0 for name, values in weights.items()})
    assert per_inject.weights_put(zero, renamed, map=rules, strict=True) == MLP.read_bytes()


def test_refusals(tmp_path):
    data, weights = MLP.read_bytes(), per_inject.weights_get(MLP)
    name = "net.0.bias"
    for wrong, words in (
        ({}, "no array"),
        ({"nix": weights[name]}, "map"),
        ({name: weights[name].astype(np.float64)}, "double.*not rounded"),
        ({name: weights[name][:-1]}, "shape"),
    ):
        with pytest.raises(per_inject.RefusedError, match=words):
            per_inject.weights_put(data, wrong)
    with pytest.raises(per_inject.RefusedError, match="strict=True"):
        per_inject.weights_put(data, {name: weights[name]}, strict=True)
    with pytest.warns(per_inject.PerInjectWarning, match="'nix'") as caught:
        per_inject.weights_put(data, {**weights, "nix": weights[name]})
    assert caught[0].filename == __file__
    with pytest.raises(per_inject.UsageError, match="output=PATH"):
        per_inject.weights_put(MLP, weights)
    with pytest.raises(FileNotFoundError):
        per_inject.weights_put(data, tmp_path / "missing.npz")
    with pytest.raises(per_inject.RefusedError):
        per_inject.weights_get(data, wrt="nix")
    for call in (
        lambda: per_inject.weights_put(data, 3),
        lambda: per_inject.weights_put(data, {3: weights[name]}),
        lambda: per_inject.weights_put(data, {name: np.array([object()])}),
        lambda: per_inject.weights_get(3),
        lambda: per_inject.weights_get(data, all="yes"),
    ):
        with pytest.raises(TypeError):
            call()


def test_weights_in_a_data_file(tmp_path, monkeypatch):
    """Of a model in a file they are written beside the result; a model in memory has no place for them."""
    model = onnx.load(MLP)
    onnx.save_model(model, tmp_path / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=0)
    weights = {name: values + 1 for name, values in per_inject.weights_get(tmp_path / "model.onnx").items()}
    (tmp_path / "result").mkdir()
    result = per_inject.weights_put(tmp_path / "model.onnx", weights, output=tmp_path / "result" / "model.onnx")
    for name, values in per_inject.weights_get(result).items():
        np.testing.assert_array_equal(values, weights[name])
    # Nor does it look for them where the process happens to be.
    monkeypatch.chdir(tmp_path)
    data = (tmp_path / "model.onnx").read_bytes()
    for call in (lambda: per_inject.weights_put(data, weights), lambda: per_inject.weights_get(data)):
        with pytest.raises(per_inject.RefusedError, match="model.data.*from memory has no folder.*by its path"):
            call()
