"""`per-inject weights`: into a model and out of it, against onnx, NumPy, pickle and a checkpoint of ONNX Runtime training."""

import collections
import io
import json
import pickle
import subprocess
import sys
import types
import zipfile

import jsonschema
import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

import models
import ort
import training
from test_schemas import schema

TRAINED = {"weight", "bias", "scale", "shift", "embedding", "state"}


def weights(path):
    return training.weights(path)


def save_safetensors(path, arrays):
    """By the format's description: the length of a header, the header, the elements."""
    names = {v: k for k, v in training.TYPES.items()} | {np.uint8: "U8", np.bool_: "BOOL"}
    head, body = {}, b""
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).tobytes()
        head[name] = {"dtype": names[array.dtype.type], "shape": list(array.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def changed(arrays, seed=5):
    """Other elements of the same types and shapes, with every bit of their fractions used; finite, for infinities make a mask of a weight."""
    chance = np.random.default_rng(seed)
    return {name: chance.standard_normal(array.shape).astype(array.dtype) for name, array in arrays.items()}


def put(per_inject, model, source, out, *options):
    report = json.loads(per_inject("weights", "put", model, "--from", source, "-o", out, "--json", *options).stdout)
    schema("weights").validate(report)
    return report


def get(per_inject, model, out, *options):
    report = json.loads(per_inject("weights", "get", model, "-o", out, "--json", *options).stdout)
    schema("weights").validate(report)
    return report


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def refusal(per_inject, *arguments):
    run = per_inject("weights", *arguments, check=False)
    assert run.returncode == 1 and run.stdout == "" and run.stderr.count("\n") == 1, run
    return run.stderr


def npz(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive}


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_what_is_taken_is_what_onnx_reads_and_putting_it_back_changes_no_byte(per_inject, reference, tmp_path, name, kind):
    path, file, out = reference(name).path, tmp_path / f"weights.{kind}", tmp_path / "out.onnx"
    everything = weights(path)
    read = training.tensors if kind == "safetensors" else npz
    for options in ([], ["--all"]):
        report = get(per_inject, path, file, *options)
        taken = {entry["name"] for entry in report["taken"]}
        assert len(everything) == len(taken) + report["left"] + len(report["refused"])
        same(read(file), {name: everything[name] for name in taken})
        roles = {e["name"]: e["role"] for e in json.loads(per_inject("inspect", path, "--json").stdout)["initializers"]}
        assert options or taken == {name for name, role in roles.items() if role in TRAINED}
        report = put(per_inject, path, file, out, *options)
        assert not report["missing"] and not report["unknown"] and not any(m["changed"] for m in report["matched"])
        assert out.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
@pytest.mark.parametrize("name", ["mlp_relu.ts13", "bn_resnet8.ts17", "seq_lstm_lm.dyn", "gpt_gelu.dyn"])
def test_other_elements_arrive_bit_for_bit_and_nothing_else_changes(per_inject, reference, tmp_path, name, kind):
    path, file, out, back = reference(name).path, tmp_path / f"new.{kind}", tmp_path / "out.onnx", tmp_path / "back.npz"
    get(per_inject, path, back)
    new = changed(npz(back))
    np.savez(file, **new) if kind == "npz" else save_safetensors(file, new)
    report = put(per_inject, path, file, out, "--strict")
    assert {m["initializer"] for m in report["matched"] if m["changed"]} == new.keys()
    same({name: array for name, array in weights(out).items() if name in new}, new)
    same({k: v for k, v in weights(out).items() if k not in new}, {k: v for k, v in weights(path).items() if k not in new})
    assert len(out.read_bytes()) == len(path.read_bytes())
    # With the old weights it is the old file.
    again = tmp_path / "again.onnx"
    put(per_inject, out, back, again)
    assert again.read_bytes() == path.read_bytes()
    # In place, too.
    put(per_inject, out, path, out)
    assert out.read_bytes() == path.read_bytes()


def odd_model():
    """A weight in every field that elements can be in."""
    chance = np.random.default_rng(7)
    f32 = chance.standard_normal((4, 4)).astype(np.float32)
    kinds = {
        "raw": numpy_helper.from_array(f32, "raw"),
        "typed": helper.make_tensor("typed", TensorProto.FLOAT, [4, 4], f32.ravel()),
        "half": helper.make_tensor("half", TensorProto.FLOAT16, [4, 4], f32.astype(np.float16).ravel()),
        "brain": helper.make_tensor("brain", TensorProto.BFLOAT16, [4, 4], f32.ravel().astype(ml_dtypes.bfloat16)),
        "double": helper.make_tensor("double", TensorProto.DOUBLE, [4, 4], f32.astype(np.float64).ravel()),
        "int8": helper.make_tensor("int8", TensorProto.INT8, [5], [-128, -1, 0, 1, 127]),
        "int32": helper.make_tensor("int32", TensorProto.INT32, [3], [-(2**31), -7, 2**31 - 1]),
        "int64": helper.make_tensor("int64", TensorProto.INT64, [3], [-(2**63), -7, 2**63 - 1]),
        "uint64": helper.make_tensor("uint64", TensorProto.UINT64, [2], [2**64 - 1, 3]),
        "bool": helper.make_tensor("bool", TensorProto.BOOL, [3], [True, False, True]),
        "scalar": numpy_helper.from_array(np.float32(2), "scalar"),
        "empty": numpy_helper.from_array(np.zeros((0, 3), np.float32), "empty"),
        "text": helper.make_tensor("text", TensorProto.STRING, [1], [b"words"]),
    }
    kinds["typed"].doc_string = "kept"
    kinds["half"].doc_string = "kept, too"
    node = helper.make_node("MatMul", ["x", "raw"], ["y"])
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4])
    graph = helper.make_graph([node], "g", [info("x")], [info("y")], list(kinds.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_every_way_to_keep_elements_is_read_and_written(per_inject, tmp_path, kind):
    path, file, out = tmp_path / "odd.onnx", tmp_path / f"w.{kind}", tmp_path / "out.onnx"
    onnx.save(odd_model(), path)
    report = get(per_inject, path, file, "--all")
    assert report["refused"] == ['the initializer "text" is of string, which cannot be run']
    expected = {name: array for name, array in weights(path).items() if name != "text"}
    if kind == "npz":
        found = npz(file)
        # NumPy has no bfloat16: its bits.
        found["brain"] = found["brain"].view(ml_dtypes.bfloat16)
        same(found, expected)
    put(per_inject, path, file, out, "--all")
    assert out.read_bytes() == path.read_bytes()
    new = {name: 1 - array if array.dtype != bool else ~array for name, array in expected.items()}
    if kind == "npz":
        np.savez(file, **{name: array.view("V2") if name == "brain" else array for name, array in new.items()})
    else:
        new.pop("int8"), new.pop("uint64"), new.pop("empty")
        save_safetensors(file, new)
    put(per_inject, path, file, out, "--all")
    same({name: array for name, array in weights(out).items() if name in new}, new)
    before, after = onnx.load(path), onnx.load(out)
    for old, now in zip(before.graph.initializer, after.graph.initializer):
        fields = lambda tensor: [field.name for field, _ in tensor.ListFields()]
        assert fields(old) == fields(now) and old.doc_string == now.doc_string and old.dims == now.dims
    back = tmp_path / "back.npz"
    get(per_inject, path, back, "--all")
    put(per_inject, out, back, out, "--all")
    assert out.read_bytes() == path.read_bytes()


def test_only_initializers_that_are_named_are_taken(per_inject, reference, tmp_path):
    path, file = reference("mlp_relu.ts17").path, tmp_path / "w.npz"
    name = reference("mlp_relu.ts17").trainable[0]
    get(per_inject, path, file, "--wrt", name)
    assert npz(file).keys() == {name}
    report = put(per_inject, path, file, tmp_path / "out.onnx")
    assert [m["initializer"] for m in report["matched"]] == [name] and report["missing"]


def external(tmp_path, reference, where="weights.data"):
    folder = tmp_path / "model"
    folder.mkdir()
    model = onnx.load(reference("mlp_relu.ts17").path)
    external_data_helper.convert_model_to_external_data(model, location=where, size_threshold=100)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def test_external_elements_are_written_into_a_copy_of_their_file(per_inject, reference, tmp_path):
    path = external(tmp_path, reference)
    data, file, out = path.parent / "weights.data", tmp_path / "w.npz", tmp_path / "new" / "m.onnx"
    out.parent.mkdir()
    before = path.read_bytes(), data.read_bytes()
    get(per_inject, path, file)
    old = npz(file)
    same(old, {name: array for name, array in weights(path).items() if name in old})
    put(per_inject, path, file, out)
    assert (out.read_bytes(), (out.parent / "weights.data").read_bytes()) == before
    np.savez(file, **changed(old))
    put(per_inject, path, file, out)
    same({name: array for name, array in weights(out).items() if name in old}, npz(file))
    assert len((out.parent / "weights.data").read_bytes()) == len(before[1])
    # In the same folder the data file of the first model would change with it.
    message = refusal(per_inject, "put", path, "--from", file, "-o", path.parent / "other.onnx")
    assert "weights.data" in message and "another folder" in message
    assert "standard output" in refusal(per_inject, "put", path, "--from", file, "-o", "-")
    assert (path.read_bytes(), data.read_bytes()) == before and not (path.parent / "other.onnx").exists()
    data.unlink()
    assert "is not there" in refusal(per_inject, "get", path, "-o", file)


def test_another_onnx_file_is_a_source(per_inject, reference, tmp_path):
    path = reference("bn_resnet8.ts17").path
    other = onnx.load(path)
    for tensor in other.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(value + 1, tensor.name))
    onnx.save(other, tmp_path / "other.onnx")
    report = put(per_inject, path, tmp_path / "other.onnx", tmp_path / "out.onnx")
    assert not report["missing"] and not report["unknown"]
    moved = {m["initializer"] for m in report["matched"]}
    theirs, ours = weights(tmp_path / "other.onnx"), weights(path)
    same(weights(tmp_path / "out.onnx"), {name: (theirs if name in moved else ours)[name] for name in ours})


def test_a_checkpoint_of_onnx_runtime_training_goes_into_the_model_it_was_trained_from(per_inject, inject, reference, tmp_path):
    """After ten steps of AdamW: bit for bit what the training API itself says of its parameters."""
    model = reference("mlp_relu.ts17")
    start = tmp_path / "start.onnx"
    start.write_bytes(inject(model.path, "--for", "ort-training", "--layers", "relu", "--coef", "0.1", "--estimator", "exact").data)
    np.savez(tmp_path / "feeds.npz", **model.feeds)
    (tmp_path / "request.json").write_text(json.dumps({"parameters": model.trainable}))
    ort._run("ort_checkpoint.py", start, tmp_path)
    expected = npz(tmp_path / "parameters.npz")
    assert expected.keys() == set(model.trainable)
    # Into the model as it was before the regulariser, and into the one with it.
    for target in (model.path, start):
        out = tmp_path / "out.onnx"
        report = put(per_inject, target, tmp_path / "checkpoint", out, "--strict")
        assert report["source"] == "a training checkpoint of ONNX Runtime" and all(m["changed"] for m in report["matched"])
        same({name: array for name, array in weights(out).items() if name in expected}, expected)
    # Its initial state is the model's own.
    put(per_inject, model.path, tmp_path / "made_checkpoint", out)
    assert out.read_bytes() == model.path.read_bytes()
    assert "nominal" in refusal(per_inject, "put", model.path, "--from", tmp_path / "nominal_checkpoint", "-o", out)
    whole = (tmp_path / "checkpoint").read_bytes()
    for length in [*range(8, 400), *range(400, len(whole), 997)]:
        (tmp_path / "cut").write_bytes(whole[:length])
        assert "cut off or broken" in refusal(per_inject, "put", model.path, "--from", tmp_path / "cut", "-o", out)


def test_elements_of_a_large_checkpoint_stand_in_a_second_file(per_inject, tmp_path):
    """Above 1.8 GB ONNX Runtime writes `<checkpoint>.data`. The small file is the one it wrote for four parameters of 500 MB; the second
    file is made here, sparse."""
    checkpoint = models.ROOT / "tests" / "data" / "large_checkpoint"
    (tmp_path / "ckpt").write_bytes(checkpoint.read_bytes())
    expected = np.arange(16, dtype=np.float32)
    with open(tmp_path / "ckpt.data", "wb") as data:
        data.truncate(2_000_000_000)
        data.seek(500_000_000)
        data.write(expected.tobytes())
    tensor = TensorProto(name="w1", dims=[125_000_000], data_type=1, raw_data=b"")
    model = tmp_path / "m.onnx"
    external_data_helper.set_external_data(tensor, "w.data", 0, 500_000_000)
    with open(tmp_path / "w.data", "wb") as data:
        data.truncate(500_000_000)
    node = helper.make_node("Mul", ["x", "w1"], ["y"])
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [125_000_000])
    model.write_bytes(helper.make_model(helper.make_graph([node], "g", [info("x")], [info("y")], [tensor])).SerializeToString())
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    put(per_inject, model, tmp_path / "ckpt", out, "--wrt", "w1")
    with open(out.parent / "w.data", "rb") as data:
        assert np.frombuffer(data.read(64), np.float32).tolist() == expected.tolist()
    (tmp_path / "ckpt.data").unlink()
    assert "second file" in refusal(per_inject, "put", model, "--from", tmp_path / "ckpt", "-o", out, "--wrt", "w1")


