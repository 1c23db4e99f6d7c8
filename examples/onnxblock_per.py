"""PER through onnxblock, for people who build their training graph from a forward graph and a loss block.

    python examples/onnxblock_per.py            (with the wheels of tests/requirements-ort-training.txt, and per-inject on PATH)

`per-inject --as-output` leaves the forward graph as it is and adds an output `per_loss`, λ·ΣPER. A block of one's own adds it to the
task loss, and gradients flow through both. The stock block does not: `generate_artifacts(loss=LossType.CrossEntropyLoss)` takes every
output of the graph for an input of the loss and fails on two of them, and with `loss_input_names=["logits"]` it takes the logits alone.
`per_loss` then stays an output that nothing adds to what is differentiated: no error, no warning, and no regulariser.

This script trains the same small network both ways and prints what becomes of the loss and of `per_loss`.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import types

# The training package imports its PyTorch-only half unless a module of that name is there already.
sys.modules["onnxruntime.training.optim"] = types.ModuleType("onnxruntime.training.optim")

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.training import artifacts, onnxblock
from onnxruntime.training.api import CheckpointState, Module, Optimizer

MODELS = pathlib.Path(__file__).resolve().parents[1] / "models"
PER_INJECT = os.environ.get("PER_INJECT", "per-inject")
STEPS, RATE, COEFFICIENT = 30, 0.1, "3"


class CrossEntropyWithPer(onnxblock.TrainingBlock):
    """loss = cross entropy(logits, labels) + per_loss."""

    def __init__(self):
        super().__init__()
        self.cross_entropy = onnxblock.loss.CrossEntropyLoss()
        self.add = onnxblock.blocks.Add()

    def build(self, logits, per_loss):
        return self.add(self.cross_entropy(logits, labels_name="y"), per_loss), per_loss


def forward_graph(folder):
    """A forward graph without a loss, as an exporter writes it, and the same with PER as an output."""
    whole = onnx.load(MODELS / "cnn11_elu.ts17.onnx")
    forward = folder / "forward.onnx"
    onnx.save(onnx.utils.Extractor(whole).extract_model(["x"], ["logits"]), forward)
    injected = folder / "forward_per.onnx"
    layers = ["--layers", "elu", "--estimator", "exact", "--view", "channel", "--coef", COEFFICIENT]
    command = [PER_INJECT, forward, *layers, "--as-output", "--for", "ort-training", "-o", injected]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return onnx.load(injected)


def trainable(model):
    """What the exporter wrote; what per-inject added is constant."""
    return [t.name for t in model.graph.initializer if not t.name.startswith("per_inject/")]


def with_block(model, folder):
    """Artifacts by the block above."""
    block = CrossEntropyWithPer()
    for tensor in model.graph.initializer:
        block.requires_grad(tensor.name, tensor.name in trainable(model))
    with onnxblock.base(model):
        block(*[output.name for output in model.graph.output])
        training_model, eval_model = block.to_model_proto()
        parameters = block.parameters()
    optimizer = onnxblock.optim.SGD()
    with onnxblock.empty_base():
        optimizer(parameters)
        onnx.save(optimizer.to_model_proto(), folder / "optimizer_model.onnx")
    onnx.save(training_model, folder / "training_model.onnx")
    onnx.save(eval_model, folder / "eval_model.onnx")
    onnxblock.save_checkpoint(parameters, str(folder / "checkpoint"))


def with_stock_loss(model, folder):
    """Artifacts by the stock loss, which sees the logits alone."""
    artifacts.generate_artifacts(
        model,
        requires_grad=trainable(model),
        loss=artifacts.LossType.CrossEntropyLoss,
        loss_input_names=["logits"],
        additional_output_names=["per_loss"],
        optimizer=artifacts.OptimType.SGD,
        artifact_directory=str(folder),
    )


def train(folder):
    """(loss, per_loss) before the first step and after the last."""
    state = CheckpointState.load_checkpoint(str(folder / "checkpoint"))
    module = Module(str(folder / "training_model.onnx"), state)
    optimizer = Optimizer(str(folder / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(RATE)
    with np.load(MODELS / "cnn11_elu.inputs.npz") as arrays:
        data = {"x": arrays["x"], "y": arrays["y"], "labels": arrays["y"]}
    feeds = [data[name] for name in module.input_names()]
    module.train()
    history = []
    for _ in range(STEPS + 1):
        values = dict(zip(module.output_names(), module(*feeds)))
        loss, per = float(next(iter(values.values()))), float(values["per_loss"])
        history.append((loss, per))
        optimizer.step()
        module.lazy_reset_grad()
    return history[0], history[-1]


def main():
    with tempfile.TemporaryDirectory() as name:
        print(f"{'loss':26}  loss               per_loss")
        for label, build in (("a block of one's own", with_block), ("stock, logits alone", with_stock_loss)):
            folder = pathlib.Path(name, build.__name__)
            folder.mkdir()
            build(forward_graph(folder), folder)
            (loss, per), (last_loss, last_per) = train(folder)
            print(f"{label:26}  {loss:.4f} -> {last_loss:.4f}   {per:.4f} -> {last_per:.4f}")


if __name__ == "__main__":
    main()
