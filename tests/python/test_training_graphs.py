"""`training_model.onnx` of ONNX Runtime: the gradient form trains as the loss form does, on every graph that it can differentiate.

The plain forward graph goes through `generate_artifacts` and PER into the result; or PER into the forward graph, and that through
`generate_artifacts`. Both ways every parameter gets the same gradient.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
import nets
import ort

# Float32: the term's own gradient is right to 1e-6, and the layers below sum it in the same order.
TOLERANCE = 1e-5

# A coefficient with which the term is no small part of the gradients.
REFERENCES = {"bn_resnet8.ts17": ("relu", 1.0), "fixup_resnet20.dyn": ("relu", 0.1), "seq_lstm_lm.ts17": ("lstm", 30.0)}
VIEWS = {"bn_resnet8.ts17": ["flatten", "channel", "last"], "fixup_resnet20.dyn": ["flatten", "channel"], "seq_lstm_lm.ts17": ["flatten", "last"]}
ESTIMATORS = {"exact": ["--estimator", "exact"], "sampled": ["--seed", 7, "--slices", 64]}

RANDOM = np.random.default_rng(11)
START = RANDOM.bit_generator.state


@pytest.fixture(autouse=True)
def _the_same_numbers_whatever_ran_before():
    RANDOM.bit_generator.state = START


def errors(got, expected):
    """Of each parameter, over its largest entry, or over a thousandth of the model's largest where that is more."""
    assert got.keys() == expected.keys()
    floor = 1e-3 * max(np.abs(gradient).max() for gradient in expected.values())
    return {name: np.abs(got[name] - expected[name]).max() / max(np.abs(expected[name]).max(), floor) for name in expected}


class Route:
    """A forward graph, its training artifacts, and steps of both forms."""

    def __init__(self, model, feeds, parameters=None, frozen=()):
        self.model, self.feeds, self.frozen = model, feeds, frozen
        self.artifacts = ort.artifacts(model, parameters, frozen)
        self.plain = ort.steps(self.artifacts.training_model, self.artifacts.checkpoint, feeds)

    def gradient_form(self, inject, *arguments):
        injected = inject(self.artifacts.training_model, *arguments, check=False)
        assert injected.report["form"] == "gradient"
        return injected, ort.steps(injected.data, self.artifacts.checkpoint, self.feeds)

    def loss_form(self, inject, *arguments):
        injected = inject(self.model, *arguments)
        assert injected.report["form"] == "loss"
        made = ort.artifacts(injected.data, self.plain.gradients, self.frozen)
        return ort.steps(made.training_model, made.checkpoint, self.feeds)

    def compare(self, inject, *arguments):
        injected, got = self.gradient_form(inject, *arguments)
        expected = self.loss_form(inject, *arguments)
        found = errors(got.gradients, expected.gradients)
        assert max(found.values()) <= TOLERANCE, found
        # The term matters: without it the gradients are far off.
        assert max(errors(self.plain.gradients, expected.gradients).values()) > 0.05
        # The loss that is reported stays the task loss.
        assert got.loss == self.plain.loss
        return injected


@pytest.fixture(scope="module")
def routes():
    made = {}

    def route(name):
        if name not in made:
            reference = models.reference(name)
            made[name] = Route(reference.path, reference.feeds)
        return made[name]

    return route


@pytest.mark.parametrize("name, view", [(name, view) for name in REFERENCES for view in VIEWS[name]])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_both_forms_give_every_reference_model_the_same_gradients(inject, routes, name, view, estimator):
    layers, coef = REFERENCES[name]
    injected = routes(name).compare(inject, "--layers", layers, "--coef", coef, "--view", view, *ESTIMATORS[estimator])
    expected = {"bn_resnet8.ts17": 7, "fixup_resnet20.dyn": 19, "seq_lstm_lm.ts17": 2}
    assert len(injected.report["layers"]) == expected[name] and injected.report["skipped"] == []


