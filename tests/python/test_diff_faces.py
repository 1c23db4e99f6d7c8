"""How a difference is shown: on a terminal, as JSON of its schema, as a picture that Graphviz draws, and inside git."""

import json
import os
import pty
import re
import subprocess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from command import per_inject
from renaming import renamed
from test_schemas import schema


def save(path, model):
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def parsed(text):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')


def diff(a, b, *options):
    found = json.loads(per_inject("diff", a, b, "--format", "json", *options).stdout)
    schema("diff").validate(found)
    return found


@pytest.fixture
def pair(tmp_path):
    """Saves two models of ONNX's text syntax and compares them."""

    def of(before, after, *options):
        a = save(tmp_path / "a.onnx", before if isinstance(before, (bytes, onnx.ModelProto)) else parsed(before))
        b = save(tmp_path / "b.onnx", after if isinstance(after, (bytes, onnx.ModelProto)) else parsed(after))
        return diff(a, b, *options)

    return of


def test_differences_of_all_models_follow_the_schema(tmp_path):
    """Every reference model against the next one: nearly everything differs."""
    for a, b in zip(models.NAMES, models.NAMES[1:]):
        diff(models.MODELS / f"{a}.onnx", models.MODELS / f"{b}.onnx")


MLP = "(float[N,4] x) => (float[N,4] y) <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}> { h = MatMul(x, w)  a = Relu(h)  y = Sub(a, x) }"


def test_an_inserted_node_is_one_added_node_and_its_reader_changed(pair):
    found = pair(MLP, MLP.replace("a = Relu(h)", "s = Sigmoid(h)  a = Relu(s)"))
    nodes = found["nodes"]
    assert [n["op"] for n in nodes["added"]] == ["Sigmoid"] and nodes["removed"] == []
    assert [n["op"] for n in nodes["added"][0]["producers"]] == ["MatMul"]
    assert [n["op"] for n in nodes["added"][0]["consumers"]] == ["Relu"]
    [change] = nodes["changed"]
    assert change["changes"] == [{"kind": "input", "slot": 0, "from": "h", "to": "s"}]


def test_attributes_are_compared_by_value(pair):
    before = "(float[N,4] x) => (float[N,4] y) { a = Elu<alpha = 0.5>(x)  y = Transpose<perm = [1, 0]>(a) }"
    found = pair(before, before.replace("0.5", "0.25").replace("perm = [1, 0]", "perm = [0, 1]"))
    changes = [change["changes"] for change in found["nodes"]["changed"]]
    assert changes == [
        [{"kind": "attribute", "name": "alpha", "from": "0.5", "to": "0.25"}],
        [{"kind": "attribute", "name": "perm", "from": "[1, 0]", "to": "[0, 1]"}],
    ]


def test_a_changed_body_is_a_difference_with_a_path(pair):
    before = """(bool c, float[N] x) => (float[N] y) {
      h = Neg(x)
      y = If(c) <then_branch = t () => (float[N] p) { r = Relu(h)  p = Neg(r) }, else_branch = e () => (float[N] q) { q = Identity(h) }>
    }"""
    found = pair(before, before.replace("r = Relu(h)", "r = Abs(h)"))
    assert found["nodes"]["added"] == found["nodes"]["removed"] == []
    [change] = found["nodes"]["changed"]
    [body] = change["changes"]
    assert (body["kind"], body["attribute"], body["path"]) == ("body", "then_branch", "If@1/then_branch")
    inside = body["diff"]["nodes"]
    assert [n["op"] for n in inside["added"]] == ["Abs"] and [n["op"] for n in inside["removed"]] == ["Relu"]
    # A body that reads another value of the graph around it is another body.
    found = pair(before, before.replace("q = Identity(h)", "q = Identity(x)"))
    [body] = found["nodes"]["changed"][0]["changes"]
    assert [c["changes"] for c in body["diff"]["nodes"]["changed"]] == [[{"kind": "input", "slot": 0, "from": "h", "to": "x"}]]


