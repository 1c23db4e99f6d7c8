"""A PyTorch network, trained with PER on stock ONNX Runtime, and back in PyTorch: export, inject, train, export.

    pip install per-inject onnxruntime torch onnx
    python examples/from_pytorch/from_pytorch.py [FOLDER]

`Trainer` injects and differentiates by itself; this script also writes the injected graph, to show that it is an ordinary file. Where FOLDER
holds a forward.onnx already, that is trained, and PyTorch is not needed.
"""

import pathlib
import sys

import numpy as np

import per_inject

CLASSES, FEATURES, COEFFICIENT = 10, 64, 1e-2


def network():
    """Any network: PER needs nothing of it but activations."""
    import torch

    torch.manual_seed(0)
    layers = [torch.nn.Linear(FEATURES, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(128, CLASSES))


def export(path):
    """1. The forward graph with its loss inside, in training mode and with the batch axis open."""
    import torch

    class WithLoss(torch.nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body, self.loss = body, torch.nn.CrossEntropyLoss()

        def forward(self, x, y):
            logits = self.body(x)
            return self.loss(logits, y), logits

    arguments = (torch.zeros(4, FEATURES), torch.zeros(4, dtype=torch.long))
    torch.onnx.export(
        WithLoss(network()),
        arguments,
        str(path),
        training=torch.onnx.TrainingMode.TRAINING,
        do_constant_folding=False,
        opset_version=13,
        input_names=["x", "y"],
        output_names=["loss", "logits"],
        dynamic_axes={"x": {0: "N"}, "y": {0: "N"}, "logits": {0: "N"}},
    )


def samples(count, seed):
    """Images of a kind: each class has a template, and each sample noise."""
    templates = np.random.default_rng(0).standard_normal((CLASSES, FEATURES))
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    return {"x": (templates[labels] + generator.standard_normal((count, FEATURES)) * 3).astype(np.float32), "y": labels}


def train(forward, folder):
    """2. and 3. With PER and without; gives the trainer with it."""
    per_inject.inject(forward, "relu", COEFFICIENT, estimator="exact", output=folder / "forward_per.onnx")
    for options in ({}, {"layers": "relu", "coef": COEFFICIENT, "estimator": "exact"}):
        trainer = per_inject.Trainer(forward, **options, lr="cosine:0.05..0", optimizer="momentum", batch_size=64)
        run = folder / ("per" if options else "plain")
        last = trainer.fit(samples(4000, 1), samples(2000, 2), epochs=5, out=run)["evaluation"]
        print(f"{run.name:5}  test accuracy {last['accuracy']:.4f}  test loss {last['task_loss']:.4f}")
    return trainer


def back(trainer, folder):
    """4. The trained weights in PyTorch's network: parameters have the names that PyTorch gave them."""
    import torch

    body = network()
    weights = {name.removeprefix("body."): torch.from_numpy(array) for name, array in trainer.weights.items()}
    body.load_state_dict(weights)
    torch.onnx.export(body.eval(), (torch.zeros(4, FEATURES),), str(folder / "inference.onnx"), opset_version=13)
    data = samples(2000, 2)
    correct = (body(torch.from_numpy(data["x"])).argmax(1).numpy() == data["y"]).mean()
    print(f"the same weights in PyTorch: test accuracy {correct:.4f}")


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "from_pytorch_out")
    folder.mkdir(parents=True, exist_ok=True)
    forward = folder / "forward.onnx"
    has_pytorch = not forward.exists()
    if has_pytorch:
        export(forward)
    trainer = train(forward, folder)
    if has_pytorch:
        back(trainer, folder)


if __name__ == "__main__":
    main()
