"""Which loss the term is added to, who reads the sum and who the task loss, and names that get in the way."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, reference

import closed_form
import nets

RANDOM = np.random.default_rng(8)
X = RANDOM.standard_normal((4, 6)).astype(np.float32)
W1 = RANDOM.standard_normal((6, 8)).astype(np.float32)
W2 = RANDOM.standard_normal((8, 5)).astype(np.float32)

# Float32, a sum of two or three numbers.
TOLERANCE = 1e-6


def net(tail, outputs, names=("/relu1", "/relu2"), elem=nets.FLOAT, values=("h1", "h2"), weights=("w1", "w2"), opset=17):
    """Two layers, and `tail` from the second activation on. `outputs` are (name, type, dims)."""
    first, second = values
    nodes = [
        helper.make_node("MatMul", ["x", weights[0]], ["z1"]),
        helper.make_node("Relu", ["z1"], [first], name=names[0]),
        helper.make_node("MatMul", [first, weights[1]], ["z2"]),
        helper.make_node("Relu", ["z2"], [second], name=names[1]),
        *tail,
    ]
    dtype = helper.tensor_dtype_to_np_dtype(elem)
    held = {weights[0]: W1.astype(dtype), weights[1]: W2.astype(dtype)}
    return nets.model(nodes, [("x", elem, [4, 6])], outputs, held, opset)


def mean(source, target, **attributes):
    return helper.make_node("ReduceMean", [source], [target], **({"keepdims": 0} | attributes))


def scalar(name, elem=nets.FLOAT):
    return (name, elem, [])


def plain(**options):
    return net([mean(options.get("values", ("h1", "h2"))[1], "loss")], [scalar("loss", options.get("elem", nets.FLOAT))], **options)


def exact(inject, model, *arguments, coef=0.1, check=True):
    return inject(model, "--layers", "relu", "--estimator", "exact", "--coef", coef, *arguments, check=check)


def run(session, model, x=X, **more):
    made = session(getattr(model, "data", model))
    names = [output.name for output in made.get_outputs()]
    return dict(zip(names, made.run(names, {"x": x, **more})))


class Evaluator(reference.ReferenceEvaluator):
    """ONNX's own evaluator in the clothes of a session."""

    def get_outputs(self):
        return self.proto_.graph.output


def term(x=X):
    """Σ PER of both layers."""
    h1 = np.maximum(x.astype(np.float64) @ W1, 0)
    h2 = np.maximum(h1 @ W2, 0)
    return np.array([closed_form.per(h1).mean(), closed_form.per(h2).mean()])


def refused(per_inject, tmp_path, model, *arguments):
    onnx.save(model, tmp_path / "model.onnx")
    result = per_inject(
        tmp_path / "model.onnx", "--layers", "relu", "--coef", 0.1, *arguments, "-o", tmp_path / "out.onnx", check=False
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert not (tmp_path / "out.onnx").exists()
    return re.sub(r"\s*\n\s*│?\s*", " ", result.stderr)


def same(before, after, *outputs):
    for output in outputs:
        assert before[output].tobytes() == after[output].tobytes(), output


def test_the_task_loss_of_unknown_rank_is_an_output_of_rank_0(inject, session):
    # Not even the rank of a Reshape to a run-time shape is known, and an output without one is none.
    tail = [
        mean("h2", "m"),
        helper.make_node("Reshape", ["m", "shape"], ["inner"]),
        helper.make_node("ReduceSum", ["inner"], ["total"], keepdims=0),
    ]
    model = net(tail, [scalar("total")])
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, ["rank"]))
    injected = exact(inject, model, "--loss", "inner", "--outputs", "task,per,layers")
    assert injected.report["outputs"][0] == "per_inject/task_loss_scalar"
    for shape in [[], [1], [1, 1]]:
        feeds = {"shape": np.array(shape, np.int64)}
        before, after = run(session, model, **feeds), run(session, injected, **feeds)
        assert after["per_inject/task_loss_scalar"].tobytes() == before["total"].tobytes()
        assert float(after["total"]) == pytest.approx(float(before["total"]) + 0.1 * term().sum(), rel=TOLERANCE)
        assert float(after["per_inject/per"]) == pytest.approx(term().sum(), rel=TOLERANCE)


