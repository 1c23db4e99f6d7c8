"""Makes the models of this folder: small nets that keep their training in `training_info`. Run it with onnx 1.23.

The net is x → MatMul, Add → Relu → MatMul → logits, the loss the mean square of logits − target, computed in the algorithm graph.

- joined_adam: the algorithm reads the main graph's logits, as the specification joins both graphs; Adam.
- called_momentum: the algorithm calls the main graph with an input of its own by GraphCall, of an early draft; Momentum.
- repeated_adagrad: the algorithm repeats the main graph's nodes on an input of its own; Adagrad.
- two_entries: two training_info, each with its loss and plain SGD in ordinary operators; the first also initialises the weights.
"""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, TRAINING = TensorProto.FLOAT, "ai.onnx.preview.training"
WEIGHTS = {"w1": (4, 8), "b1": (8,), "w2": (8, 3)}


def value(name, dims, elem=FLOAT):
    return helper.make_tensor_value_info(name, elem, dims)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, name="/" + outputs[0], **attributes)


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def net(prefix="", x="x"):
    """The layers, of values that are called `prefix` and their names."""
    p = prefix
    return [
        node("MatMul", [x, "w1"], [p + "a"]),
        node("Add", [p + "a", "b1"], [p + "z"]),
        node("Relu", [p + "z"], [p + "h"]),
        node("MatMul", [p + "h", "w2"], [p + "logits"]),
    ]


def main_graph():
    rng = np.random.default_rng(0)
    weights = [tensor(name, rng.standard_normal(shape).astype(np.float32) * 0.5) for name, shape in WEIGHTS.items()]
    return helper.make_graph(net(), "net", [value("x", ["N", 4])], [value("logits", ["N", 3])], weights)


def loss(logits, name="loss", target="target"):
    return [
        node("Sub", [logits, target], [name + "_difference"]),
        node("Mul", [name + "_difference", name + "_difference"], [name + "_square"]),
        node("ReduceMean", [name + "_square"], [name], keepdims=0),
    ]


def gradient(x, name="loss", target="target", suffix=""):
    xs, zs = list(WEIGHTS), [x, target]
    outputs = [f"d_{w}{suffix}" for w in xs]
    return helper.make_node("Gradient", xs + zs, outputs, name="/gradient" + suffix, domain=TRAINING, xs=xs, zs=zs, y=name)


def optimizer(op, states, **attributes):
    """One node that updates every weight; `states` are the prefixes of what it keeps of each."""
    kept = [[f"{state}_{w}" for w in WEIGHTS] for state in states]
    inputs = ["rate", "count", *WEIGHTS, *(f"d_{w}" for w in WEIGHTS), *(name for names in kept for name in names)]
    new = [f"{name}_new" for name in [*WEIGHTS, *(name for names in kept for name in names)]]
    update = helper.make_node(op, inputs, new, name="/optimizer", domain=TRAINING, **attributes)
    tensors = [tensor("rate", np.float32(0.1)), tensor("count", np.int64(0)), tensor("one_step", np.int64(1))]
    tensors += [tensor(f"{state}_{w}", np.zeros(shape, np.float32)) for state in states for w, shape in WEIGHTS.items()]
    bindings = {name.removesuffix("_new"): name for name in new} | {"count": "count_new"}
    outputs = [value(f"{w}_new", shape) for w, shape in WEIGHTS.items()]
    outputs += [value(f"{state}_{w}_new", shape) for state in states for w, shape in WEIGHTS.items()]
    return [update, node("Add", ["count", "one_step"], ["count_new"])], tensors, [*outputs, value("count_new", [], TensorProto.INT64)], bindings


def sgd(suffix):
    nodes = []
    for w in WEIGHTS:
        nodes.append(node("Mul", [f"d_{w}{suffix}", "rate"], [f"step_{w}{suffix}"]))
        nodes.append(node("Sub", [w, f"step_{w}{suffix}"], [f"{w}_new{suffix}"]))
    return nodes, [value(f"{w}_new{suffix}", shape) for w, shape in WEIGHTS.items()], {w: f"{w}_new{suffix}" for w in WEIGHTS}


def entries(pairs):
    return [onnx.StringStringEntryProto(key=key, value=name) for key, name in pairs.items()]


def training(nodes, inputs, outputs, tensors, bindings):
    info = onnx.TrainingInfoProto()
    info.algorithm.CopyFrom(helper.make_graph(nodes, "step", inputs, outputs, tensors))
    info.update_binding.extend(entries(bindings))
    return info


def model(*infos):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(TRAINING, 1)]
    made = helper.make_model(main_graph(), opset_imports=opsets, ir_version=8, producer_name="models/training_info/make.py")
    made.training_info.extend(infos)
    return made


def joined_adam():
    update, tensors, outputs, bindings = optimizer("Adam", ["m", "v"], alpha=0.9, beta=0.999)
    nodes = [*loss("logits"), gradient("x"), *update]
    return model(training(nodes, [value("target", ["N", 3])], [value("loss", []), *outputs], tensors, bindings))


def called_momentum():
    update, tensors, outputs, bindings = optimizer("Momentum", ["v"], alpha=0.9, beta=1.0, mode="standard", norm_coefficient=0.0)
    call = helper.make_node("GraphCall", ["batch"], ["predicted"], name="/call", domain=TRAINING, graph_name="net")
    nodes = [call, *loss("predicted"), gradient("batch"), *update]
    inputs = [value("batch", ["N", 4]), value("target", ["N", 3])]
    return model(training(nodes, inputs, outputs, tensors, bindings))


def repeated_adagrad():
    update, tensors, outputs, bindings = optimizer("Adagrad", ["s"], epsilon=1e-6)
    nodes = [*net("train/", "batch"), *loss("train/logits"), gradient("batch"), *update]
    inputs = [value("batch", ["N", 4]), value("target", ["N", 3])]
    return model(training(nodes, inputs, outputs, tensors, bindings))


def two_entries():
    infos = []
    for k, x in enumerate(["x", "other"]):
        update, outputs, bindings = sgd(f"_{k}")
        forward = [] if k == 0 else net("other/", x)
        logits = "logits" if k == 0 else "other/logits"
        nodes = [*forward, *loss(logits, f"loss_{k}"), gradient(x, f"loss_{k}", suffix=f"_{k}"), *update]
        inputs = [value("target", ["N", 3])] + ([value(x, ["N", 4])] if k else [])
        infos.append(training(nodes, inputs, [value(f"loss_{k}", []), *outputs], [tensor("rate", np.float32(0.1))], bindings))
    random = [node("RandomNormal", [], [f"{w}_init"], shape=shape, scale=0.5) for w, shape in WEIGHTS.items()]
    outputs = [value(f"{w}_init", shape) for w, shape in WEIGHTS.items()]
    infos[0].initialization.CopyFrom(helper.make_graph(random, "initialization", [], outputs))
    infos[0].initialization_binding.extend(entries({w: f"{w}_init" for w in WEIGHTS}))
    return model(*infos)


if __name__ == "__main__":
    for make in [joined_adam, called_momentum, repeated_adagrad, two_entries]:
        onnx.save(make(), pathlib.Path(__file__).with_name(f"{make.__name__}.onnx"))
