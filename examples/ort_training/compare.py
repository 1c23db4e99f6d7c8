"""Trains a small convolutional network on Fashion-MNIST with ONNX Runtime, without PER and with it, and shows what PER changed.

    python examples/ort_training/compare.py         (README.md beside this file: what it needs, how long it takes, what it prints)

Both runs are the same but for one command, REGULARISE below, on the forward graph.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import time

import numpy as np
import onnx
import onnxruntime

import curves
import fashion_mnist
import model
from meter import Meter
from train import Settings, train

PER_INJECT = os.environ.get("PER_INJECT", "per-inject")

# What every graph goes through: ONNX Runtime has no gradient of Elu, and wants the cross entropy in one form.
REWRITE = "{graph} --for ort-training --layers none -o {graph}"
# The one line that makes the difference.
REGULARISE = "{graph} --layers all --coef {coef} --estimator exact -o {graph}"


def main():
    options = arguments()
    if not shutil.which(PER_INJECT):
        raise SystemExit(f"{PER_INJECT} is not there: `cargo install --path .` puts per-inject on the PATH, or PER_INJECT may name the binary.")
    results = {}
    for activation in options.activations:
        runs = results[activation] = {method: run(activation, method, options) for method in ("vanilla", "PER")}
        report(activation, runs)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    curves.draw(results, options.out / "curves.png")
    print(f"Wrote results.json and curves.png into {options.out}.")


def run(activation, method, options):
    """Trains one network in a folder of its own; returns what was measured."""
    images, labels = (array[: options.images] for array in fashion_mnist.load("train"))
    test_images, test_labels = fashion_mnist.load("t10k")
    folder = options.out / f"{activation}_{method}"
    folder.mkdir(parents=True, exist_ok=True)
    graph = folder / "forward.onnx"
    forward = model.cnn11(activation)
    parameters = [tensor.name for tensor in forward.graph.initializer]
    onnx.save(forward, graph)
    meter = Meter(PER_INJECT, graph, test_images[: options.measured], test_labels[: options.measured])

    if method == "PER":
        per_inject(REGULARISE, graph=graph, coef=options.coef)
    per_inject(REWRITE, graph=graph)

    history = []
    measure = lambda step, values: history.append({"step": step, **meter.measure(values)})
    started = time.perf_counter()
    losses = train(graph, parameters, images, labels, Settings(options.epochs, options.batch, options.rate), measure)
    return {
        "layers": meter.layers,
        "losses": losses,
        "history": history,
        "seconds": time.perf_counter() - started,
        "accuracy": accuracy(folder / "inference.onnx", test_images, test_labels),
    }


def per_inject(arguments, **values):
    """Shows the command and runs it."""
    line = arguments.format(**values)
    print(f"$ per-inject {line}", flush=True)
    subprocess.run([PER_INJECT, *line.split()], check=True, stdout=subprocess.DEVNULL)


def accuracy(file, images, labels):
    """Of an exported model, as one would use it."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    logits = [session.run(["logits"], {"x": images[start : start + 500]})[0] for start in range(0, len(images), 500)]
    return float((np.concatenate(logits).argmax(axis=1) == labels).mean())


def report(activation, runs):
    """A table of two runs, side by side. The training losses are means between two measurements, λ·ΣPER included."""

    def row(name, form, value):
        print(f"{name:24}" + "".join(f"{form.format(value(run)):>10}" for run in runs.values()))

    print(f"\n{activation:24}" + "".join(f"{method:>10}" for method in runs))
    row("training loss, first", "{:.3f}", lambda run: np.mean(run["losses"][: run["history"][1]["step"]]))
    row("training loss, last", "{:.3f}", lambda run: np.mean(run["losses"][run["history"][-2]["step"] :]))
    row("test loss", "{:.3f}", lambda run: run["history"][-1]["loss"])
    row("test accuracy", "{:.2%}", lambda run: run["accuracy"])
    for at, layer in enumerate(runs["PER"]["layers"]):
        row(f"PER {layer}", "{:.3f}", lambda run: run["history"][-1]["per"][at])
    row("seconds", "{:.0f}", lambda run: run["seconds"])
    print(flush=True)


def arguments():
    parser = argparse.ArgumentParser(description="Trains a network on Fashion-MNIST without PER and with it.")
    parser.add_argument("--activations", nargs="+", default=["Relu", "Elu"], choices=["Relu", "Elu"])
    parser.add_argument("--coef", type=float, default=0.01, help="λ of PER (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the training images (default: %(default)s)")
    parser.add_argument("--images", type=int, default=60_000, help="training images to use (default: all %(default)s)")
    parser.add_argument("--measured", type=int, default=2_000, help="test images for the curves (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("ort_training_out"), help="folder (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
