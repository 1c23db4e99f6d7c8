"""Losses in `training_info`: the term joins what the Gradient node differentiates, and not a byte of anything else changes.

The tests join the main graph and an algorithm by themselves, as the specification says it: both lists of nodes one behind the other, and
a GraphCall is the main graph's nodes once more.
"""

import pathlib

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import closed_form
import models
import nets
import taps
import wirefmt

FOLDER = models.MODELS / "training_info"
NAMES = ["joined_adam", "called_momentum", "repeated_adagrad", "two_entries"]
# The activation that each entry trains, and what feeds it.
TAPPED = {
    ("joined_adam", 0): "h",
    ("called_momentum", 0): "called/h",
    ("repeated_adagrad", 0): "train/h",
    ("two_entries", 0): "h",
    ("two_entries", 1): "other/h",
}
COEF = 0.5
RANDOM = np.random.default_rng(4)
WEIGHTS = ["w1", "b1", "w2"]


def load(name):
    return onnx.load(FOLDER / f"{name}.onnx")


def gradient_of(algorithm):
    [node] = [node for node in algorithm.node if node.op_type == "Gradient"]
    return node


def attribute(node, name):
    [found] = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found


def joined(model, entry):
    """The forward part of a training step, with what the Gradient node differentiates as its first output."""
    main, algorithm = model.graph, model.training_info[entry].algorithm
    nodes = [*main.node]
    for node in algorithm.node:
        if node.op_type != "GraphCall":
            nodes.append(node)
            continue
        names = dict(zip([v.name for v in main.input], node.input)) | dict(zip([v.name for v in main.output], node.output))
        for inner in main.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(inner)
            made = {name for other in main.node for name in other.output}
            rename = lambda name: names.get(name, f"called/{name}" if name in made else name)  # noqa: E731
            copy.input[:], copy.output[:] = map(rename, inner.input), map(rename, inner.output)
            nodes.append(copy)
    y = attribute(gradient_of(algorithm), "y").decode()
    wanted, used = [y], []
    while wanted:
        name = wanted.pop()
        for node in nodes:
            if name in node.output and node not in used:
                used.append(node)
                wanted.extend(node.input)
    tensors = {t.name: t for t in [*main.initializer, *algorithm.initializer]}
    read = {name for node in used for name in node.input}
    inputs = {v.name: v for v in [*main.input, *algorithm.input] if v.name in read and v.name not in tensors}
    graph = helper.make_graph(
        [node for node in nodes if node in used],
        "step",
        list(inputs.values()),
        [helper.make_tensor_value_info(y, nets.FLOAT, [])],
        [tensor for name, tensor in tensors.items() if name in read],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    # Before PER is there the nodes stand in order; what joins them has to be as well.
    onnx.checker.check_model(made, full_check=True)
    return made


def feeds(forward):
    shapes = {v.name: [d.dim_value or 6 for d in v.type.tensor_type.shape.dim] for v in forward.graph.input}
    return {name: RANDOM.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def run(session, forward, inputs, *more):
    model = onnx.ModelProto.FromString(forward.SerializeToString())
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(helper.make_tensor_value_info(n, nets.FLOAT, None if n != "x" else []) for n in more if n not in known)
    return session(model).run(None, inputs)


def options(estimator="exact"):
    return ["--layers", "relu", "--coef", COEF, "--estimator", estimator]


@pytest.mark.parametrize("name, entry", TAPPED)
def test_what_is_differentiated_is_the_task_loss_and_the_term(inject, session, name, entry):
    original, injected = load(name), inject(FOLDER / f"{name}.onnx", *options(), check=False)
    assert injected.report["form"] == "training_info"
    before, after = joined(original, entry), joined(injected.model, entry)
    inputs = feeds(before)
    task, h = run(session, before, inputs, TAPPED[name, entry])
    [total] = run(session, after, inputs)
    expected = task + COEF * closed_form.per(h.astype(np.float64)).mean()
    assert total == pytest.approx(expected, rel=1e-6)
    assert abs(total - task) > 0.1


@pytest.mark.parametrize("name, entry", TAPPED)
def test_its_gradients_are_those_of_the_loss_form(inject, gradients, name, entry):
    original, injected = load(name), inject(FOLDER / f"{name}.onnx", *options(), check=False).model
    before, after = joined(original, entry), joined(injected, entry)
    inputs = feeds(before)
    got = gradients(after, inputs, WEIGHTS)
    loss_form = inject(before, *options(), "--loss", before.graph.output[0].name)
    assert loss_form.report["form"] == "loss"
    expected = gradients(loss_form.data, inputs, WEIGHTS)
    plain = gradients(before, inputs, WEIGHTS)
    for weight in WEIGHTS:
        scale = np.abs(expected.gradients[weight]).max()
        assert np.abs(got.gradients[weight] - expected.gradients[weight]).max() <= 1e-6 * scale
    assert np.abs(plain.gradients["w1"] - expected.gradients["w1"]).max() > 1e-2 * np.abs(expected.gradients["w1"]).max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("estimator", ["exact", "sampled"])
def test_nothing_else_changes_and_strip_gives_back_every_byte(inject, per_inject, tmp_path, name, estimator):
    path = FOLDER / f"{name}.onnx"
    original, injected = load(name), inject(path, *options(estimator), "--outputs", "task,per,layers", check=False)
    model = injected.model
    assert model.graph.SerializeToString() == original.graph.SerializeToString()
    for was, now in zip(original.training_info, model.training_info, strict=True):
        for part in ["initialization", "initialization_binding", "update_binding"]:
            assert getattr(was, part) == getattr(now, part)
        assert list(now.algorithm.input) == list(was.algorithm.input)
        kept = [node for node in now.algorithm.node if not node.name.startswith("per_inject/")]
        assert len(kept) == len(was.algorithm.node)
        # The Gradient node and the optimizer are what they were; the loss's maker has one output renamed.
        changed = [(a, b) for a, b in zip(was.algorithm.node, kept) if a != b]
        assert len(changed) == 1 and list(changed[0][1].output) == ["per_inject/task_loss"]
        assert gradient_of(now.algorithm) == gradient_of(was.algorithm)
        order = [node.name for node in now.algorithm.node]
        assert order.index("per_inject/total") < order.index(gradient_of(now.algorithm).name)
        names = {output.name for output in now.algorithm.output} - {output.name for output in was.algorithm.output}
        assert {"per_inject/task_loss", "per_inject/per"} < names
    twice = inject(injected.data, *options(), check=False)
    (tmp_path / "twice.onnx").write_bytes(twice.data)
    per_inject("strip", tmp_path / "twice.onnx", "-o", tmp_path / "once.onnx")
    assert (tmp_path / "once.onnx").read_bytes() == injected.data
    said = per_inject("strip", "--all", tmp_path / "twice.onnx", "-o", tmp_path / "none.onnx").stdout
    assert (tmp_path / "none.onnx").read_bytes() == path.read_bytes(), said
    assert "byte for byte" in said


@pytest.mark.parametrize("name", NAMES)
def test_unknown_fields_and_odd_lengths_of_the_algorithm_survive(inject, per_inject, tmp_path, name):
    def odd_graph(algorithm):
        return wirefmt.padded(algorithm, [1, 5, 11, 12], padding=1) + wirefmt.encode(wirefmt.unknown(3))

    def odd_entry(info):
        return wirefmt.padded(wirefmt.replace(info, 2, odd_graph), [2], padding=2) + wirefmt.encode(wirefmt.unknown(1))

    data = wirefmt.padded(wirefmt.replace((FOLDER / f"{name}.onnx").read_bytes(), 20, odd_entry), [20], padding=1)
    injected = inject(data, *options(), check=False)
    assert injected.report["form"] == "training_info"
    (tmp_path / "injected.onnx").write_bytes(injected.data)
    per_inject("strip", tmp_path / "injected.onnx", "-o", tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == data


def test_a_second_injection_adds_up(inject, session):
    path = FOLDER / "called_momentum.onnx"
    once = inject(path, *options(), check=False)
    twice = inject(once.data, *options(), check=False)
    forwards = [joined(model, 0) for model in [load("called_momentum"), once.model, twice.model]]
    inputs = feeds(forwards[0])
    task, one, two = (run(session, forward, inputs)[0] for forward in forwards)
    assert two - one == pytest.approx(one - task, rel=1e-5) and one > task


def test_layers_are_chosen_by_the_names_of_the_main_graph_also_inside_a_call(inject):
    for name, tensor in [("called_momentum", "h"), ("joined_adam", "z"), ("repeated_adagrad", "train/z")]:
        injected = inject(FOLDER / f"{name}.onnx", "--layers", f"tensor:{tensor}", "--coef", 1, "--estimator", "exact", check=False)
        assert [layer["tensor"] for layer in injected.report["layers"]] == [tensor]
        assert injected.report["layers"][0]["training_info"] == 0
    injected = inject(FOLDER / "called_momentum.onnx", *options(), check=False).model
    made = [o for node in injected.training_info[0].algorithm.node for o in node.output]
    assert {"per_inject/call_1/a", "per_inject/call_1/z", "per_inject/call_1/h"} < set(made) and len(set(made)) == len(made)


def test_an_entry_without_the_layer_is_left_as_it_is_with_a_warning_and_strict_refuses(inject, per_inject):
    path = FOLDER / "two_entries.onnx"
    injected = inject(path, "--layers", "tensor:other/h", "--coef", 1, "--estimator", "exact", check=False)
    assert [layer["training_info"] for layer in injected.report["layers"]] == [1]
    assert any("training_info 0 is left as it is" in warning for warning in injected.report["warnings"])
    assert injected.model.training_info[0] == load("two_entries").training_info[0]
    run = per_inject(path, "--layers", "tensor:other/h", "--coef", 1, "--strict", "--dry-run", check=False)
    assert "tensor:other/h" in taps.refusal(run)


def test_the_report_names_the_loss_of_every_algorithm_and_counts_no_nodes_of_the_main_graph_before(per_inject, inject):
    path = FOLDER / "two_entries.onnx"
    losses = inject(path, *options("exact"), check=False).report["losses"]
    assert [(loss["training_info"], loss["name"], loss["task"]) for loss in losses] == [
        (0, "loss_0", "per_inject/task_loss"),
        (1, "loss_1", "per_inject/task_loss"),
    ]
    told = per_inject(path, *options("exact"), "--dry-run").stdout
    assert 'training_info 1: loss "loss_1" = task loss' in told
    [nodes] = [line.split() for line in told.splitlines() if line.startswith("nodes")]
    assert nodes == ["nodes", "+58"]


def test_the_coefficient_and_seeds_stand_in_each_algorithm(inject):
    model = inject(FOLDER / "two_entries.onnx", *options("sampled"), "--seed", 1, check=False).model
    seeds = []
    for info in model.training_info:
        held = {tensor.name: tensor for tensor in info.algorithm.initializer}
        assert numpy_helper.to_array(held["per_inject/coef"]) == np.float32(COEF)
        seeds += [a.f for node in info.algorithm.node if node.op_type == "RandomNormal" for a in node.attribute if a.name == "seed"]
    assert len(set(seeds)) == len(seeds) == 2


def test_refusals_say_what_is_missing(per_inject, tmp_path):
    model = load("joined_adam")
    without = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = [node for node in without.training_info[0].algorithm.node if node.op_type != "Gradient" and node.domain == ""]
    del without.training_info[0].algorithm.node[:]
    without.training_info[0].algorithm.node.extend(nodes)
    del without.training_info[0].algorithm.output[1:]
    onnx.save(without, tmp_path / "without.onnx")
    inside = onnx.ModelProto.FromString(model.SerializeToString())
    inside.graph.node.append(helper.make_node("ReduceMean", ["logits"], ["mean"], keepdims=0))
    [y] = [a for a in gradient_of(inside.training_info[0].algorithm).attribute if a.name == "y"]
    y.s = b"mean"
    onnx.save(inside, tmp_path / "inside.onnx")
    for file, arguments, words in [
        (tmp_path / "without.onnx", [], "none of them says what its loss is by a Gradient node"),
        (tmp_path / "inside.onnx", [], "its loss \"mean\" is computed by the main graph"),
        (FOLDER / "joined_adam.onnx", ["--form", "gradient"], "computes no gradients (training_info)"),
        (FOLDER / "joined_adam.onnx", ["--loss-term"], "--loss-term is for graphs that hold their backward pass"),
        (FOLDER / "joined_adam.onnx", ["--loss", "los"], "names no value of the graph"),
    ]:
        assert words in taps.refusal(per_inject(file, *options(), *arguments, "--dry-run", check=False)), arguments


def test_inspect_names_the_losses(per_inject):
    said = taps.said("inspect", FOLDER / "two_entries.onnx")
    assert 'the loss of training_info 0 is "loss_0"' in said and 'the loss of training_info 1 is "loss_1"' in said


def test_the_models_are_what_their_script_makes():
    import importlib.util

    spec = importlib.util.spec_from_file_location("make", FOLDER / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    for name in NAMES:
        assert getattr(make, name)().SerializeToString(deterministic=True) == load(name).SerializeToString(deterministic=True)


def test_a_gradient_node_of_the_main_graph_differentiates_the_sum(inject):
    path = pathlib.Path(onnx.__file__).parent / "backend/test/data/simple/test_gradient_of_add_and_mul/model.onnx"
    injected = inject(path, "--layers", "op:Add", "--coef", 1, "--estimator", "exact", check=False)
    assert injected.report["losses"] == [{"training_info": None, "name": "d", "task": "per_inject/task_loss"}]
    names = [node.name for node in injected.model.graph.node]
    assert names.index("per_inject/total") < names.index("my_gradient")