@pytest.mark.parametrize("name", REFERENCES)
def test_strip_gives_back_the_training_model_bit_for_bit(inject, routes, per_inject, tmp_path, name):
    original = routes(name).artifacts.training_model
    for arguments in [["--estimator", "exact"], ["--loss-term", "--outputs", "task,per,layers"]]:
        once = inject(original, "--layers", "all", "--coef", 1, *arguments, check=False)
        twice = inject(once.data, "--layers", "all", "--coef", 2, check=False)
        (tmp_path / "twice.onnx").write_bytes(twice.data)
        said = per_inject("strip", "--all", tmp_path / "twice.onnx", "-o", tmp_path / "back.onnx").stdout
        assert (tmp_path / "back.onnx").read_bytes() == original, said


def scalar(name="loss"):
    return (name, nets.FLOAT, [])


def weights(**shapes):
    return {name: (RANDOM.standard_normal(shape) * 0.5).astype(np.float32) for name, shape in shapes.items()}


def node(op, inputs, outputs, **attributes):
    name = attributes.pop("name", "/" + outputs[0])
    return helper.make_node(op, inputs, outputs, name=name, **attributes)


SQUARED = [node("Mul", ["z", "z"], ["zz"]), node("ReduceMean", ["zz"], ["loss"], keepdims=0)]


def feed(*shape):
    return {"x": RANDOM.standard_normal(shape).astype(np.float32)}


def mlp(opset=17, activation="Relu", outputs=(), **attributes):
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["a1"]),
        node(activation, ["a1"], ["h1"], **attributes),
        node("Gemm", ["h1", "w2", "b2"], ["a2"]),
        node(activation, ["a2"], ["h2"], **attributes),
        node("MatMul", ["h2", "w3"], ["z"]),
        *SQUARED,
    ]
    if opset >= 18:
        nodes[-1] = node("ReduceMean", ["zz"], ["loss"], keepdims=0)
    inputs, outputs = [("x", nets.FLOAT, ["N", 6])], [scalar(), *((name, nets.FLOAT, ["N", 8]) for name in outputs)]
    return nets.model(nodes, inputs, outputs, weights(w1=(6, 8), b1=(8,), w2=(8, 8), b2=(8,), w3=(8, 4)), opset, 8 if opset < 19 else 9)


def relu_then_max_pool():
    nodes = [
        node("Conv", ["x", "k1"], ["a1"], pads=[1, 1, 1, 1]),
        node("Relu", ["a1"], ["h1"]),
        node("MaxPool", ["h1"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "k2"], ["z"]),
        *SQUARED,
    ]
    return nets.model(nodes, [("x", nets.FLOAT, ["N", 3, 6, 6])], [scalar()], weights(k1=(4, 3, 3, 3), k2=(2, 4, 1, 1)))


def several_readers():
    """A residual connection: two contributions, which a Sum adds."""
    nodes = [
        node("MatMul", ["x", "w1"], ["a1"]),
        node("Relu", ["a1"], ["h1"]),
        node("MatMul", ["h1", "w2"], ["a2"]),
        node("Relu", ["a2"], ["h2"]),
        node("Add", ["h1", "h2"], ["z"]),
        *SQUARED,
    ]
    return nets.model(nodes, [("x", nets.FLOAT, ["N", 6])], [scalar()], weights(w1=(6, 8), w2=(8, 8)))


def recurrent(op, read):
    """`read`: which output of the operator the loss depends on; the other one is there all the same."""
    gates, hidden, inputs = {"LSTM": 4, "GRU": 3}[op], 6, 4
    states = ["h0", "c0"] if op == "LSTM" else ["h0"]
    more = {"linear_before_reset": 1} if op == "GRU" else {}
    nodes = [
        node(op, ["x", "w", "r", "b", "", *states], ["y", "y_h"], hidden_size=hidden, name="/rnn", **more),
        node("MatMul", [read, "v"], ["z"]),
        *SQUARED,
    ]
    held = weights(w=(1, gates * hidden, inputs), r=(1, gates * hidden, hidden), b=(1, 2 * gates * hidden), v=(hidden, 3))
    held |= {state: np.zeros((1, 3, hidden), np.float32) for state in states}
    return nets.model(nodes, [("x", nets.FLOAT, [5, 3, inputs])], [scalar()], held), states


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    "model, feeds",
    [
        (mlp(), feed(5, 6)),
        (mlp(activation="Tanh"), feed(5, 6)),
        (mlp(activation="LeakyRelu", alpha=0.2), feed(5, 6)),
        (mlp(outputs=["h1", "h2"]), feed(5, 6)),
        (relu_then_max_pool(), feed(2, 3, 6, 6)),
        (several_readers(), feed(5, 6)),
    ],
    ids=["mlp", "tanh", "leaky", "taps that are outputs", "relu, maxpool", "several readers"],
)
def test_both_forms_agree_on_small_nets(inject, estimator, model, feeds):
    route = Route(model, feeds)
    for more in [["--reduction", "mean", "--coef", 5], ["--reduction", "sum", "--coef", 1], ["--at", "pre", "--coef", 5]]:
        route.compare(inject, "--layers", "all", *more, *ESTIMATORS[estimator])


