"""What `--for ort-training` rewrote is still the activation that it was: the same selectors choose it, with the same result."""

import numpy as np
import pytest
from onnx import helper

import nets
import ort

# Operator, attributes, operator set, and its name in selectors.
CASES = [
    ("Elu", {"alpha": 0.5}, 17, "elu"),
    ("Selu", {}, 17, "selu"),
    ("Celu", {"alpha": 2.0}, 17, "celu"),
    ("Softplus", {}, 17, "softplus"),
    ("Mish", {}, 18, "mish"),
    ("Softsign", {}, 17, "softsign"),
    ("HardSigmoid", {}, 17, "hardsigmoid"),
    ("HardSwish", {}, 17, "hardswish"),
    ("PRelu", {}, 17, "prelu"),
    ("ThresholdedRelu", {"alpha": 0.2}, 17, "thresholdedrelu"),
    ("Gelu", {"approximate": "tanh"}, 20, "gelu"),
]

RANDOM = np.random.default_rng(8)
X = RANDOM.standard_normal((6, 3)).astype(np.float32)
EXACT = ["--coef", 0.5, "--estimator", "exact"]


def net(op, attributes, opset):
    """x·w, its activation h, and a loss."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node(op, ["a", "slope"] if op == "PRelu" else ["a"], ["h"], **attributes),
        helper.make_node("MatMul", ["h", "v"], ["z"]),
        helper.make_node("Mul", ["z", "z"], ["zz"]),
        helper.make_node("ReduceMean", ["zz"], ["loss"], keepdims=0),
    ]
    tensors = {name: RANDOM.standard_normal(shape).astype(np.float32) for name, shape in {"w": (3, 8), "v": (8, 2)}.items()}
    if op == "PRelu":
        tensors["slope"] = np.full(8, 0.1, np.float32)
    return nets.model(nodes, [("x", nets.FLOAT, ["N", 3])], [("loss", nets.FLOAT, [])], tensors, opset=opset)


@pytest.mark.parametrize("op, attributes, opset, name", CASES)
@pytest.mark.parametrize("at", ["post", "pre"])
def test_an_activation_is_chosen_by_its_name_after_it_was_rewritten(inject, session, op, attributes, opset, name, at):
    model = net(op, attributes, opset)
    direct = inject(model, "--layers", name, "--at", at, *EXACT)
    lowered = inject(model, "--for", "ort-training", "--layers", "none")
    assert [rewritten["op"] for rewritten in lowered.report["rewritten"]] == [op]
    for selector in [name, "all"]:
        injected = inject(lowered.data, "--layers", selector, "--at", at, *EXACT)
        assert [layer["tensor"] for layer in injected.report["layers"]] == ["h" if at == "post" else "a"]
        [expected], [got] = (session(made.data).run(["loss"], {"x": X}) for made in (direct, injected))
        # The rewriting is the same function to 1e-6.
        assert got == pytest.approx(expected, rel=3e-6)


def test_it_is_chosen_in_the_training_model_that_generate_artifacts_makes_of_it(inject):
    lowered = inject(net("Elu", {}, 17), "--for", "ort-training", "--layers", "none")
    made = ort.artifacts(lowered.data, ["w", "v"])
    for selector in ["elu", "all"]:
        injected = inject(made.training_model, "--layers", selector, *EXACT, check=False)
        assert injected.report["form"] == "gradient"
        assert [layer["tensor"] for layer in injected.report["layers"]] == ["h"]


def test_a_selu_spelt_out_around_an_elu_stays_one(inject):
    model = net("Elu", {"alpha": 1.6732632}, 17)
    model.graph.node[1].output[0] = "elu"
    model.graph.node.insert(2, helper.make_node("Mul", ["elu", "gamma"], ["h"]))
    model.graph.initializer.append(helper.make_tensor("gamma", nets.FLOAT, [], [1.050701]))
    lowered = inject(model, "--for", "ort-training", "--layers", "none")
    injected = inject(lowered.data, "--layers", "all", *EXACT)
    assert [layer["tensor"] for layer in injected.report["layers"]] == ["h"]
    assert [layer["tensor"] for layer in inject(lowered.data, "--layers", "selu", *EXACT).report["layers"]] == ["h"]