@pytest.mark.parametrize("value", [1e-50, 1e40])
def test_a_coefficient_that_float32_loses_is_refused_where_the_term_is_float32_only(inject, per_inject, tmp_path, value):
    double = exact(inject, plain(elem=nets.DOUBLE), "--any-coef", coef=value).model
    [stored] = [numpy_helper.to_array(t) for t in double.graph.initializer if t.name == "per_inject/coef"]
    assert stored.dtype == np.float64 and stored == value
    message = refused(per_inject, tmp_path, plain(), "--coef", value, "--any-coef")
    assert f"is {'inf' if value > 1 else '0'} in float32" in message


def test_slices_of_a_float64_layer_count_twice(inject):
    single, double = (inject(plain(elem=e), "--layers", "relu", "--coef", 0.1, check=False) for e in [nets.FLOAT, nets.DOUBLE])
    for a, b in zip(single.report["layers"], double.report["layers"]):
        d, rows = a["d"], 4
        assert a["cost"]["bytes"] == 4 * 256 * (d + rows) and b["cost"]["bytes"] == 8 * 256 * (d + rows)


def test_a_sequence_is_no_layer_behind_identity_or_if_either(per_inject, tmp_path):
    sequence = helper.make_tensor_sequence_value_info("q", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("SequenceConstruct", ["h1", "h2"], ["q"])], "branch", [], [sequence])
    tail = [
        mean("h2", "loss"),
        helper.make_node("SequenceConstruct", ["h1", "h2"], ["s"]),
        helper.make_node("Identity", ["s"], ["i"], name="copy"),
        helper.make_node("If", ["c"], ["b"], then_branch=branch, else_branch=branch),
        helper.make_node("SequenceAt", ["i", "zero"], ["first"]),
        helper.make_node("SequenceAt", ["b", "zero"], ["second"]),
    ]
    model = net(tail, [scalar("loss")])
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "zero"))
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    for chosen, name in [("tensor:i", "i"), ("op:Identity", "i"), ("tensor:b", "b"), ("op:If", "b")]:
        onnx.save(model, tmp_path / "model.onnx")
        result = per_inject(tmp_path / "model.onnx", "--layers", chosen, "--as-output", "--dry-run", check=False)
        assert result.returncode == 1 and f'"{name}" is no tensor' in result.stderr


def test_what_is_computed_from_the_loss_keeps_the_task_loss(inject, session):
    tail = [mean("h2", "loss"), helper.make_node("Exp", ["loss"], ["perplexity"]), helper.make_node("Mul", ["loss", "h2"], ["scaled"])]
    model = net(tail, [scalar("loss"), scalar("perplexity"), ("scaled", nets.FLOAT, [4, 5])])
    before = run(session, model)
    # Perplexity is a scalar that depends on weights: a loss as good as the first.
    after = run(session, exact(inject, model, "--loss", "loss", "--outputs", "task"))
    same(before, after, "perplexity", "scaled")
    assert before["loss"].tobytes() == after["per_inject/task_loss"].tobytes()
    assert float(after["loss"]) == pytest.approx(float(before["loss"]) + 0.1 * term().sum(), rel=TOLERANCE)


@pytest.mark.parametrize("op", ["If", "Loop"])
def test_bodies_that_capture_the_loss_keep_the_task_loss(inject, session, op):
    out = helper.make_tensor_value_info("captured", TensorProto.FLOAT, [])
    capture = helper.make_node("Mul", ["loss", "two"], ["captured"])
    if op == "If":
        branch = helper.make_graph([capture], "branch", [], [out])
        # A body in a body.
        inner = helper.make_node("If", ["yes"], ["captured"], then_branch=branch, else_branch=branch)
        outer = helper.make_graph([inner], "outer", [], [out])
        nodes = [helper.make_node("If", ["yes"], ["report"], then_branch=outer, else_branch=outer)]
    else:
        body_inputs = [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, [])]
        body_outputs = [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), out]
        body = helper.make_graph([helper.make_node("Identity", ["go"], ["go_on"]), capture], "body", body_inputs, body_outputs)
        nodes = [helper.make_node("Loop", ["trips", "yes"], ["reports"], body=body), mean("reports", "report")]
    model = net([mean("h2", "loss"), *nodes], [scalar("loss"), scalar("report")])
    model.graph.initializer.extend([
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.float32(2), "two"),
        numpy_helper.from_array(np.array(3), "trips"),
    ])  # fmt: skip
    before = run(session, model)
    after = run(session, exact(inject, model, "--loss", "loss"))
    same(before, after, "report")
    assert float(after["loss"]) == pytest.approx(float(before["loss"]) + 0.1 * term().sum(), rel=TOLERANCE)


