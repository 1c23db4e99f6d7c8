"""Graphs with bodies: what an If, a Loop or a Scan captures from outside keeps meaning what it meant, and comes back.

Outputs are compared bit for bit on ONNX Runtime; no tolerance but for the sum of task loss and term, float32's own rounding.
"""

import collections
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import taps
from command import per_inject

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64

# Models of the wheels that hold bodies and a floating-point tensor in the main graph, by operator.
WITH_BODIES = {"If": 5, "Loop": 5, "Scan": 2, "SequenceMap": 2}


def operators_with_bodies(graph):
    found = collections.Counter()
    for node in graph.node:
        bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        found[node.op_type] += bool(bodies)
        for body in bodies:
            found += operators_with_bodies(body)
    return +found


def test_every_model_of_the_wheels_with_a_body_is_tapped_and_restored(corpus, tmp_path):
    found = collections.Counter()
    injected, back = tmp_path / "injected.onnx", tmp_path / "back.onnx"
    for path in corpus():
        tap = taps.choose(path)
        operators = tap and operators_with_bodies(tap.model.graph)
        if not operators:
            continue
        taps.inject(tap, injected, "--estimator", "exact")
        onnx.checker.check_model(onnx.load(injected), full_check=True)
        per_inject("strip", injected, "-o", back)
        assert back.read_bytes() == path.read_bytes(), path
        found.update(set(operators))
    assert found == WITH_BODIES


def value(name, dims=(), kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, list(dims))


def branch(name, nodes, output):
    return helper.make_graph(nodes, name, [], [value(output)])


def nested_if():
    """An If in an If, in both of whose bodies and in both of whose branches the loss is read."""
    deep = helper.make_node(
        "If",
        ["deep"],
        ["deep_out"],
        name="inner_if",
        then_branch=branch("deep_then", [helper.make_node("Mul", ["loss", "two"], ["doubled"])], "doubled"),
        else_branch=branch("deep_else", [helper.make_node("Sub", ["two", "loss"], ["rest"])], "rest"),
    )
    then = branch("then", [deep, helper.make_node("Add", ["deep_out", "loss"], ["then_out"])], "then_out")
    other = branch("else", [helper.make_node("Identity", ["loss"], ["else_out"])], "else_out")
    return [helper.make_node("If", ["outer"], ["watched"], name="outer_if", then_branch=then, else_branch=other)]


def loop():
    """Adds the loss to itself three times over."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum_in", "loss"], ["sum_out"]),
            helper.make_node("Identity", ["more_in"], ["more_out"]),
        ],
        "body",
        [value("i", kind=INT64), value("more_in", kind=BOOL), value("sum_in")],
        [value("more_out", kind=BOOL), value("sum_out")],
    )
    return [helper.make_node("Loop", ["three", "outer", "two"], ["watched"], name="loop", body=body)]


def scan():
    """Adds the loss to every element of a row of numbers."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state_in", "element"], ["state_out"]),
            helper.make_node("Add", ["element", "loss"], ["shifted"]),
        ],
        "body",
        [value("state_in"), value("element")],
        [value("state_out"), value("shifted")],
    )
    return [
        helper.make_node("Scan", ["two", "numbers"], ["last", "watched_rows"], name="scan", body=body, num_scan_inputs=1),
        helper.make_node("ReduceSum", ["watched_rows"], ["watched"], keepdims=0),
    ]


def one_if():
    """One branch reads the loss beside a value of its own, the other reads the loss alone."""
    then = branch(
        "then",
        [helper.make_node("Identity", ["two"], ["mine"]), helper.make_node("Add", ["mine", "loss"], ["then_out"])],
        "then_out",
    )
    other = branch("else", [helper.make_node("Neg", ["loss"], ["else_out"])], "else_out")
    return [helper.make_node("If", ["outer"], ["watched"], name="if", then_branch=then, else_branch=other)]