def test_swapped_inputs_are_a_change(pair):
    found = pair(MLP, MLP.replace("Sub(a, x)", "Sub(x, a)"))
    [change] = found["nodes"]["changed"]
    assert change["changes"] == [
        {"kind": "input", "slot": 0, "from": "a", "to": "x"},
        {"kind": "input", "slot": 1, "from": "x", "to": "a"},
    ]


def test_another_order_of_the_nodes_is_no_difference(pair):
    before = "(float[N] x) => (float[N] y) { a = Relu(x)  b = Neg(x)  y = Add(a, b) }"
    found = pair(before, before.replace("a = Relu(x)  b = Neg(x)", "b = Neg(x)  a = Relu(x)"))
    assert found["equal"] and len(found["nodes"]["moved"]) == 1
    assert found["nodes"]["added"] == found["nodes"]["removed"] == found["nodes"]["changed"] == []


# ---------------------------------------------------------------- weights

ENCODINGS = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.INT32: "int32_data",
    TensorProto.INT8: "int32_data",
    TensorProto.UINT8: "int32_data",
    TensorProto.INT16: "int32_data",
    TensorProto.BOOL: "int32_data",
    TensorProto.FLOAT16: "int32_data",
    TensorProto.BFLOAT16: "int32_data",
    TensorProto.FLOAT8E4M3FN: "int32_data",
    TensorProto.FLOAT8E4M3FNUZ: "int32_data",
    TensorProto.FLOAT8E5M2: "int32_data",
    TensorProto.FLOAT8E5M2FNUZ: "int32_data",
    TensorProto.INT4: "int32_data",
    TensorProto.UINT4: "int32_data",
    TensorProto.FLOAT4E2M1: "int32_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.COMPLEX128: "double_data",
}


def with_weight(tensor):
    tensor.name = "w"
    node = helper.make_node("Identity", ["w"], ["y"])
    y = helper.make_tensor_value_info("y", tensor.data_type, None)
    return helper.make_model(helper.make_graph([node], "g", [], [y], [tensor]), ir_version=10)


def encoded(values, data_type, raw):
    """A tensor as onnx writes it."""
    if raw:
        return numpy_helper.from_array(values, "w") if data_type not in PACKED else helper.make_tensor("w", data_type, values.shape, PACKED[data_type](values), raw=True)
    return helper.make_tensor("w", data_type, values.shape, values.flatten())


def _nibbles(values):
    flat = [int(v) & 15 for v in values.astype(np.int8).flatten()]
    return bytes(a | b << 4 for a, b in zip(flat[::2], flat[1::2] + [0] * (len(flat) % 2)))