def test_an_inner_loss_reaches_the_output_and_spares_what_goes_elsewhere(inject, session):
    tail = [
        mean("h2", "ce"),
        helper.make_node("Mul", ["ce", "scale"], ["loss"]),
        helper.make_node("Mul", ["ce", "h1"], ["shown"]),
    ]
    model = net(tail, [scalar("loss"), ("shown", nets.FLOAT, [4, 8])])
    model.graph.initializer.append(numpy_helper.from_array(np.float32(128), "scale"))
    before = run(session, model)
    after = run(session, exact(inject, model, "--loss", "ce", "--outputs", "task,per"))
    same(before, after, "shown")
    # As if the person had added the term before the loss was scaled.
    assert float(after["loss"]) == pytest.approx(float(before["loss"]) + 128 * 0.1 * term().sum(), rel=TOLERANCE)
    assert float(after["per_inject/per"]) == pytest.approx(term().sum(), rel=TOLERANCE)


def test_a_layer_that_the_inner_loss_does_not_see_is_left_out_and_named(inject, session, per_inject, tmp_path):
    tail = [mean("h1", "ce"), mean("h2", "other"), helper.make_node("Add", ["ce", "other"], ["loss"])]
    model = net(tail, [scalar("loss")])
    injected = exact(inject, model, "--loss", "ce", "--outputs", "task")
    assert [layer["tensor"] for layer in injected.report["layers"]] == ["h1"]
    [skipped] = injected.report["skipped"]
    assert "/relu2" in skipped["what"] and "no gradient path" in skipped["reason"]
    before, after = run(session, model), run(session, injected)
    assert float(after["loss"]) == pytest.approx(float(before["loss"]) + 0.1 * term()[0], rel=TOLERANCE)
    assert "/relu2" in refused(per_inject, tmp_path, model, "--loss", "ce", "--strict")


def test_a_loss_that_leads_nowhere_and_a_loss_that_is_no_number_are_refused(per_inject, tmp_path):
    tail = [mean("h2", "loss"), helper.make_node("Mul", ["loss", "h2"], ["scaled"]), mean("h1", "idle")]
    model = net(tail, [scalar("loss"), ("scaled", nets.FLOAT, [4, 5])])
    assert "no scalar output" in refused(per_inject, tmp_path, model, "--loss", "idle")
    assert "cannot be the loss" in refused(per_inject, tmp_path, model, "--loss", "h2")
    assert "cannot be the loss" in refused(per_inject, tmp_path, model, "--loss", "w1")
    assert 'did you mean "loss"' in refused(per_inject, tmp_path, model, "--loss", "los")


def test_two_outputs_that_could_be_the_loss_are_listed_and_none_is_guessed(inject, session, per_inject, tmp_path):
    model = net([mean("h2", "ce"), mean("h1", "aux"), helper.make_node("Add", ["ce", "aux"], ["sum"])], [scalar("ce"), scalar("sum")])
    message = refused(per_inject, tmp_path, model)
    assert '"ce"' in message and '"sum"' in message and "--loss NAME" in message
    before, after = run(session, model), run(session, exact(inject, model, "--loss", "sum"))
    same(before, after, "ce")
    assert float(after["sum"]) == pytest.approx(float(before["sum"]) + 0.1 * term().sum(), rel=TOLERANCE)


@pytest.mark.parametrize("dims", [[1], [1, 1]])
def test_a_loss_of_one_element_keeps_its_shape(inject, session, dims):
    tail = [mean("h2", "m", keepdims=1), helper.make_node("Reshape", ["m", "shape"], ["loss"])]
    model = net(tail, [("loss", nets.FLOAT, dims)])
    model.graph.initializer.append(numpy_helper.from_array(np.array(dims), "shape"))
    before, after = run(session, model), run(session, exact(inject, model))
    assert after["loss"].shape == before["loss"].shape == tuple(dims)
    assert after["loss"].item() == pytest.approx(before["loss"].item() + 0.1 * term().sum(), rel=TOLERANCE)


@pytest.mark.parametrize("elem, tolerance", [(nets.DOUBLE, TOLERANCE), (nets.FLOAT16, 2**-10)])
def test_a_loss_in_another_precision_than_the_layers_keeps_it(inject, session, elem, tolerance):
    tail = [mean("h2", "m"), helper.make_node("Cast", ["m"], ["loss"], to=elem)]
    model = net(tail, [scalar("loss", elem)])
    before = run(session, model)
    after = run(session, exact(inject, model, "--outputs", "task,per"))
    assert after["loss"].dtype == before["loss"].dtype
    assert after["per_inject/task_loss"].tobytes() == before["loss"].tobytes()
    assert float(after["loss"]) == pytest.approx(float(before["loss"]) + 0.1 * term().sum(), rel=tolerance)


