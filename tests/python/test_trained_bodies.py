"""Trained initializers inside the bodies of If, Loop and Scan: differentiated, trained and put back as those of the main graph are."""

from __future__ import annotations

import copy
import json

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, helper, numpy_helper

import taps
import training
from command import per_inject
from test_differentiate import differentiated, gradients
from test_differentiate_flow import CASES, FALSE, TRUE, Case, f
from test_schemas import schema


def bodies(graph):
    """The bodies of a graph's nodes, each with those inside it behind it."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield attribute.g
                yield from bodies(attribute.g)


def inner(model) -> dict[str, np.ndarray]:
    """The initializers of bodies, by their own names."""
    return {t.name: numpy_helper.to_array(t) for body in bodies(model.graph) for t in body.initializer}


def moved_inwards(model):
    """The same model with each parameter that one body alone reads in that body; and the names of these."""
    model, moved = copy.deepcopy(model), []
    for tensor in list(model.graph.initializer):
        reads = lambda graph: any(tensor.name in node.input for node in graph.node)
        readers = [body for body in bodies(model.graph) if reads(body)]
        if tensor.name.startswith("p") and len(readers) == 1 and not reads(model.graph):
            model.graph.initializer.remove(tensor)
            readers[0].initializer.append(tensor)
            moved.append(tensor.name)
    return model, moved


INWARDS = [case for case in CASES if moved_inwards(case.model())[1]]


@pytest.mark.parametrize("case", INWARDS, ids=lambda case: case.name)
def test_gradients_are_those_of_the_same_initializers_in_the_main_graph(session, case):
    model, moved = moved_inwards(case.model())
    loss, expected = gradients(session, differentiated(case.model().SerializeToString(), "--wrt", "re:^p"), case.feeds)
    step = differentiated(model.SerializeToString(), "--wrt", "re:^p")
    found_loss, found = gradients(session, step, case.feeds)
    assert found_loss == loss and found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert np.array_equal(found[name], gradient), name
    assert set(moved) <= {t.name for t in onnx.load_from_string(step).graph.initializer}


@pytest.mark.parametrize("name", ("if-opset-11", "scan-13", "loop-if-5"))
def test_a_raised_graph_has_the_same_gradients(session, name):
    [case] = [case for case in INWARDS if case.name == name]
    model = moved_inwards(case.model())[0].SerializeToString()
    _, expected = gradients(session, differentiated(model, "--wrt", "re:^p"), case.feeds)
    _, found = gradients(session, differentiated(model, "--wrt", "re:^p", "--opset", 21), case.feeds)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert np.abs(found[name] - gradient).max() <= 1e-6 * np.abs(gradient).max(), name


def test_most_kinds_of_bodies_are_among_the_cases():
    assert len(INWARDS) >= 20
    assert {case.name.split("-")[0] for case in INWARDS} >= {"if", "scan", "loop", "while", "stacked"}


# k in both branches, and one that is an output of its branch too; w in a loop inside a branch.
COLLIDING = """g (float[3,4] x, bool c) => (float loss) {
    h = MatMul(x, p0)
    y, k1 = If(c)<then_branch = t () => (float[3,4] a, float[4] k) <float[4] k = {1.0, -2.0, 3.0, 0.5}> { a = Add(h, k) },
                  else_branch = e () => (float[3,4] b, float[4] m) <float[4] k = {0.5, 1.5, -1.0, 2.0}> {
        n = Constant<value = int64 {2}>() yes = Constant<value = bool {1}>()
        l = Loop(n, yes, h)<body = l (int64 i, bool go, float[3,4] v) => (bool on, float[3,4] vn) <float[4,4] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}> {
            on = Identity(go) q = MatMul(v, w) vn = Tanh(q) }>
        b = Add(l, k) m = Neg(k) }>
    z = Mul(y, k1) s = Mul(z, z) loss = ReduceMean<keepdims = 0>(s) }"""


@pytest.fixture
def colliding(tmp_path):
    path = tmp_path / "colliding.onnx"
    path.write_bytes(Case("colliding", COLLIDING, {"p0": f(4, 4)}, {}).model().SerializeToString())
    return path


def report(source, target, *options) -> dict:
    found = json.loads(per_inject("differentiate", source, "-o", target, "--json", *options).stdout)
    schema("step").validate(found)
    return found


def test_names_that_two_bodies_have_get_numbers_and_say_where_they_are_from(session, colliding, tmp_path):
    target = tmp_path / "step.onnx"
    found = report(colliding, target)
    origins = {p["name"]: p.get("of_body") for p in found["parameters"]}
    assert origins == {
        "p0": None,
        "k_1": {"body": "If@1/then_branch", "initializer": "k"},
        "k_2": {"body": "If@1/else_branch", "initializer": "k"},
        "w": {"body": "If@1/else_branch/Loop@2/body", "initializer": "w"},
    }
    metadata = {m.key: m.value for m in onnx.load(target).metadata_props}
    assert json.loads(metadata["per_inject.step"]) == found
    # Central differences of the forward graph, whose bodies are changed.
    for c in (TRUE, FALSE):
        feeds = {"x": f(3, 4), "c": c}
        _, given = gradients(session, target.read_bytes(), feeds)
        for name, branch, own in (("k_1", 0, "k"), ("k_2", 1, "k"), ("w", 2, "w")):
            assert np.abs(given[name] - differences(session, colliding, branch, own, feeds)).max() <= 2e-3 * max(1, np.abs(given[name]).max())


def differences(session, path, body, name, feeds):
    """By central differences in float32, with a step of 1e-2."""
    def loss(index, by):
        model = onnx.load(path)
        [tensor] = [t for t in list(bodies(model.graph))[body].initializer if t.name == name]
        values = numpy_helper.to_array(tensor).copy()
        values[index] += by
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        return float(session(model.SerializeToString()).run(["loss"], feeds)[0])

    [tensor] = [t for t in list(bodies(onnx.load(path).graph))[body].initializer if t.name == name]
    return np.array([(loss(i, 1e-2) - loss(i, -1e-2)) / 2e-2 for i in np.ndindex(*tensor.dims)]).reshape(tensor.dims)


@pytest.mark.parametrize(
    "options, trained",
    [
        (["--wrt", "k_1"], ["k_1"]),
        (["--freeze", "k_2"], ["p0", "k_1", "w"]),
        (["--wrt", "w,p0"], ["p0", "w"]),
        (["--wrt", "k_*", "--freeze", "k_1"], ["k_2"]),
        (["--freeze", "k_*,w"], ["p0"]),
    ],
)
def test_selectors_choose_among_them(colliding, tmp_path, options, trained):
    target, restored = tmp_path / "step.onnx", tmp_path / "restored.onnx"
    assert [p["name"] for p in report(colliding, target, *options)["parameters"]] == trained
    onnx.checker.check_model(str(target), full_check=True)
    per_inject("strip", target, "-o", restored)
    assert restored.read_bytes() == colliding.read_bytes()


def test_inspect_shows_them_with_their_role_and_body(colliding):
    found = json.loads(per_inject("inspect", colliding, "--json").stdout)
    schema("inspect").validate(found)
    shown = {i["name"]: (i["role"], i["trained"], i.get("body"), i["shape"]) for i in found["initializers"]}
    assert shown == {
        "p0": ("weight", True, None, "float[4, 4]"),
        "k_1": ("bias", True, "If@1/then_branch", "float[4]"),
        "k_2": ("bias", True, "If@1/else_branch", "float[4]"),
        "w": ("weight", True, "If@1/else_branch/Loop@2/body", "float[4, 4]"),
    }
    assert "in If@1/then_branch, " in per_inject("inspect", colliding, "--initializers").stdout


def test_numbers_of_a_formula_in_a_body_stay_where_they_are(tmp_path):
    text = """g (float[3,4] x, bool c) => (float loss) {
        h = Mul(x, p0)
        y = If(c)<then_branch = t () => (float[3,4] a) <float half = {0.5}, float[4] k = {1.0, 2.0, 3.0, 4.0}> { u = Mul(h, half) a = Add(u, k) },
                  else_branch = e () => (float[3,4] b) { b = Neg(h) }>
        z = Mul(y, y) loss = ReduceMean<keepdims = 0>(z) }"""
    source, target = tmp_path / "model.onnx", tmp_path / "step.onnx"
    source.write_bytes(Case("formula", text, {"p0": f(4)}, {}).model().SerializeToString())
    assert [p["name"] for p in report(source, target)["parameters"]] == ["p0", "k"]
    held = inner(onnx.load(target))
    assert "half" in held and "k" not in held


def changed_in_place(old: bytes, new: bytes, values: dict[bytes, bytes]) -> bool:
    """Whether replacing pieces by others of the same length is all that happened."""
    for before, after in values.items():
        assert old.count(before) == 1 and len(before) == len(after)
        old = old.replace(before, after)
    return old == new


def test_weights_come_out_of_bodies_and_go_back_without_another_byte(colliding, tmp_path):
    taken, target = tmp_path / "w.npz", tmp_path / "put.onnx"
    per_inject("weights", "get", colliding, "-o", taken)
    with np.load(taken) as archive:
        arrays = dict(archive)
    assert arrays.keys() == {"p0", "k_1", "k_2", "w"}
    fresh = {"k_2": f(4), "w": f(4, 4)}
    np.savez(taken, **arrays | fresh)
    found = json.loads(per_inject("weights", "put", colliding, "--from", taken, "-o", target, "--json").stdout)
    assert {m["initializer"] for m in found["matched"] if m["changed"]} == fresh.keys()
    assert changed_in_place(colliding.read_bytes(), target.read_bytes(), {arrays[n].tobytes(): v.tobytes() for n, v in fresh.items()})
    # What a step graph's tensors became goes back to the bodies with them.
    step, trained, restored = (tmp_path / f"{n}.onnx" for n in ("step", "trained", "restored"))
    per_inject("differentiate", colliding, "-o", step)
    per_inject("weights", "put", step, "--from", taken, "-o", trained)
    said = per_inject("strip", trained, "-o", restored).stdout
    assert "byte for byte" in said
    assert restored.read_bytes() == target.read_bytes()


TRAINED = """g (float[N,4] x, bool c) => (float loss) {
    h = MatMul(x, p0)
    y = If(c)<then_branch = t () => (float[N,3] a) { u = MatMul(h, p1) v = Add(u, p2) a = Tanh(v) },
              else_branch = e () => (float[N,3] b) { w = MatMul(h, p3) b = Tanh(w) }>
    z = Mul(y, y) m = ReduceMean<keepdims = 0>(z) one = Constant<value = float {1.0}>() d = Sub(m, one) loss = Mul(d, d) }"""


@pytest.mark.parametrize("regularizer", [(), ("--layers", "tensor:h", "--estimator", "exact", "--coef", 0.1)], ids=("alone", "with-per"))
def test_training_is_that_of_the_same_initializers_in_the_main_graph(tmp_path, regularizer):
    parameters = {"p0": f(4, 5), "p1": f(5, 3), "p2": f(3), "p3": f(5, 3)}
    plain = Case("trained", TRAINED, parameters, {}).model()
    model, moved = moved_inwards(plain)
    assert moved == ["p1", "p2", "p3"]
    np.savez(tmp_path / "data.npz", x=f(64, 4), c=np.arange(64) % 2 == 0)
    sources = {"plain": plain, "bodies": model}
    for name, each in sources.items():
        # One sample a step, so that the condition is a scalar of it.
        each.graph.input[1].type.tensor_type.shape.dim.add().dim_value = 1
        (tmp_path / f"{name}.onnx").write_bytes(each.SerializeToString())
    options = ("--data", tmp_path / "data.npz", "--batch-size", 1, "--epochs", 2, "--optimizer", "adam", "--lr", 0.01, "--quiet", *regularizer)
    for name in sources:
        training.train(tmp_path / f"{name}.onnx", tmp_path / name, *options)
    expected, found = (training.tensors(tmp_path / name / "model.safetensors") for name in sources)
    assert found.keys() == expected.keys() == parameters.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name], value) and not np.array_equal(value, parameters[name]), name
    # And only elements of the file differ.
    values = {parameters[n].tobytes(): found[n].tobytes() for n in parameters}
    assert changed_in_place((tmp_path / "bodies.onnx").read_bytes(), (tmp_path / "bodies" / "model.onnx").read_bytes(), values)


def with_a_data_file(path):
    """Writes the model anew as raw data, all of it in a file beside it."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location=f"{path.stem}.bin")