PACKED = {TensorProto.INT4: _nibbles, TensorProto.UINT4: _nibbles}
RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("data_type", ENCODINGS, ids=TensorProto.DataType.Name)
def test_weights_are_compared_as_numpy_compares_them(pair, data_type):
    kind = helper.tensor_dtype_to_np_dtype(data_type)
    low = 0 if data_type in (TensorProto.UINT8, TensorProto.UINT32, TensorProto.UINT64, TensorProto.UINT4, TensorProto.BOOL) else -4
    high = 2 if data_type == TensorProto.BOOL else 5
    before = RANDOM.integers(low, high, (7, 5)).astype(kind)
    after = before.copy()
    after[2, 3] = 1 if float(np.real(before[2, 3])) != 1 else 0
    after[6, 4] = 1 if float(np.real(before[6, 4])) != 1 else 0
    raw, typed = encoded(before, data_type, raw=True), encoded(before, data_type, raw=False)
    assert raw.raw_data and len(getattr(typed, ENCODINGS[data_type])), "two encodings of one value"
    assert pair(with_weight(raw), with_weight(typed))["equal"]
    assert pair(with_weight(raw), with_weight(typed), "--ignore", "weights")["equal"]
    for x, y in [(raw, encoded(after, data_type, raw=True)), (typed, encoded(after, data_type, raw=True))]:
        [change] = pair(with_weight(x), with_weight(y))["initializers"]["changed"]
        # Complex numbers count by their components.
        parts = lambda v: np.asarray(v).view(np.float32 if data_type == TensorProto.COMPLEX64 else np.float64) if np.iscomplexobj(v) else np.asarray(v)
        a, b = parts(before).astype(np.float64).flatten(), parts(after).astype(np.float64).flatten()
        values = change["values"]
        assert (values["elements"], values["different"]) == (a.size, np.count_nonzero(a != b))
        # Sums of a few small numbers in float64, in another order.
        assert values["max_abs"] == np.abs(a - b).max()
        assert values["mean_abs"] == pytest.approx(np.abs(a - b).mean(), rel=1e-12)
        assert values["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
        assert change["problem"] is None
    assert pair(with_weight(raw), with_weight(encoded(after, data_type, raw=True)), "--ignore", "weights")["equal"]


def test_what_is_not_finite_is_left_out_of_the_sums(pair):
    before = np.array([np.nan, np.inf, 0.0, 1.0, 2.0], np.float32)
    after = np.array([np.nan, 1.0, -0.0, 1.0, 4.0], np.float32)
    tensor = lambda v: with_weight(numpy_helper.from_array(v, "w"))
    [change] = pair(tensor(before), tensor(after))["initializers"]["changed"]
    assert change["values"] == {"elements": 5, "different": 2, "max_abs": 2.0, "mean_abs": 2 / 3, "cosine": pytest.approx(9 / np.sqrt(5 * 17))}
    # NaN equals NaN and −0 equals 0.
    after[1], after[4] = np.inf, 2.0
    assert pair(tensor(before), tensor(after))["equal"]


def test_external_weights_are_read_from_their_files(tmp_path):
    values = RANDOM.standard_normal((300, 1000)).astype(np.float32)
    changed = values.copy()
    changed[299, 999] += 1
    files = {}
    for name, array in {"a": values, "b": changed, "inline": values}.items():
        model = with_weight(numpy_helper.from_array(array, "w"))
        files[name] = tmp_path / f"{name}.onnx"
        onnx.save(model, files[name], save_as_external_data=name != "inline", location=f"{name}.bin", size_threshold=0)
    assert (tmp_path / "a.bin").stat().st_size == values.nbytes
    assert diff(files["a"], files["inline"])["equal"]
    [change] = diff(files["a"], files["b"])["initializers"]["changed"]
    assert change["values"]["different"] == 1 and change["values"]["max_abs"] == pytest.approx(1, rel=1e-6)
    # What is not there is told, and is no difference that was found.
    (tmp_path / "b.bin").unlink()
    found = diff(files["a"], files["b"])
    assert found["initializers"]["changed"] == [] and "b.bin is not there" in found["warnings"][0]


# ---------------------------------------------------------------- models

def test_what_stands_around_the_graph_is_compared(pair):
    model = parsed("(float[N] x) => (float[N] y) { y = Neg(x) }")
    other = onnx.ModelProto.FromString(model.SerializeToString())
    other.ir_version, other.producer_name, other.doc_string = 9, "someone", "a doc"
    other.opset_import[0].version = 18
    other.metadata_props.add(key="author", value="me")
    other.graph.doc_string, other.graph.node[0].doc_string = "the graph's", "the node's"
    other.functions.append(helper.make_function("local", "F", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 17)]))
    found = pair(model, other)
    assert [(p["what"], p["from"], p["to"]) for p in found["model"]] == [
        ("ir_version", "8", "9"),
        ("opset_import", "17", "18"),
        ("producer_name", None, "someone"),
        ("doc_string", None, "a doc"),
        ("metadata", None, "me"),
    ]
    assert found["properties"][0]["what"] == "doc_string"
    assert found["nodes"]["changed"][0]["changes"] == [{"kind": "doc", "from": "", "to": "the node's"}]
    assert found["functions"]["added"] == ["local::F"]
    quiet = pair(model, other, "--ignore", "docs")
    assert [p["what"] for p in quiet["model"]] == ["ir_version", "opset_import"] and quiet["nodes"]["changed"] == []
    # Inside a function the same comparison is made.
    third = onnx.ModelProto.FromString(other.SerializeToString())
    third.functions[0].node[0].op_type = "Abs"
    [change] = pair(other, third)["functions"]["changed"]
    assert change["function"] == "local::F" and [n["op"] for n in change["diff"]["nodes"]["added"]] == ["Abs"]


