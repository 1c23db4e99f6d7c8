"""Training with ONNX Runtime, as anyone would write it: a forward graph with its loss goes in, a model for inference comes out.

`generate_artifacts`, CheckpointState, Module, Optimizer, a learning rate schedule, the export. Nothing here knows of PER.
"""

import dataclasses
import sys
import types

# The training package imports its PyTorch-only half unless a module of that name is there already.
sys.modules["onnxruntime.training.optim"] = types.ModuleType("onnxruntime.training.optim")

import numpy as np
import onnx
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, LinearLRScheduler, Module, Optimizer
from tqdm import tqdm

# Of all steps, while the learning rate rises to its highest; from there it falls to zero.
WARM_UP = 0.1


@dataclasses.dataclass(frozen=True)
class Settings:
    epochs: int
    batch: int
    rate: float
    measurements: int = 12


def train(graph, parameters, images, labels, settings, measure):
    """Trains `parameters`, names of initializers of the model file `graph`, and returns the loss of every step.

    Writes the artifacts, and inference.onnx with the trained parameters, beside `graph`. Calls `measure(step, values)` with all
    parameters by name before the first step, after the last, and at equal distances in between.
    """
    folder = graph.parent
    artifacts.generate_artifacts(
        onnx.load(graph),
        requires_grad=parameters,
        loss=None,
        optimizer=artifacts.OptimType.AdamW,
        artifact_directory=str(folder),
    )
    state = CheckpointState.load_checkpoint(str(folder / "checkpoint"))
    module = Module(str(folder / "training_model.onnx"), state, str(folder / "eval_model.onnx"))
    optimizer = Optimizer(str(folder / "optimizer_model.onnx"), module)

    per_epoch = len(images) // settings.batch
    steps = settings.epochs * per_epoch
    optimizer.set_learning_rate(settings.rate)
    schedule = LinearLRScheduler(optimizer, int(WARM_UP * steps), steps, settings.rate)
    measured_at = set(np.linspace(0, steps, settings.measurements).astype(int))
    values = lambda: {name: state.parameters[name].data for name in parameters}

    module.train()
    losses, shuffle = [], np.random.default_rng(1)
    with tqdm(total=steps, desc=folder.name, unit="step") as progress:
        for _ in range(settings.epochs):
            order = shuffle.permutation(len(images))[: per_epoch * settings.batch]
            for batch in order.reshape(per_epoch, settings.batch):
                if len(losses) in measured_at:
                    measure(len(losses), values())
                loss, *_ = module(images[batch], labels[batch])
                optimizer.step()
                schedule.step()
                module.lazy_reset_grad()
                losses.append(float(loss))
                progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
                progress.update()
    measure(steps, values())

    module.export_model_for_inferencing(str(folder / "inference.onnx"), ["logits"])
    return losses