def test_elements_that_cannot_be_replaced_in_place_are_refused_before_anything_is_written(tmp_path):
    text = """g (float16[3] x, bool c) => (float16 loss) {
        y = If(c)<then_branch = t () => (float16[3] a) { a = Mul(x, p0) }, else_branch = e () => (float16[3] b) { b = Neg(x) }>
        loss = ReduceSum<keepdims = 0>(y) }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    # Numbers of varying length, in int32_data.
    next(bodies(model.graph)).initializer.append(helper.make_tensor("p0", onnx.TensorProto.FLOAT16, [3], [1.0, 2.0, 3.0]))
    source, taken, target = tmp_path / "model.onnx", tmp_path / "w.npz", tmp_path / "put.onnx"
    source.write_bytes(model.SerializeToString())
    np.savez(taken, p0=np.array([4, 5, 6], np.float16))
    run = per_inject("weights", "put", source, "--from", taken, "-o", target, check=False)
    assert "inside a body, where only as many bytes can be replaced" in taps.refusal(run)
    assert not target.exists()
    step, restored = tmp_path / "step.onnx", tmp_path / "restored.onnx"
    per_inject("differentiate", source, "-o", step)
    per_inject("strip", step, "-o", restored)
    assert restored.read_bytes() == source.read_bytes()
    with_a_data_file(step)
    per_inject("strip", step, "-o", restored)
    assert restored.read_bytes() == source.read_bytes()
    # Only other elements have no room there.
    data, old = tmp_path / "step.bin", np.array([1, 2, 3], np.float16).tobytes()
    assert data.read_bytes().count(old) == 1
    data.write_bytes(data.read_bytes().replace(old, np.array([4, 5, 6], np.float16).tobytes()))
    assert "numbers of varying length" in taps.refusal(per_inject("strip", step, "-o", target, check=False))
    assert not target.exists()


def test_a_step_graph_saved_with_its_elements_in_a_data_file_gives_them_back_to_the_bodies(colliding, tmp_path):
    step, restored = tmp_path / "step.onnx", tmp_path / "restored.onnx"
    per_inject("differentiate", colliding, "-o", step)
    with_a_data_file(step)
    per_inject("strip", step, "-o", restored)
    original = inner(onnx.load(colliding))
    assert all(np.array_equal(value, original[name]) for name, value in inner(onnx.load(restored)).items())
    # What they became in the data file comes back too.
    data, w = tmp_path / "step.bin", f(4, 4)
    old = data.read_bytes()
    assert old.count(original["w"].tobytes()) == 1
    data.write_bytes(old.replace(original["w"].tobytes(), w.tobytes()))
    per_inject("strip", step, "-o", restored)
    found = inner(onnx.load(restored))
    assert np.array_equal(found["w"], w) and np.array_equal(found["k"], original["k"])
    data.unlink()
    assert "step.bin" in taps.refusal(per_inject("strip", step, "-o", restored, check=False))


def test_elements_of_a_body_in_a_data_file_stay_there_and_others_are_refused(tmp_path):
    text = """g (float[3] x, bool c) => (float loss) {
        y = If(c)<then_branch = t () => (float[3] a) { a = Mul(x, p0) }, else_branch = e () => (float[3] b) { b = Neg(x) }>
        loss = ReduceSum<keepdims = 0>(y) }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    held = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "p0")
    next(bodies(model.graph)).initializer.append(held)
    held = next(bodies(model.graph)).initializer[0]
    (tmp_path / "model.bin").write_bytes(held.raw_data)
    onnx.external_data_helper.set_external_data(held, "model.bin", 0, len(held.raw_data))
    held.ClearField("raw_data")
    source, step, restored = (tmp_path / f"{n}.onnx" for n in ("model", "step", "restored"))
    source.write_bytes(model.SerializeToString())
    per_inject("differentiate", source, "-o", step)
    per_inject("strip", step, "-o", restored)
    assert restored.read_bytes() == source.read_bytes()
    # The step graph with its elements inside: the data file is known no more, and nothing says that they are the same.
    onnx.save(onnx.load(step), step)
    said = taps.refusal(per_inject("strip", step, "-o", restored, check=False))
    assert "cannot go back to the body that it came from" in said and "model.bin" in said