def test_how_tensors_are_quantized_goes_by_values_and_not_by_names(tmp_path, pair):
    model = parsed(MLP)
    note = model.graph.quantization_annotation.add(tensor_name="h")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    other = renamed(model)
    assert other.graph.quantization_annotation[0].tensor_name != "h"
    assert pair(model, other, "--ignore", "names")["equal"]
    del other.graph.quantization_annotation[:]
    assert [p["what"] for p in pair(model, other)["properties"]] == ["quantization"]


def test_declared_types_are_compared(pair):
    before = "(float[N,4] x) => (float[N,4] y) { y = Neg(x) }"
    found = pair(before, before.replace("N,4", "N,5"))
    assert [c["b"]["type"] for k in ("inputs", "outputs") for c in found[k]["changed"]] == ["float[N, 5]"] * 2
    assert pair(before, before.replace("N,4", "N,5"), "--ignore", "shapes")["equal"]


# ---------------------------------------------------------------- the command

def test_exit_codes(tmp_path):
    a, b = save(tmp_path / "a.onnx", parsed(MLP)), save(tmp_path / "b.onnx", parsed(MLP.replace("Relu", "Neg")))
    code = lambda *arguments: per_inject("diff", *arguments, check=False).returncode
    assert [code(a, a, "--exit-code"), code(a, b, "--exit-code"), code(a, tmp_path / "none", "--exit-code")] == [0, 1, 2]
    assert [code(a, a), code(a, b), code(a, tmp_path / "none"), code(a), code("-", "-")] == [0, 0, 1, 2, 2]