# What torch.save writes, by Python's own pickle: classes of these names, and storages by persistent id.
torch = types.ModuleType("torch")
torch._utils = types.ModuleType("torch._utils")


class Storage:
    def __init__(self, kind, key, array):
        self.kind, self.key, self.array = kind, key, array


def storage_class(name):
    kind = type(name, (), {"__module__": "torch"})
    setattr(torch, name, kind)
    return kind


KINDS = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage", "bool": "BoolStorage", "uint8": "ByteStorage"}
CLASSES = {dtype: storage_class(name) for dtype, name in KINDS.items()}


def _rebuild_tensor_v2(*arguments):
    raise AssertionError("nothing is run")


def _rebuild_parameter(*arguments):
    raise AssertionError("nothing is run")


for function in (_rebuild_tensor_v2, _rebuild_parameter):
    function.__module__ = "torch._utils"
    setattr(torch._utils, function.__name__, function)


class Tensor:
    def __init__(self, base, view=None, parameter=False):
        self.base, self.view, self.parameter = base, base if view is None else view, parameter


class Pickler(pickle.Pickler):
    def __init__(self, file, protocol):
        super().__init__(file, protocol)
        self.storages = []

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.storages.append(value)
        return ("storage", CLASSES[value.array.dtype.name], value.key, "cpu", value.array.size)

    def reducer_override(self, value):
        if not isinstance(value, Tensor):
            return NotImplemented
        key = str(len(self.storages))
        base, view = value.base, value.view
        offset = (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // base.itemsize
        strides = tuple(s // base.itemsize for s in view.strides)
        made = (_rebuild_tensor_v2, (Storage("cpu", key, base), offset, view.shape, strides, False, collections.OrderedDict()))
        return (_rebuild_parameter, (Tensor(base, view), True, collections.OrderedDict())) if value.parameter else made


def save_torch(path, value, protocol=2, folder="archive"):
    sys.modules.update({"torch": torch, "torch._utils": torch._utils})
    try:
        file = io.BytesIO()
        pickler = Pickler(file, protocol)
        pickler.dump(value)
    finally:
        del sys.modules["torch"], sys.modules["torch._utils"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", file.getvalue())
        archive.writestr(f"{folder}/byteorder", "little")
        for storage in pickler.storages:
            archive.writestr(f"{folder}/data/{storage.key}", storage.array.tobytes())
        archive.writestr(f"{folder}/version", "3\n")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_state_dict_of_pytorch_is_read_as_data(per_inject, reference, tmp_path, protocol):
    path, file, out = reference("mlp_relu.ts17").path, tmp_path / "state.pt", tmp_path / "out.onnx"
    get(per_inject, path, tmp_path / "w.npz")
    new = changed(npz(tmp_path / "w.npz"))
    state = collections.OrderedDict((f"module.{name}", Tensor(array, parameter=i % 2 == 0)) for i, (name, array) in enumerate(new.items()))
    state["module.num_batches_tracked"] = Tensor(np.array(7))
    save_torch(file, {"epoch": 3, "loss": 0.5, "done": True, "state": state, "betas": [0.9, (0.999, None)]}, protocol, "any name")
    report = put(per_inject, path, file, out, "--map", "state.module.*=*")
    assert report["source"] == "a PyTorch state dict" and not report["missing"]
    assert [entry["name"] for entry in report["unknown"]] == ["state.module.num_batches_tracked"]
    same({name: array for name, array in weights(out).items() if name in new}, new)


def test_views_of_a_storage_are_read_as_pytorch_lays_them_out(per_inject, tmp_path):
    base = np.arange(48, dtype=np.float32)
    views = {"whole": base, "part": base[5:17].reshape(3, 4), "turned": base[8:20].reshape(3, 4).T, "steps": base[1:40:3], "one": base[3:4].reshape(1, 1)}
    tensors = [numpy_helper.from_array(np.zeros_like(v), k) for k, v in views.items()]
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [48])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "whole"], ["y"])], "g", [info("x")], [info("y")], tensors)
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    save_torch(tmp_path / "state.pth", {name: Tensor(base, view) for name, view in views.items()})
    put(per_inject, tmp_path / "m.onnx", tmp_path / "state.pth", tmp_path / "out.onnx", "--all")
    same(weights(tmp_path / "out.onnx"), {name: np.ascontiguousarray(view) for name, view in views.items()})