# A layer behind weights in a branch alone, one behind weights of both, and a scalar output that no weight reaches.
REACHED = """g (float[N,4] x, bool[1] c) => (float norm, float loss) {
    norm = ReduceL2<keepdims = 0>(x)
    y = If(c)<then_branch = t () => (float[N,4] a) { a = MatMul(x, w) }, else_branch = e () => (float[N,4] b) { b = Mul(x, x) }>
    r = Relu(y) o = MatMul(r, p0) q = Relu(o) z = Mul(q, q) loss = ReduceMean<keepdims = 0>(z) }"""


@pytest.fixture
def reached(tmp_path):
    model = Case("reached", REACHED, {"p0": f(4, 4)}, {}).model()
    next(bodies(model.graph)).initializer.append(numpy_helper.from_array(f(4, 4), "w"))
    path = tmp_path / "reached.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def layers(*arguments) -> list[str]:
    return [layer["tensor"] for layer in json.loads(per_inject(*arguments, "--json").stdout)["layers"]]


def test_what_depends_on_them_alone_is_regularised(reached, tmp_path):
    options = ("--layers", "all", "--coef", 0.1, "-o", tmp_path / "injected.onnx")
    assert layers(reached, *options) == ["r", "q"]
    assert layers(reached, *options, "--freeze", "p0") == ["r", "q"]
    assert layers(reached, *options, "--freeze", "w") == ["q"]
    assert layers(reached, *options, "--wrt", "p0") == ["q"]