def test_one_model_may_come_through_a_pipe_and_the_result_may_go_to_a_file(tmp_path):
    a, b, out = save(tmp_path / "a.onnx", parsed(MLP)), save(tmp_path / "b.onnx", parsed(MLP.replace("Relu", "Neg"))), tmp_path / "out.txt"
    with b.open("rb") as stdin:
        run = subprocess.run([os.environ["PER_INJECT"], "diff", a, "-", "-o", out], stdin=stdin, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert "standard input" in out.read_text() and "+ Neg(h) → a" in out.read_text()


def test_text_fits_a_hundred_columns_and_holds_no_control_characters(tmp_path):
    evil = 'e\x1b[31m\u202e\n<script>"' + "long" * 300
    before = onnx.load(models.MODELS / "gpt_gelu.ts17.onnx")
    after = renamed(before)
    for model in (before, after):
        model.graph.node[3].name = evil
        model.doc_string = evil
    del after.graph.node[3].attribute[:]
    after.graph.node[3].op_type = "Evil" + evil
    a, b = save(tmp_path / "a.onnx", before), save(tmp_path / "b.onnx", after)
    for options in ([], ["--expand"]):
        text = per_inject("diff", a, b, *options).stdout
        assert max(map(len, text.splitlines())) <= 100
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", text)
    schema("diff").validate(json.loads(per_inject("diff", a, b, "--format", "json").stdout))


def test_colours_are_for_terminals(tmp_path):
    a, b = save(tmp_path / "a.onnx", parsed(MLP)), save(tmp_path / "b.onnx", parsed(MLP.replace("Relu", "Neg")))

    def on_terminal(*options, **environment):
        here, there = pty.openpty()
        environment = {k: v for k, v in {**os.environ, **environment}.items() if k != "NO_COLOR" or environment.get("NO_COLOR")}
        subprocess.run([os.environ["PER_INJECT"], "diff", a, b, *options], stdout=there, check=True, env=environment)
        os.close(there)
        shown = b""
        try:
            while part := os.read(here, 65536):
                shown += part
        except OSError:
            pass  # how Linux says that the other end is closed
        os.close(here)
        return shown.decode()

    assert "\x1b[32m" in on_terminal() and "\x1b" not in on_terminal(NO_COLOR="1") and "\x1b" not in on_terminal("--color", "never")
    assert "\x1b" not in per_inject("diff", a, b).stdout and "\x1b[32m" in per_inject("diff", a, b, "--color", "always").stdout


# ---------------------------------------------------------------- Graphviz

def drawn(source):
    run = subprocess.run(["dot", "-Tsvg"], input=source, capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr, run.stderr
    return run.stdout


@pytest.mark.parametrize("options", [[], ["--full"], ["--expand"], ["--full", "--expand"]])
def test_graphviz_draws_it(tmp_path, options):
    path, injected = models.MODELS / "bn_resnet8.ts17.onnx", tmp_path / "injected.onnx"
    per_inject(path, "--layers", "relu", "--coef", "3e-5", "--estimator", "exact", "-o", injected)
    svg = drawn(per_inject("diff", path, injected, "--format", "dot", *options).stdout)
    boxes = len(re.findall('class="node"', svg))
    after = len(onnx.load(injected).graph.node)
    before = len(onnx.load(path).graph.node)
    layers = svg.count("PER at")
    assert layers == len([n for n in onnx.load(path).graph.node if n.op_type == "Relu"])
    if "--full" in options:
        # All nodes, or those of the model with a box for each layer and one for the sum.
        assert boxes == (after if "--expand" in options else before + layers + 1)
    else:
        assert boxes < after and (boxes > 8 * layers if "--expand" in options else boxes < 3 * layers + 5)


def test_graphviz_draws_evil_names_and_no_difference(tmp_path):
    evil = 'e"\\N\n<b>&amp;\x1b\u202e{|}' + "x" * 5000
    before = parsed(MLP)
    for node in before.graph.node:
        node.name = evil
    after = onnx.ModelProto.FromString(before.SerializeToString())
    after.graph.node[1].op_type = evil
    a, b = save(tmp_path / "a.onnx", before), save(tmp_path / "b.onnx", after)
    assert "&lt;b&gt;" in drawn(per_inject("diff", a, b, "--format", "dot").stdout)
    assert "no node differs" in drawn(per_inject("diff", a, a, "--format", "dot").stdout)


# ---------------------------------------------------------------- git

def test_git_shows_differences_of_models(tmp_path):
    repository, binary = tmp_path / "repository", os.environ["PER_INJECT"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "PATH": f"{os.path.dirname(binary)}:{os.environ['PATH']}"}

    def git(*arguments):
        run = subprocess.run(["git", *arguments], cwd=repository, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout

    repository.mkdir()
    git("init", "-q")
    git("config", "user.email", "a@b.c")
    git("config", "user.name", "A")
    # As `per-inject diff --help` has it.
    help_text = per_inject("diff", "--help").stdout
    for line in ("git config diff.onnx.command 'per-inject diff'", "git config diff.onnx.textconv 'per-inject inspect'"):
        assert line in help_text
    (repository / ".gitattributes").write_text("*.onnx diff=onnx\n")
    git("config", "diff.onnx.command", "per-inject diff")
    git("config", "diff.onnx.textconv", "per-inject inspect")
    loss = "(float[N,4] x) => (float l) { a = Relu(x)  l = ReduceMean<keepdims = 0>(a) }"
    save(repository / "m.onnx", parsed(loss))
    git("add", ".")
    git("commit", "-qm", "one")
    save(repository / "m.onnx", parsed(loss.replace("Relu", "Elu")))
    external = git("diff")
    assert "- Relu(x) → a" in external and "+ Elu(x) → a" in external
    # A new file and one that is gone have nothing on the other side.
    save(repository / "new.onnx", parsed(loss))
    git("add", "new.onnx")
    assert "+ Relu(x) → a" in git("diff", "--cached", "--", "new.onnx")
    git("commit", "-qam", "two")
    git("mv", "new.onnx", "moved.onnx")
    assert git("diff", "--cached", "-M", "--", "new.onnx", "moved.onnx").count("--- ") == 1
    git("commit", "-qam", "three")
    git("rm", "-q", "moved.onnx")
    assert "- Relu(x) → a" in git("diff", "--cached")
    # git log and git show take the text of each side.
    shown = git("show", "--textconv", "--no-ext-diff", "HEAD~1", "--", "m.onnx")
    assert re.search(r"^-.*relu", shown, re.M) and re.search(r"^\+.*elu", shown, re.M)