@pytest.mark.parametrize("opset", range(13, 22))
def test_both_forms_agree_in_every_operator_set_that_is_differentiated(inject, opset):
    route = Route(mlp(opset), feed(5, 6))
    for estimator in ESTIMATORS:
        route.compare(inject, "--layers", "relu", "--coef", 0.5, *ESTIMATORS[estimator])


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
@pytest.mark.parametrize("read", ["y", "y_h"])
@pytest.mark.parametrize("view", ["last", "flatten"])
@pytest.mark.parametrize("tapped", ["y", "y_h"])
def test_recurrent_outputs_that_nothing_reads_get_a_gradient_of_their_own(inject, per_inject, tmp_path, op, read, view, tapped):
    model, states = recurrent(op, read)
    route = Route(model, feed(5, 3, 4), frozen=states)
    arguments = ["--layers", f"tensor:{tapped}", "--coef", 3, "--view", view, "--estimator", "exact"]
    injected, got = route.gradient_form(inject, *arguments)
    # In the loss form the term leads to the loss from a tap that leads nowhere else only by the sum itself.
    per = inject(model, *arguments, "--as-output").model
    summed = onnx.ModelProto.FromString(per.SerializeToString())
    summed.graph.node.append(node("Add", ["loss", "per_loss"], ["total"]))
    del summed.graph.output[:]
    summed.graph.output.append(helper.make_tensor_value_info("total", nets.FLOAT, []))
    made = ort.artifacts(summed, route.plain.gradients, states)
    expected = ort.steps(made.training_model, made.checkpoint, route.feeds)
    found = errors(got.gradients, expected.gradients)
    assert max(found.values()) <= TOLERANCE, found
    assert max(errors(route.plain.gradients, expected.gradients).values()) > 0.05
    assert injected.report["layers"][0]["gradient"] == ("" if tapped != read else f"{tapped}_grad")
    # A second injection finds the gradient that the first one made.
    twice = inject(injected.data, *arguments, check=False)
    (tmp_path / "twice.onnx").write_bytes(twice.data)
    per_inject("strip", "--all", tmp_path / "twice.onnx", "-o", tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == route.artifacts.training_model


def test_a_second_injection_into_a_left_out_gradient_adds_up(inject):
    model, states = recurrent("LSTM", "y_h")
    route = Route(model, feed(5, 3, 4), frozen=states)
    options = ["--layers", "tensor:y", "--estimator", "exact"]
    once = inject(route.artifacts.training_model, *options, "--coef", 1, check=False)
    twice = inject(once.data, *options, "--coef", 2, check=False)
    got = ort.steps(twice.data, route.artifacts.checkpoint, route.feeds)
    _, expected = route.gradient_form(inject, *options, "--coef", 3)
    assert max(errors(got.gradients, expected.gradients).values()) <= TOLERANCE


def test_where_everything_before_a_layer_is_frozen_it_is_left_out_and_the_others_are_not(inject):
    route = Route(mlp(), feed(5, 6), frozen=["w1", "b1"])
    arguments = ["--layers", "relu", "--coef", 0.5, "--estimator", "exact"]
    injected, got = route.gradient_form(inject, *arguments)
    [skipped] = injected.report["skipped"]
    assert "h1" in skipped["what"] and "nothing before it is trained" in skipped["reason"]
    assert [layer["tensor"] for layer in injected.report["layers"]] == ["h2"]
    expected = route.loss_form(inject, *arguments)
    assert max(errors(got.gradients, expected.gradients).values()) <= TOLERANCE


def test_the_loss_term_joins_the_loss_and_the_outputs_come_behind(inject):
    route = Route(mlp(), feed(5, 6))
    arguments = ["--layers", "relu", "--coef", 0.5, "--seed", 3]
    injected, got = route.gradient_form(inject, *arguments, "--loss-term", "--outputs", "task,per,layers")
    expected = route.loss_form(inject, *arguments)
    assert max(errors(got.gradients, expected.gradients).values()) <= TOLERANCE
    assert got.loss == pytest.approx(expected.loss, rel=1e-6)
    assert float(got.outputs["per_inject/task_loss"]) == route.plain.loss
    layers = [float(got.outputs[name]) for name in injected.layers]
    assert float(got.outputs["per_inject/per"]) == pytest.approx(sum(layers), rel=1e-6)
    assert got.loss == pytest.approx(route.plain.loss + 0.5 * sum(layers), rel=1e-6)


def test_changing_the_coefficient_in_the_file_changes_the_strength(inject):
    route = Route(mlp(), feed(5, 6))
    injected = inject(route.artifacts.training_model, "--layers", "relu", "--coef", 1, "--estimator", "exact", check=False)
    model = injected.model
    [coef] = [tensor for tensor in model.graph.initializer if tensor.name == "per_inject/coef"]
    coef.CopyFrom(numpy_helper.from_array(np.array(0.25, np.float32), "per_inject/coef"))
    got = ort.steps(model, route.artifacts.checkpoint, route.feeds)
    _, expected = route.gradient_form(inject, "--layers", "relu", "--coef", 0.25, "--estimator", "exact")
    assert max(errors(got.gradients, expected.gradients).values()) <= 1e-6


def test_layers_may_have_coefficients_of_their_own(inject):
    Route(mlp(), feed(5, 6)).compare(inject, "--layers", "relu", "--coef", 1, "--coef", "#2=0.1", "--estimator", "exact")


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("case", ["relu", "leaky", "maps", "lstm"])
def test_a_thousand_steps_stay_finite_and_the_loss_falls(inject, case, estimator):
    lstm, states = recurrent("LSTM", "y")
    model, feeds, frozen = {
        "relu": (mlp(), feed(5, 6), []),
        "leaky": (mlp(activation="LeakyRelu", alpha=0.2), feed(5, 6), []),
        "maps": (relu_then_max_pool(), feed(2, 3, 6, 6), []),
        "lstm": (lstm, feed(5, 3, 4), states),
    }[case]
    made = ort.artifacts(model, frozen=frozen)
    injected = inject(made.training_model, "--layers", "all", "--coef", 0.01, *ESTIMATORS[estimator], check=False)
    steps = ort.steps(injected.data, made.checkpoint, feeds, count=1000, rate=0.02)
    assert np.isfinite(steps.losses).all() and len(steps.losses) == 1000
    assert steps.losses[-1] < 0.5 * steps.losses[0]


def test_inspect_says_what_the_graph_is_and_who_is_trained(per_inject, routes, tmp_path):
    (tmp_path / "m.onnx").write_bytes(routes("bn_resnet8.ts17").artifacts.training_model)
    said = " ".join(per_inject("inspect", tmp_path / "m.onnx").stdout.split())
    assert "kind: forward + backward" in said and "the gradients of 29 inputs are computed" in said
    assert "initializers: 21, 0 of them trained" in said
    assert said.count(" relu ") == 7


def test_operators_of_the_backward_pass_are_not_chosen_and_cost_nothing(inject, routes, reference):
    route = routes("bn_resnet8.ts17")
    # Two of the three Gemm belong to the backward pass.
    injected = inject(route.artifacts.training_model, "--layers", "op:Gemm", "--coef", 1, "--strict", check=False)
    assert [layer["tensor"] for layer in injected.report["layers"]] == ["logits"]
    forward = inject(reference("bn_resnet8.ts17").path, "--layers", "relu", "--coef", 1)
    assert injected.report["cost"]["model_multiply_adds"] == forward.report["cost"]["model_multiply_adds"]