def test_the_loss_is_what_leads_to_them(reached, tmp_path):
    options = ("--freeze", "p0")
    found = json.loads(per_inject("inspect", reached, "--json", *options).stdout)
    assert [loss["name"] for loss in found["losses"]] == ["loss"]
    assert not any("none of its initializers is trained" in warning for warning in found["warnings"])
    assert [tap["problem"] for tap in found["taps"]] == [None, None]
    assert report(reached, tmp_path / "step.onnx", *options)["loss"] == "loss"
    injected = json.loads(per_inject(reached, "--layers", "tensor:r", "--coef", 0.1, "-o", tmp_path / "i.onnx", "--json", *options).stdout)
    assert [loss["name"] for loss in injected["losses"]] == ["loss"]


def test_inspect_says_that_onnx_runtime_training_leaves_them(reached):
    found = json.loads(per_inject("inspect", reached, "--json").stdout)
    schema("inspect").validate(found)
    assert found["for_ort_training"]["problem"].startswith('the initializer "w" of the body If@1/then_branch is trained')
    found = json.loads(per_inject("inspect", reached, "--json", "--freeze", "w").stdout)
    assert found["for_ort_training"]["problem"] is None


def test_a_graph_whose_loss_reaches_no_weight_gets_the_advice_of_this_command(tmp_path):
    text = "g (float[3] x) => (float loss, float[3] y) { y = Mul(x, p0) loss = ReduceSum<keepdims = 0>(x) }"
    source = tmp_path / "unreached.onnx"
    source.write_bytes(Case("unreached", text, {"p0": f(3)}, {}).model().SerializeToString())
    said = taps.refusal(per_inject("differentiate", source, "-o", tmp_path / "step.onnx", check=False))
    assert "no gradient gets from it to a weight" in said and "--wrt" in said and "--as-output" not in said