@pytest.mark.parametrize("declared", [True, False])
def test_a_loss_from_an_operator_that_nobody_knows_is_taken_by_its_name(inject, declared):
    tail = [helper.make_node("Mystery", ["h2"], ["loss"], domain="my.own")]
    model = net(tail, [scalar("loss")])
    model.opset_import.append(helper.make_opsetid("my.own", 1))
    if not declared:
        model.graph.output[0].ClearField("type")
    injected = exact(inject, model, check=declared).model
    [total] = [node for node in injected.graph.node if "loss" in node.output]
    assert (total.op_type, list(total.input)[0]) == ("Add", "per_inject/task_loss")
    assert [node.op_type for node in injected.graph.node if "per_inject/task_loss" in node.output] == ["Mystery"]


def test_a_coefficient_of_its_own_for_some_layers(inject, session):
    injected = exact(inject, plain(), "--coef", "name:*relu2=0.5", "--outputs", "task")
    after = run(session, injected)
    assert [layer["coef"] for layer in injected.report["layers"]] == [0.1, 0.5]
    expected = float(after["per_inject/task_loss"]) + np.array([0.1, 0.5]) @ term()
    assert float(after["loss"]) == pytest.approx(expected, rel=TOLERANCE)


def test_coefficients_for_every_layer_the_last_match_counting(inject, session):
    injected = exact(inject, plain(), "--coef", "relu=0.25", "--coef", "tensor:h1=2", "--outputs", "task", coef=0.75)
    after = run(session, injected)
    expected = float(after["per_inject/task_loss"]) + np.array([2, 0.25]) @ term()
    assert float(after["loss"]) == pytest.approx(expected, rel=TOLERANCE)


def test_a_number_that_no_gradient_gets_through_to_is_no_loss_and_the_refusal_says_why(per_inject, tmp_path):
    tail = [helper.make_node("Round", ["h2"], ["r"]), mean("r", "loss")]
    message = refused(per_inject, tmp_path, net(tail, [scalar("loss")]))
    assert '"loss" is float[], but no gradient gets from it to a weight' in message


def test_a_coefficient_for_no_chosen_layer_is_refused(per_inject, tmp_path):
    assert "name:fc*" in refused(per_inject, tmp_path, plain(), "--coef", "name:fc*=0.5")


def test_the_coefficient_can_be_an_input_with_its_value_for_default(inject, session):
    injected = exact(inject, plain(), "--coef-input", "--coef", "name:/relu2=0.5", "--outputs", "task")
    assert injected.report["inputs"] == ["per_inject/coef", "per_inject/coef_1"]
    default = run(session, injected)
    task = float(default["per_inject/task_loss"])
    assert float(default["loss"]) == pytest.approx(task + np.array([0.1, 0.5]) @ term(), rel=TOLERANCE)
    for coefficients in [(0, 0), (1, 0), (0, 1), (3, 7)]:
        fed = {"per_inject/coef": np.float32(coefficients[0]), "per_inject/coef_1": np.float32(coefficients[1])}
        got = run(session, injected, **{name: np.array(value) for name, value in fed.items()})
        assert float(got["loss"]) == pytest.approx(task + np.array(coefficients) @ term(), rel=TOLERANCE)


def test_a_pipeline_can_change_the_coefficient_in_its_one_initializer(inject, session):
    injected = exact(inject, plain(), "--outputs", "task")
    model = injected.model
    [coefficient] = [tensor for tensor in model.graph.initializer if tensor.name == "per_inject/coef"]
    coefficient.CopyFrom(numpy_helper.from_array(np.float32(0.7), coefficient.name))
    after = run(session, model)
    assert float(after["loss"]) == pytest.approx(float(after["per_inject/task_loss"]) + 0.7 * term().sum(), rel=TOLERANCE)


@pytest.mark.parametrize("elem", [nets.FLOAT, nets.DOUBLE, nets.FLOAT16])
@pytest.mark.parametrize("estimator", ["exact", "sampled"])
def test_a_coefficient_of_zero_leaves_the_loss_as_it_was_bit_for_bit(inject, session, elem, estimator):
    model = plain(elem=elem)
    x = X.astype(helper.tensor_dtype_to_np_dtype(elem))
    before = run(session, model, x)
    same(before, run(session, inject(model, "--layers", "relu", "--estimator", estimator, "--coef", 0), x), "loss")


