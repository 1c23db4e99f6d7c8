"""`diff --run`: what it says of two models is what Python's onnxruntime and NumPy say, and every refusal says what to do."""

import json
import os
import pathlib
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from command import per_inject
from renaming import renamed
from taps import in_parallel
from test_schemas import schema

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"


def run(a, b, *options, check=True):
    """The part `run` of the difference, from a process without any ONNX Runtime but the one of `--ort`."""
    done = command("diff", a, b, "--run", "--format", "json", "--ort", VENV, *options)
    if not check:
        return done
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    schema("diff").validate(found)
    return found["run"]


def command(*args, env={}, stdin=None):
    kept = {k: v for k, v in os.environ.items() if k not in ["VIRTUAL_ENV", "CONDA_PREFIX", "ORT_DYLIB_PATH", "LD_LIBRARY_PATH"]}
    arguments = [os.environ["PER_INJECT"], *map(str, args)]
    return subprocess.run(arguments, input=stdin or b"", env=kept | env, capture_output=True)


def said(done):
    """The sentence on stderr of a command that was refused."""
    assert done.returncode == 1 and done.stdout == b"", done
    text = done.stderr.decode()
    assert "panicked" not in text and text.count("\n") == 1, text
    return text


def save(path, model):
    onnx.save_model(model, path)
    return path


def parsed(text):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')


def perturbed(model, names=None, factor=1e-3):
    """A copy with every float initializer, or those named, a little off."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    noise = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and (names is None or tensor.name in names):
            value = (value * (1 + factor * noise.standard_normal(value.shape))).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


def session(model, level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    options.use_deterministic_compute = True
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ordered(x):
    """Integers in the order of the floats, both zeros at 0."""
    bits = x.view({2: np.int16, 4: np.int32, 8: np.int64}[x.dtype.itemsize]).astype(object)
    low = -(1 << (8 * x.dtype.itemsize - 1))
    return np.where(bits < 0, low - bits, bits)


def distances(a, b):
    """What the tool should say of two float arrays."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    special = (np.isnan(x) != np.isnan(y)) | (np.isinf(x) | np.isinf(y)) & (x != y) & ~(np.isnan(x) & np.isnan(y))
    equal = (x == y) | (np.isnan(x) & np.isnan(y))
    plain = ~special & ~equal
    delta, scale = np.abs(x - y)[plain], np.maximum(np.abs(x), np.abs(y))[plain]
    return {
        "differing": int((~equal).sum()),
        "special": int(special.sum()),
        "max_abs": float(delta.max(initial=0)),
        "max_rel": float((delta / scale).max(initial=0)),
        "max_ulp": int(max(np.abs(ordered(a.ravel()) - ordered(b.ravel()))[plain.ravel()], default=0)),
    }