# A loop's body has an input, and a branch inside the branch a value, of the name of an initializer around it.
HIDING = {
    "input": """n = Constant<value = int64 {2}>() yes = Constant<value = bool {1}>()
        a = Loop(n, yes, u)<body = l (int64 i, bool go, float[3,4] k) => (bool on, float[3,4] kn) { on = Identity(go) kn = Tanh(k) }>""",
    "initializer": """a = If(c)<then_branch = i () => (float[3,4] q) <float[4] k = {2.0, 1.0, -3.0, 0.25}> { q = Mul(u, k) },
                  else_branch = j () => (float[3,4] r) { r = Mul(u, k) }>""",
}


def hiding(path, inner: str):
    text = f"""g (float[3,4] x, bool c) => (float loss) {{
        h = Mul(x, p0)
        y = If(c)<then_branch = t () => (float[3,4] a) <float[4] k = {{1.0, -2.0, 3.0, 0.5}}> {{ u = Add(h, k) {inner} }},
                  else_branch = e () => (float[3,4] b) {{ b = Mul(h, h) }}>
        z = Mul(y, y) loss = ReduceMean<keepdims = 0>(z) }}"""
    path.write_bytes(Case("hiding", text, {"p0": f(4)}, {}).model().SerializeToString())
    return path


def test_an_input_of_an_inner_body_keeps_its_name(session, tmp_path):
    source = hiding(tmp_path / "model.onnx", HIDING["input"])
    step = differentiated(source.read_bytes())
    onnx.checker.check_model(onnx.load_from_string(step), full_check=True)
    feeds = {"x": f(3, 4), "c": TRUE}
    loss, given = gradients(session, step, feeds)
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(source).graph.initializer}
    k = np.array([1, -2, 3, 0.5], np.float32)
    y = np.tanh(np.tanh(feeds["x"] * tensors["p0"] + k))
    # float32 against float32: a few units in the last place of a mean of twelve.
    assert abs(float(loss) - float((y * y).mean())) <= 1e-6
    assert given.keys() == {"p0", "k_1"}
    assert np.abs(given["k_1"] - differences(session, source, 0, "k", feeds)).max() <= 2e-3