WATCHERS = {"nested If": nested_if, "Loop": loop, "Scan": scan, "If": one_if}


def build(watcher):
    """x·W → Relu → mean of squares = loss, with bodies that read the loss; what they make is the second output.

    It is brought to rank 2 and [2, 1], so that it cannot be taken for a loss.
    """
    random = np.random.default_rng(3)
    stored = [
        numpy_helper.from_array(random.normal(size=(4, 5)).astype(np.float32), "w"),
        numpy_helper.from_array(np.float32(2), "two"),
        numpy_helper.from_array(np.int64(3), "three"),
        numpy_helper.from_array(np.array([2, 1], np.int64), "shape"),
        numpy_helper.from_array(np.arange(3, dtype=np.float32), "numbers"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="fc"),
        helper.make_node("Relu", ["z"], ["h"], name="relu"),
        helper.make_node("Mul", ["h", "h"], ["squares"], name="square"),
        helper.make_node("ReduceMean", ["squares"], ["loss"], name="mean", keepdims=0),
        *watcher(),
        helper.make_node("Expand", ["watched", "shape"], ["seen"], name="expand"),
    ]
    inputs = [value("x", (3, 4)), value("outer", kind=BOOL), value("deep", kind=BOOL)]
    graph = helper.make_graph(nodes, "bodies", inputs, [value("loss"), value("seen", (2, 1))], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


FEEDS = [
    {"x": np.random.default_rng(4).normal(size=(3, 4)).astype(np.float32), "outer": np.array(o), "deep": np.array(d)}
    for o in (True, False)
    for d in (True, False)
]


@pytest.mark.parametrize("watcher", WATCHERS.values(), ids=WATCHERS)
@pytest.mark.parametrize("optimisation", ["all", "disabled"])
def test_a_body_that_reads_the_loss_goes_on_reading_the_task_loss(session, tmp_path, watcher, optimisation):
    original, injected, back = (tmp_path / f"{n}.onnx" for n in ["original", "injected", "back"])
    onnx.save(build(watcher), original)
    onnx.checker.check_model(onnx.load(original), full_check=True)
    per_inject(original, "--layers", "relu", "--coef", "0.5", "--estimator", "exact", "--outputs", "task,per", "-o", injected)
    onnx.checker.check_model(onnx.load(injected), full_check=True)
    before, after = session(original, optimisation), session(injected, optimisation)
    for feeds in FEEDS:
        loss, seen = before.run(None, feeds)
        total, still_seen, task, per = after.run(None, feeds)
        assert still_seen.tobytes() == seen.tobytes()
        assert task.tobytes() == loss.tobytes()
        assert total == pytest.approx(loss + 0.5 * per, rel=1e-6) and per > 0
    assert "byte for byte" in taps.said("strip", injected, "-o", back)
    assert back.read_bytes() == original.read_bytes()


def test_every_mention_of_the_loss_in_nested_bodies_is_renamed_and_named_back(tmp_path):
    injected = tmp_path / "injected.onnx"
    onnx.save(build(nested_if), tmp_path / "original.onnx")
    per_inject(tmp_path / "original.onnx", "--layers", "relu", "--coef", "0.5", "-o", injected)

    def mentions(graph, name):
        count = 0
        for node in graph.node:
            count += list(node.input).count(name)
            count += sum(mentions(a.g, name) for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
        return count

    graph = onnx.load(injected).graph
    assert mentions(build(nested_if).graph, "loss") == 4
    assert mentions(graph, "loss") == 0
    assert mentions(graph, "per_inject/task_loss") == 5  # the four, and the sum


def test_a_loss_that_a_body_turns_into_the_output_is_read_there_with_its_term(session, tmp_path):
    """The output is made in an If out of an inner loss: there the sum has to be read, and elsewhere the task loss."""
    model = build(one_if)
    del model.graph.output[:]
    scaled = branch("then", [helper.make_node("Mul", ["loss", "two"], ["t"])], "t")
    plain = branch("else", [helper.make_node("Identity", ["loss"], ["e"])], "e")
    model.graph.node.append(helper.make_node("If", ["deep"], ["final"], name="scale", then_branch=scaled, else_branch=plain))
    model.graph.output.extend([value("final"), value("seen", (2, 1))])
    original, injected, back = (tmp_path / f"{n}.onnx" for n in ["original", "injected", "back"])
    onnx.save(model, original)
    options = ["--layers", "relu", "--coef", "0.5", "--estimator", "exact", "--loss", "loss", "--outputs", "per"]
    per_inject(original, *options, "-o", injected)
    onnx.checker.check_model(onnx.load(injected), full_check=True)
    before, after = session(original), session(injected)
    for feeds in FEEDS:
        final, seen = before.run(None, feeds)
        total, still_seen, per = after.run(None, feeds)
        assert total == pytest.approx(final + 0.5 * per * (2 if feeds["deep"] else 1), rel=1e-6) and per > 0
        assert still_seen.tobytes() == seen.tobytes()
    per_inject("strip", injected, "-o", back)
    assert back.read_bytes() == original.read_bytes()


def test_a_tapped_value_that_bodies_capture_is_left_as_it_is(session, tmp_path):
    model = build(nested_if)
    reader = branch("then", [helper.make_node("ReduceSum", ["h"], ["t"], keepdims=0)], "t")
    other = branch("else", [helper.make_node("ReduceMax", ["h"], ["e"], keepdims=0)], "e")
    model.graph.node.append(helper.make_node("If", ["deep"], ["of_h"], name="reads_h", then_branch=reader, else_branch=other))
    model.graph.node.append(helper.make_node("Expand", ["of_h", "shape"], ["seen_h"]))
    model.graph.output.append(value("seen_h", (2, 1)))
    original, injected = tmp_path / "original.onnx", tmp_path / "injected.onnx"
    onnx.save(model, original)
    per_inject(original, "--layers", "relu", "--coef", "0.5", "-o", injected)
    for feeds in FEEDS:
        expected = session(original).run(["seen", "seen_h"], feeds)
        got = session(injected).run(["seen", "seen_h"], feeds)
        assert [g.tobytes() for g in got] == [e.tobytes() for e in expected]


def test_an_activation_inside_a_body_is_skipped_with_its_name_or_refused_when_strict(tmp_path):
    inner = [helper.make_node("Tanh", ["h"], ["t"], name="inner_tanh"), helper.make_node("Neg", ["t"], ["y"])]
    branches = {f"{way}_branch": branch(way, inner, "y") for way in ["then", "else"]}
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("If", ["c"], ["q"], name="choice", **branches),
        helper.make_node("ReduceMean", ["q"], ["loss"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", [2, 3]), value("c", kind=BOOL)], [value("loss")])
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    for layers in ["all", "relu,tanh"]:
        arguments = [path, "--layers", layers, "--loss", "loss", "--coef", "1e-5"]
        report = json.loads(per_inject(*arguments, "--json", "-o", out).stdout)
        assert [layer["op"] for layer in report["layers"]] == ["Relu"]
        assert [skipped["what"] for skipped in report["skipped"]] == ['"inner_tanh" (Tanh)'] * 2
        assert 'inside the then_branch of "choice" (If)' in report["skipped"][1]["reason"]
        strict = per_inject(*arguments, "--strict", "-o", tmp_path / "none.onnx", check=False)
        assert strict.returncode == 1 and "inner_tanh" in strict.stderr and not (tmp_path / "none.onnx").exists()
    for layers in ["relu", "all,!tanh", "all,#1"]:
        per_inject(path, "--layers", layers, "--loss", "loss", "--coef", "1e-5", "--strict", "-o", out)
    assert "matches nothing" in per_inject(path, "--layers", "tanh", "--as-output", "-o", out, check=False).stderr