def exposed(model):
    """All values that nodes make, as outputs, in execution order."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    names = [name for node in model.graph.node for name in node.output if name]
    there = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    return model, names


def save_feeds(path, feeds):
    np.savez(path, **feeds)
    return path


@pytest.mark.parametrize("name", models.NAMES)
def test_the_numbers_are_those_of_onnxruntime_and_numpy(name, tmp_path):
    """Every output bit for bit: the same library on one thread gives the same, so that nothing is tolerated."""
    found = models.reference(name)
    a, b = found.model, perturbed(found.model)
    inputs = models.MODELS / f"{found.family}.inputs.npz"
    result = run(found.path, save(tmp_path / "b.onnx", b), "--inputs", inputs, "--threads", 1, "--bisect")
    assert result["seed"] is None and not result["agree"] and result["engine_version"] == onnxruntime.__version__
    assert [i["origin"] for i in result["inputs"]] == ["given", "given"]
    outputs = [o.name for o in a.graph.output]
    assert [o["a"] for o in result["outputs"]] == [o["b"] for o in result["outputs"]] == outputs
    for output, x, y in zip(result["outputs"], *(session(m).run(outputs, found.feeds) for m in (a, b))):
        expected = distances(x, y)
        assert expected == {key: output["outcome"][key] for key in expected}, output["a"]
        assert output["outcome"]["shape"] == list(x.shape)
        worst = output["outcome"]["worst"]
        assert np.float32(worst["a"]) == x[tuple(worst["index"])] and np.float32(worst["b"]) == y[tuple(worst["index"])]
    disabled = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (inner_a, names), (inner_b, _) = exposed(a), exposed(b)
    values = [session(m, disabled).run(names, found.feeds) for m in (inner_a, inner_b)]
    differing = [name for name, x, y in zip(names, *values) if not np.array_equal(x, y, equal_nan=x.dtype.kind == "f")]
    assert result["first"]["found"]["a"] == differing[0]
    assert result["first"]["compared"] == names.index(differing[0]) + 1


@pytest.mark.parametrize("name", ["cnn11_elu.dyn", "gpt_gelu.ts17", "seq_lstm_lm.dyn", "bn_resnet8.ts17"])
def test_a_renamed_model_computes_the_same(name, tmp_path):
    found = models.reference(name)
    other = save(tmp_path / "b.onnx", renamed(found.model))
    inputs = models.MODELS / f"{found.family}.inputs.npz"
    result = run(found.path, other, "--inputs", inputs, "--bisect")
    assert result["agree"] and len(result["outputs"]) == 2, result
    assert all(i["a"] != i["b"] for i in result["inputs"]) and all(o["a"] != o["b"] for o in result["outputs"])
    assert result["first"]["found"] is None and result["first"]["alone"] == 0
    assert result["first"]["compared"] == sum(len([o for o in n.output if o]) for n in found.model.graph.node)


def test_an_injected_model_differs_in_its_loss_alone(tmp_path):
    path, injected = models.MODELS / "cnn11_elu.ts17.onnx", tmp_path / "b.onnx"
    per_inject(path, "--layers", "elu", "--coef", "1e-3", "--estimator", "exact", "--outputs", "task", "-o", injected)
    result = run(path, injected, "--bisect", "--seed", 7)
    agrees = {o["a"]: o["outcome"]["differing"] == 0 for o in result["outputs"]}
    assert agrees == {"loss": False, "logits": True} and result["seed"] == 7
    assert result["only_b"] and result["first"]["found"] is None and result["first"]["compared"] == 29
    shown = command("diff", path, injected, "--run", "--bisect", "--ort", VENV).stdout.decode()
    assert "No value that both have differs: what differs comes from what only B has" in shown
    assert max(map(len, shown.splitlines())) <= 100
    sampled = tmp_path / "c.onnx"
    per_inject(path, "--layers", "elu", "--coef", "1e-3", "-o", sampled)
    assert any("without a seed (RandomNormal" in note for note in run(path, sampled)["notes"])


def test_a_page_says_what_the_run_showed(tmp_path):
    model = models.reference("mlp_relu.ts17")
    other, page = save(tmp_path / "b.onnx", perturbed(model.model)), tmp_path / "page.html"
    for b, verdict in [(model.path, "All outputs that both have are equal."), (other, "Outputs differ.")]:
        done = command("diff", model.path, b, "--run", "--bisect", "--format", "html", "-o", page, "--ort", VENV)
        assert done.returncode == 0, done.stderr
        text = page.read_text()
        assert verdict in text and "output logits: " in text
        assert ("The first value that differs is " in text) == (b == other)


def test_the_exit_code_says_whether_models_or_outputs_differ(tmp_path):
    a = save(tmp_path / "a.onnx", parsed("(float[2] x) => (float[2] y) { y = Relu(x) }"))
    b = save(tmp_path / "b.onnx", parsed("(float[2] x) => (float[2] y) { y = Abs(x) }"))
    code = lambda *args: command("diff", *args, "--run", "--exit-code", "--ort", VENV).returncode
    assert [code(a, a), code(a, b), code(a, b, "--tolerance", 100), code(a, a, "--device", "cuda")] == [0, 1, 1, 2]
    assert run(a, b, "--tolerance", 100)["agree"] and not run(a, b)["agree"]


def test_external_data_is_read_where_it_is_and_nothing_is_left_there(tmp_path):
    a, b = (tmp_path / side for side in "ab")
    for folder, model in [(a, models.reference("mlp_relu.ts17").model), (b, perturbed(models.reference("mlp_relu.ts17").model, ["net.2.bias"]))]:
        (folder / "sub").mkdir(parents=True)
        model = onnx.ModelProto.FromString(model.SerializeToString())
        onnx.save_model(model, folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    result = run(a / "m.onnx", b / "m.onnx", "--bisect")
    assert result["first"]["found"]["made_by"] == '"/net/net.2/Gemm" (Gemm)' and not result["agree"]
    for folder in (a, b):
        assert sorted(p.name for p in folder.iterdir()) == ["m.onnx", "sub", "w.bin"]
    done = command("diff", "-", b / "m.onnx", "--run", "--ort", VENV, stdin=(a / "m.onnx").read_bytes())
    assert "from standard input keeps tensors in other files" in said(done)


def test_a_model_from_standard_input_runs():
    path = models.MODELS / "mlp_relu.ts17.onnx"
    done = command("diff", "-", path, "--run", "--bisect", "--ort", VENV, stdin=path.read_bytes())
    assert done.returncode == 0 and b"All outputs that both have are equal." in done.stdout, done


TYPES = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.INT8: np.int8,
    TensorProto.INT16: np.int16,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
    TensorProto.UINT8: np.uint8,
    TensorProto.UINT16: np.uint16,
    TensorProto.UINT32: np.uint32,
    TensorProto.UINT64: np.uint64,
    TensorProto.BOOL: np.bool_,
}


@pytest.mark.parametrize("kind", TYPES)
def test_every_element_type_goes_in_and_comes_out(kind, tmp_path):
    """B adds 1, or turns a bool around, by way of a Cast where ONNX Runtime has no kernel of the type."""
    declare = lambda name: helper.make_tensor_value_info(name, kind, [2, 3])
    identity = helper.make_node("Identity", ["x"], ["y"])
    wide = TensorProto.DOUBLE if kind in (TensorProto.DOUBLE, TensorProto.INT64, TensorProto.UINT64) else TensorProto.FLOAT
    one = helper.make_tensor("one", wide, [], [1])
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=wide),
        helper.make_node("Sub", ["one", "wide"] if kind == TensorProto.BOOL else ["wide", "one"], ["less"]),
        helper.make_node("Cast", ["less"], ["y"], to=kind),
    ]
    of = lambda nodes, values: helper.make_model(
        helper.make_graph(nodes, "g", [declare("x")], [declare("y")], values), ir_version=8, opset_imports=[helper.make_opsetid("", 17)]
    )
    x = np.array([[1, 0, 1], [1, 1, 1]], TYPES[kind]) if kind == TensorProto.BOOL else np.array([[7, 2, 3], [4, 5, 6]], TYPES[kind])
    a, b = save(tmp_path / "a.onnx", of([identity], [])), save(tmp_path / "b.onnx", of(nodes, [one]))
    np.savez_compressed(tmp_path / "x.npz", x=x)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    for inputs in ("x.npz", "x.npy", "."):
        outcome = run(a, b, "--inputs", tmp_path / inputs)["outputs"][0]["outcome"]
        assert outcome["elem"] == TensorProto.DataType.Name(kind).lower()
        assert (outcome["differing"], outcome["max_abs"]) == (6, 1)
        if outcome["max_ulp"] is not None:
            expected = distances(x, (x.astype(np.float64) - 1).astype(x.dtype))
            assert expected == {key: outcome[key] for key in expected}
    seeds = [run(a, b, "--seed", seed)["outputs"][0]["outcome"]["worst"] for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1]


def test_nan_and_infinity_are_counted(tmp_path):
    a = save(tmp_path / "a.onnx", parsed("(float[6] x) => (float[6] y) { y = Sqrt(x) }"))
    b = save(tmp_path / "b.onnx", parsed("(float[6] x) => (float[6] y) { y = Reciprocal(x) }"))
    x = np.array([-1, 0, 4, np.nan, np.inf, 1], np.float32)
    outcome = run(a, b, "--inputs", save_feeds(tmp_path / "x.npz", {"x": x}))["outputs"][0]["outcome"]
    with np.errstate(all="ignore"):
        expected = distances(np.sqrt(x), 1 / x)
    assert expected == {key: outcome[key] for key in expected}
    assert (outcome["nan_in_both"], outcome["special"], outcome["beyond"]) == (1, 3, 4)
    assert outcome["worst"] == {"index": [0], "a": "NaN", "b": "-1.0"}


def test_shapes_types_and_what_is_no_tensor_are_told(tmp_path):
    a = save(tmp_path / "a.onnx", parsed("(float[2,3] x) => (float[2,3] y, int64[2] s) { y = Relu(x)  s = Shape(x) }"))
    b = save(tmp_path / "b.onnx", parsed("(float[2,3] x) => (float[3,2] y, double[2] s) { y = Transpose(x)  t = Shape(x)  s = Cast<to = 11>(t) }"))
    y, s = (output["outcome"] for output in run(a, b)["outputs"])
    assert y == {"kind": "shapes", "a": [2, 3], "b": [3, 2]} and s == {"kind": "types", "a": "int64", "b": "double"}
    sequence = parsed("(float[2,3] x) => (seq(float[2,3]) q, float[2,3] y) { q = SequenceConstruct(x)  y = Relu(x) }")
    words = parsed("(float[2,3] x) => (string[2,3] w) { w = Cast<to = 8>(x) }")
    for model, why in [(sequence, "q is no tensor"), (words, "w is a tensor of string")]:
        path = save(tmp_path / "c.onnx", model)
        result = run(path, path, "--bisect")
        assert result["outputs"][0]["outcome"] == {"kind": "skipped", "why": why} and not result["agree"]
        # What is known not to be a tensor is no pair of values at all.
        assert result["first"]["found"] is None and result["first"]["skipped"] == (1 if model is words else 0)


@pytest.mark.parametrize(
    "feeds, words",
    [
        ({"x": np.zeros((16, 64))}, '"x" of {a} is float[16, 64], and the value given for it is double[16, 64]; convert it, in NumPy with .astype(numpy.float32)'),
        ({"x": np.zeros((16, 60), np.float32)}, "axis 1 must have 64 elements"),
        ({"x": np.zeros((15, 64), np.float32)}, "axis 0 must have 16 elements"),
        ({"x": np.zeros(64, np.float32)}, "its rank must be 2"),
        ({"y": np.zeros(16, np.int32)}, '"y" of {a} is int64[16], and the value given for it is int32[16]'),
        ({"y": np.full(16, 10)}, "running {a} failed"),
        ({"x": np.array(["a"])}, "x.npz: x: it holds strings"),
        ({"x": np.array([None])}, "x.npz: x: it holds Python objects"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(feeds, words, tmp_path):
    a = models.MODELS / "mlp_relu.dyn.onnx"
    sentence = said(run(a, a, "--inputs", save_feeds(tmp_path / "x.npz", feeds), check=False))
    assert words.format(a=a) in sentence


def test_arrays_by_other_names_are_listed_and_a_nameless_one_needs_a_single_input(tmp_path):
    a = models.MODELS / "mlp_relu.dyn.onnx"
    inputs = save_feeds(tmp_path / "x.npz", {"X": np.zeros((16, 64), np.float32), "y": np.zeros(16, np.int64)})
    result = run(a, a, "--inputs", inputs)
    assert result["unused"] == ["X"] and [i["origin"] for i in result["inputs"]] == ["random", "given"]
    shown = command("diff", a, a, "--run", "--ort", VENV, "--inputs", inputs).stdout.decode()
    assert "neither model has an input X, which is given" in shown
    np.save(tmp_path / "x.npy", np.zeros((16, 64), np.float32))
    sentence = said(run(a, a, "--inputs", tmp_path / "x.npy", check=False))
    assert "one array without a name" in sentence and "x, y" in sentence


def test_options_that_make_no_sense_are_refused():
    a = models.MODELS / "mlp_relu.ts17.onnx"
    for options, words in [
        (["--bisect"], b"--run"),
        (["--run", "--dim", "N"], b"write it as NAME=N"),
        (["--run", "--dim", "N=x"], b"must be a whole number"),
        (["--run", "--tolerance", "-1"], b"must be a number from 0 on"),
        (["--run", "--tolerance", "nan"], b"must be a number from 0 on"),
        (["--run", "--device", "tpu"], b"it is cpu, cuda or cuda:N"),
        (["--run", "--threads", "0"], b"--threads"),
        (["--run", "--format", "dot"], b"not in a picture"),
    ]:
        done = command("diff", a, a, *options)
        assert done.returncode == 2 and words in done.stderr, (options, done)


def test_a_broken_graph_is_named_and_a_new_file_has_nothing_to_run(tmp_path):
    a = models.MODELS / "mlp_relu.ts17.onnx"
    model = parsed("(float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.node[0].input[0] = "nowhere"
    path = save(tmp_path / "odd.onnx", model)
    assert f'{path}: node 0 (Relu) reads tensor "nowhere"' in said(command("diff", a, path, "--run", "--ort", VENV))
    done = command("diff", "/dev/null", a, "--run", "--bisect", "--ort", VENV)
    assert done.returncode == 0 and b"No output is in both." in done.stdout, done


def test_models_of_all_operators_agree_with_themselves_or_are_refused_in_a_sentence(corpus):
    """Every twentieth model of both onnx wheels. Many take no random values, and some ONNX Runtime has no kernels for."""

    def work(path):
        done = command("diff", path, path, "--run", "--bisect", "--format", "json", "--threads", 1, "--ort", VENV)
        if done.returncode == 1:
            return said(done)
        assert done.returncode == 0, (path, done.stderr)
        result = json.loads(done.stdout)["run"]
        kinds = {o["outcome"]["kind"] for o in result["outputs"]}
        assert result["agree"] or "skipped" in kinds, (path, result)
        assert result["first"]["found"] is None, (path, result)
        return None

    refused = [sentence for sentence in in_parallel(work, corpus()[::20]) if sentence]
    # A fifth of them: old operators without kernels, types that cannot be run, integers that must fit together.
    assert len(refused) < 0.3 * len(corpus()[::20]), "".join(refused)


# ---------------------------------------------------------------- which ONNX Runtime

MODEL = models.MODELS / "mlp_relu.ts17.onnx"


def plain(*options, **env):
    return command("diff", MODEL, MODEL, "--run", *options, env=env)


@pytest.fixture
def empty_path(tmp_path):
    """A PATH without any Python."""
    (tmp_path / "bin").mkdir()
    return str(tmp_path / "bin")


def test_the_runtime_is_found_where_the_readme_says(tmp_path, empty_path):
    library = next((VENV / "lib").glob("python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*"))
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    python = tmp_path / "python"
    python.mkdir()
    (python / "python3").symlink_to(sys.executable)
    for env, why in [
        ({"ORT_DYLIB_PATH": str(library)}, "(ORT_DYLIB_PATH)"),
        ({"ORT_DYLIB_PATH": "libonnxruntime.so.1", "LD_LIBRARY_PATH": str(tmp_path)}, "libonnxruntime.so.1 (ORT_DYLIB_PATH)"),
        ({"VIRTUAL_ENV": str(VENV)}, "(VIRTUAL_ENV)"),
        ({"CONDA_PREFIX": str(VENV), "VIRTUAL_ENV": ""}, "(CONDA_PREFIX)"),
        ({"PATH": str(VENV / "bin")}, "(of python3)"),
        ({"LD_LIBRARY_PATH": str(tmp_path)}, "libonnxruntime.so.1 (of the system)"),
    ]:
        done = plain(**{"PATH": empty_path} | env)
        assert done.returncode == 0, done.stderr
        assert why in " ".join(done.stdout.decode().split()), done.stdout


def test_none_at_all_is_one_sentence_with_what_to_do(empty_path):
    sentence = said(plain(PATH=empty_path))
    for words in ["no ONNX Runtime was found", "python3: it is not on the PATH", "libonnxruntime.so", "pip install onnxruntime", "--ort PATH"]:
        assert words in sentence
    training = said(plain(PATH=empty_path, VIRTUAL_ENV=str(ROOT / ".venv-ort-training")))
    assert "holds only the module that Python loads" in training


OLD = """
static const void *api(unsigned n) { return 0; }
static const char *version(void) { return "1.16.3"; }
static const struct { const void *(*a)(unsigned); const char *(*v)(void); } base = { api, version };
const void *OrtGetApiBase(void) { return &base; }
"""


def test_a_named_one_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "old.c").write_text(OLD)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "old.so", tmp_path / "old.c"], check=True)
    (tmp_path / "text.so").write_text("hello")
    (tmp_path / "folder").mkdir()
    good = {"VIRTUAL_ENV": str(VENV)}
    for name, words in [
        ("old.so", "it is version 1.16.3, and the oldest that can be used is 1.17"),
        ("text.so", "it is no shared library"),
        ("folder", "it holds no ONNX Runtime"),
        ("nowhere", "there is no such file or folder"),
    ]:
        path = tmp_path / name
        assert f"{path}, which --ort names, cannot be used as ONNX Runtime: {words}" in said(plain("--ort", path, **good))
        assert f"{path}, which ORT_DYLIB_PATH names, cannot be used as ONNX Runtime: {words}" in said(plain(ORT_DYLIB_PATH=str(path), **good))
    module = next((VENV / "lib").glob("python3*/site-packages/onnxruntime/capi/onnxruntime_pybind11_state*"))
    assert "the module that Python loads" in said(plain("--ort", module))
    assert "the module that Python loads" in said(plain("--ort", ROOT / ".venv-ort-training"))


def test_cuda_without_a_build_for_it_says_which_wheel_has_it():
    sentence = said(plain("--ort", VENV, "--device", "cuda:1"))
    assert "the device cuda:1 cannot be had" in sentence and "pip install onnxruntime-gpu" in sentence


def test_a_model_that_the_runtime_refuses_is_named_with_its_words(tmp_path):
    model = parsed("(float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.node[0].op_type = "NoSuchOperator"
    path = save(tmp_path / "odd.onnx", model)
    sentence = said(command("diff", path, path, "--run", "--ort", VENV))
    assert f"ONNX Runtime {onnxruntime.__version__} refuses {path}: " in sentence and "NoSuchOperator" in sentence


def test_arrays_of_which_no_input_takes_any_are_refused(tmp_path):
    """What was compared would be made up."""
    model = models.MODELS / "mlp_relu.ts17.onnx"
    np.savez(tmp_path / "other.npz", images=np.zeros((2, 64), np.float32))
    sentence = said(run(model, model, "--inputs", tmp_path / "other.npz", check=False))
    assert 'has no input "images"; it wants x, y' in sentence
    # One of them is enough, and the rest a remark.
    np.savez(tmp_path / "some.npz", images=np.zeros((2, 64), np.float32), x=np.zeros((2, 64), np.float32))
    assert run(model, model, "--inputs", tmp_path / "some.npz")["unused"] == ["images"]