@pytest.mark.parametrize("options", [(), ("--wrt", "k_1"), ("--wrt", "k_2")], ids=("both", "outer", "inner"))
def test_an_initializer_that_hides_one_of_the_body_around_it_is_refused(tmp_path, options):
    source, target = hiding(tmp_path / "model.onnx", HIDING["initializer"]), tmp_path / "step.onnx"
    said = taps.refusal(per_inject("differentiate", source, "-o", target, *options, check=False))
    assert "the body If@1/then_branch/If@1/then_branch has an initializer \"k\"" in said
    assert "the body If@1/then_branch around it has a value of this name" in said and "rename one" in said
    assert not target.exists()


@pytest.mark.parametrize("hidden", ("p0", "h"))
def test_an_initializer_that_hides_a_value_of_the_main_graph_is_refused(tmp_path, hidden):
    text = f"""g (float[N,4] x, bool[1] c) => (float loss) {{
        h = Mul(x, p0) g = Neg(h)
        y = If(c)<then_branch = t () => (float[N,4] a) <float[4] {hidden} = {{1.0, -2.0, 3.0, 0.5}}> {{ a = Add(g, {hidden}) }},
                  else_branch = e () => (float[N,4] b) {{ b = Sin(g) }}>
        z = Mul(y, y) loss = ReduceMean<keepdims = 0>(z) }}"""
    source, target = tmp_path / "model.onnx", tmp_path / "step.onnx"
    source.write_bytes(Case("hidden", text, {"p0": f(4)}, {}).model().SerializeToString())
    sentence = f"the body If@2/then_branch has an initializer \"{hidden}\", and the main graph has a value of this name"
    assert sentence in taps.refusal(per_inject("differentiate", source, "-o", target, check=False))
    np.savez(tmp_path / "data.npz", x=f(4, 4), c=np.ones(4, bool))
    assert sentence in " ".join(training.refusal(source, tmp_path / "run", "--data", tmp_path / "data.npz", "--batch-size", 1).split())