def test_a_pickle_that_runs_something_is_refused_with_what_to_do(per_inject, reference, tmp_path):
    path, file, proof = reference("mlp_relu.ts17").path, tmp_path / "evil.pt", tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (__import__("os").system, (f"touch {proof}",))

    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"w": Evil()}, 2))
    message = refusal(per_inject, "put", path, "--from", file, "-o", tmp_path / "out.onnx")
    assert "calls posix.system, which is not run" in message and "weights_only=True" in message and not proof.exists()
    # Before PyTorch 1.6 a file was a row of pickles.
    file.write_bytes(b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})))
    message = refusal(per_inject, "put", path, "--from", file, "-o", tmp_path / "out.onnx")
    assert "before 1.6" in message and "save_file" in message
    # Circles, depths and cuts end in a sentence.
    circle = {}
    circle["again"] = circle
    good = pickle.dumps({"a": {"b": 1}}, 2)
    deep = b"\x80\x02)" + b"\x85" * 2_000_000 + b"."
    for text in [pickle.dumps(circle, 2), deep, b"", b"\x80", b"}q\x00h\x01.", *(good[:n] for n in range(len(good)))]:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", text)
        assert refusal(per_inject, "put", path, "--from", file, "-o", tmp_path / "out.onnx")


def test_a_transposed_matrix_is_put_in_only_when_it_is_asked_for(per_inject, tmp_path):
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = numpy_helper.from_array(np.zeros((4, 3), np.float32), "val_40")
    info = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "val_40"], ["y"])], "g", [info("x", [2, 4])], [info("y", [2, 3])], [tensor])
    model, file, out = tmp_path / "m.onnx", tmp_path / "w.npz", tmp_path / "out.onnx"
    onnx.save(helper.make_model(graph), model)
    np.savez(file, **{"fc.weight": w})
    message = refusal(per_inject, "put", model, "--from", file, "-o", out, "--map", "fc.weight=val_40")
    assert "it would fit transposed: --map 'fc.weight=val_40:T'" in message
    report = put(per_inject, model, file, out, "--map", "fc.weight=val_40:T")
    assert report["matched"][0]["transposed"]
    same(weights(out), {"val_40": np.ascontiguousarray(w.T)})
    # Nor is a matrix turned by itself where both ways fit.
    np.savez(file, **{"val_40": np.arange(16, dtype=np.float32).reshape(4, 4)})
    assert "its shape is another one" in refusal(per_inject, "put", model, "--from", file, "-o", out)


def test_arrays_in_other_orders_arrive_in_c_order(per_inject, reference, tmp_path):
    path, file, out = reference("mlp_relu.ts17").path, tmp_path / "w.npz", tmp_path / "out.onnx"
    get(per_inject, path, file)
    new = changed(npz(file))
    np.savez_compressed(file, **{name: np.asfortranarray(array) if i % 2 else array.astype(">f4") for i, (name, array) in enumerate(new.items())})
    put(per_inject, path, file, out)
    assert {k: v.tobytes() for k, v in weights(out).items() if k in new} == {k: v.tobytes() for k, v in new.items()}