def test_without_a_loss_the_term_is_an_output_of_its_own(inject, session):
    model = net([helper.make_node("Softmax", ["h2"], ["p"])], [("p", nets.FLOAT, [4, 5])])
    before = run(session, model)
    for arguments, coef in [([], 1), (["--coef", 0.3], 0.3)]:
        injected = inject(model, "--layers", "relu", "--estimator", "exact", "--as-output", *arguments)
        after = run(session, injected)
        assert list(after) == ["p", "per_loss"]
        same(before, after, "p")
        assert float(after["per_loss"]) == pytest.approx(coef * term().sum(), rel=TOLERANCE)


def test_a_name_that_the_graph_has_already_gets_a_number(inject, session):
    model = net([mean("h2", "per_loss"), mean("h1", "per_loss_2")], [scalar("per_loss"), scalar("per_loss_2")])
    before = run(session, model)
    injected = inject(model, "--layers", "relu", "--estimator", "exact", "--as-output")
    after = run(session, injected)
    assert list(after) == ["per_loss", "per_loss_2", "per_loss_3"]
    same(before, after, "per_loss", "per_loss_2")
    assert float(after["per_loss_3"]) == pytest.approx(term().sum(), rel=TOLERANCE)


@pytest.mark.parametrize(
    "names, values, weights",
    [
        (("per_inject/relu1/square", "per_inject/coef"), ("h1", "h2"), ("w1", "w2")),
        (("a", "b"), ("per_inject/task_loss", "per_inject/const/one"), ("w1", "w2")),
        (("a", "b"), ("h1", "h2"), ("per_inject/coef", "per_inject/2/coef")),
        (("a", "b"), ("per_inject/total", "per_inject/7/x"), ("w1", "per_inject/")),
    ],
)
def test_names_of_the_model_that_look_like_ours_collide_with_none(inject, session, names, values, weights):
    model = plain(names=names, values=values, weights=weights)
    before = run(session, model)
    injected = exact(inject, model, "--outputs", "task,per,layers").model
    after = run(session, injected)
    [task] = [name for name in after if name.endswith("task_loss")]
    assert before["loss"].tobytes() == after[task].tobytes()
    assert float(after["loss"]) == pytest.approx(float(before["loss"]) + 0.1 * term().sum(), rel=TOLERANCE)
    made = [output for node in injected.graph.node for output in node.output] + [tensor.name for tensor in injected.graph.initializer]
    assert len(made) == len(set(made))
    nodes = [node.name for node in injected.graph.node if node.name]
    assert len(nodes) == len(set(nodes))


@pytest.mark.parametrize(
    "names",
    [("", ""), ("same", "same"), ("/", "//"), ("const", "const/one"), ("2", "3/x"), ("coef", "task_loss"), ("per", "term"),
     ("a b\tc\n", "Ünï·ço∂é/层/🙂"), ("x" * 500, "x" * 501), ("../..", "*?[a]"), ("a/per", "a"), ("sum", "weighted")],
    ids=repr,
)  # fmt: skip
def test_whatever_the_nodes_are_called(inject, session, per_inject, tmp_path, names):
    model = plain(names=names)
    if len(set(names)) == 1 and names[0]:
        # ONNX Runtime refuses nodes of equal names, which ONNX allows: its evaluator runs them.
        def session(injected):
            return Evaluator(onnx.load_from_string(injected) if isinstance(injected, bytes) else injected)
    before = run(session, model)
    injected = exact(inject, model, "--outputs", "task,per,layers", "--coef", "tensor:h2=0.2")
    after = run(session, injected)
    assert float(after["loss"]) == pytest.approx(float(before["loss"]) + np.array([0.1, 0.2]) @ term(), rel=TOLERANCE)
    for layer, expected in zip(injected.layers, term()):
        assert float(after[layer]) == pytest.approx(expected, rel=TOLERANCE)
    values = [output for node in injected.model.graph.node for output in node.output]
    assert len(values) == len(set(values))
    (tmp_path / "injected.onnx").write_bytes(injected.data)
    per_inject("strip", tmp_path / "injected.onnx", "-o", tmp_path / "stripped.onnx")
    assert (tmp_path / "stripped.onnx").read_bytes() == model.SerializeToString()


def test_names_of_values_may_be_anything_as_well(inject, session):
    model = plain(values=("层 1\t", "🙂/Ünï"), weights=("w/ö", "per_loss"))
    before = run(session, model)
    after = run(session, inject(model, "--layers", "tensor:🙂/Ünï", "--estimator", "exact", "--coef", 0.1))
    assert float(after["loss"]) == pytest.approx(float(before["loss"]) + 0.1 * term()[1], rel=TOLERANCE)