def test_a_name_that_later_nodes_make_is_hidden_by_nothing(session, tmp_path):
    text = """g (float[3,4] x, bool c) => (float loss) {
        h = Mul(x, p0)
        y = If(c)<then_branch = t () => (float[3,4] a) <float[4] k = {1.0, -2.0, 3.0, 0.5}> { a = Add(h, k) },
                  else_branch = e () => (float[3,4] b) { b = Sin(h) }>
        k = Mul(y, y) loss = ReduceMean<keepdims = 0>(k) }"""
    source = tmp_path / "model.onnx"
    source.write_bytes(Case("later", text, {"p0": f(4)}, {}).model().SerializeToString())
    feeds = {"x": f(3, 4), "c": TRUE}
    _, given = gradients(session, differentiated(source.read_bytes()), feeds)
    assert np.abs(given["k_1"] - differences(session, source, 0, "k", feeds)).max() <= 2e-3


ODD = ("all", "none", "!x", " x ", "x\\", "a,b", "re:k", "p*")


@pytest.mark.parametrize("where", ("body", "main"))
@pytest.mark.parametrize("name", ODD)
def test_training_takes_any_name_letter_by_letter(tmp_path, name, where):
    text = """g (float[N,4] x, bool[1] c) => (float loss) {
        h = Mul(x, p0) l = Mul(h, p1)
        y = If(c)<then_branch = t () => (float[N,4] a) { a = Add(l, k) }, else_branch = e () => (float[N,4] b) { b = Mul(l, l) }>
        z = Mul(y, y) loss = ReduceMean<keepdims = 0>(z) }"""
    values = {"p0": f(4), "p1": f(4), "k": f(4)}
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    [node] = [n for n in model.graph.node if n.op_type == "If"]
    branch = node.attribute[0].g
    names = {"p0": "p0", "p1": "p1", "k": "k", "k" if where == "body" else "p1": name}
    branch.node[0].input[1] = names["k"]
    branch.initializer.append(numpy_helper.from_array(values["k"], names["k"]))
    model.graph.node[1].input[1] = names["p1"]
    model.graph.initializer.extend(numpy_helper.from_array(values[n], names[n]) for n in ("p0", "p1"))
    source, run = tmp_path / "model.onnx", tmp_path / "run"
    source.write_bytes(model.SerializeToString())
    np.savez(tmp_path / "data.npz", x=f(8, 4), c=np.ones(8, bool))
    training.train(source, run, "--data", tmp_path / "data.npz", "--batch-size", 1, "--epochs", 1, "--lr", 0.05, "--quiet", "--freeze", "p0")
    trained = onnx.load(run / "model.onnx")
    found = {t.name: numpy_helper.to_array(t) for t in trained.graph.initializer} | inner(trained)
    changed = {n for n in values if not np.array_equal(found[names[n]], values[n])}
    assert changed == {"p1", "k"}


def test_names_stay_the_same_where_some_of_those_that_share_one_are_trained(colliding, tmp_path):
    step, taken, put, restored = (tmp_path / n for n in ("step.onnx", "w.npz", "put.onnx", "restored.onnx"))
    assert [p["name"] for p in report(colliding, step, "--wrt", "k_2")["parameters"]] == ["k_2"]
    per_inject("weights", "get", colliding, "-o", taken)
    with np.load(taken) as archive:
        arrays = dict(archive)
    fresh = {"k_1": f(4), "k_2": f(4)}
    np.savez(taken, **arrays | fresh)
    said = json.loads(per_inject("weights", "put", step, "--from", taken, "-o", put, "--json").stdout)
    assert {m["initializer"] for m in said["matched"] if m["changed"]} == fresh.keys()
    per_inject("strip", put, "-o", restored)
    values = {arrays[n].tobytes(): v.tobytes() for n, v in fresh.items()}
    assert changed_in_place(colliding.read_bytes(), restored.read_bytes(), values)
