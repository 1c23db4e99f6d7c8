"""Trains with `per_inject.onnxblock.PERLoss` and with the block of examples/onnxblock_per.py, in the environment of ONNX Runtime training;
prints as JSON what each gave in every step."""

import importlib.util
import json
import pathlib
import sys
import tempfile

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "onnxblock_per.py"
specification = importlib.util.spec_from_file_location("example", EXAMPLE)
example = importlib.util.module_from_spec(specification)
specification.loader.exec_module(example)

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnxruntime.training import onnxblock  # noqa: E402
from onnxruntime.training.api import CheckpointState, Module, Optimizer  # noqa: E402

import per_inject  # noqa: E402
from per_inject.onnxblock import PERLoss  # noqa: E402

assert "torch" not in sys.modules
OPTIONS = {"layers": "elu", "coef": float(example.COEFFICIENT), "estimator": "exact", "view": "channel"}


class Plain(onnxblock.TrainingBlock):
    """A pipeline that exists already."""

    def __init__(self):
        super().__init__()
        self.cross_entropy = onnxblock.loss.CrossEntropyLoss()

    def build(self, logits):
        return self.cross_entropy(logits, labels_name="y")


class WithPer(onnxblock.TrainingBlock):
    """The same with PER: two lines."""

    def __init__(self, *terms):
        super().__init__()
        self.cross_entropy = onnxblock.loss.CrossEntropyLoss()
        self.terms = terms

    def build(self, logits):
        loss, values = self.cross_entropy(logits, labels_name="y"), []
        for term in self.terms:
            values.append(term())
            loss = onnxblock.blocks.Add()(loss, values[-1])
        return (loss, *values)


def artifacts(block, model, folder):
    """Artifacts as in the example, for any block over logits."""
    folder.mkdir()
    for tensor in model.graph.initializer:
        block.requires_grad(tensor.name)
    with onnxblock.base(model):
        block("logits")
        training_model, eval_model = block.to_model_proto()
        parameters = block.parameters()
    optimizer = onnxblock.optim.SGD()
    with onnxblock.empty_base():
        optimizer(parameters)
        onnx.save(optimizer.to_model_proto(), folder / "optimizer_model.onnx")
    onnx.save(training_model, folder / "training_model.onnx")
    onnx.save(eval_model, folder / "eval_model.onnx")
    onnxblock.save_checkpoint(parameters, str(folder / "checkpoint"))
    return [p.name for p in parameters[0]]


def curve(folder):
    """All outputs in every step."""
    state = CheckpointState.load_checkpoint(str(folder / "checkpoint"))
    module = Module(str(folder / "training_model.onnx"), state)
    optimizer = Optimizer(str(folder / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(example.RATE)
    with np.load(example.MODELS / "cnn11_elu.inputs.npz") as arrays:
        feeds = [arrays[name] for name in module.input_names()]
    module.train()
    steps = []
    for _ in range(20):
        values = module(*feeds)
        values = values if isinstance(values, (list, tuple)) else [values]
        steps.append([float(v) for v in values])
        optimizer.step()
        module.lazy_reset_grad()
    return steps


def main():
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        injected = example.forward_graph(folder)
        forward = onnx.load(folder / "forward.onnx")
        (folder / "own").mkdir()
        example.with_block(injected, folder / "own")
        found["own"] = curve(folder / "own")
        found["parameters"] = artifacts(WithPer(PERLoss(**OPTIONS)), forward, folder / "package")
        found["package"] = curve(folder / "package")
        # Two terms, each with its layers and its coefficient, sum up to both.
        halves = [PERLoss(**{**OPTIONS, "layers": layers}) for layers in ("elu,!#6..10", "elu,!#1..5")]
        artifacts(WithPer(*halves), forward, folder / "halves")
        found["halves"] = curve(folder / "halves")
        # Without PER ONNX Runtime knows no gradient of Elu: the pipeline runs on what is rewritten alone.
        rewritten = per_inject.inject(forward, layers="none", for_="ort-training")
        artifacts(Plain(), rewritten, folder / "plain")
        found["plain"] = curve(folder / "plain")
        found["initializers"] = [t.name for t in forward.graph.initializer]
        try:
            artifacts(WithPer(PERLoss("rellu", 1)), forward, folder / "refused")
        except ValueError as error:
            found["refused"] = [type(error).__name__, str(error)]
    print(json.dumps(found))


main()
