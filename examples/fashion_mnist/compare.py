"""Trains the network on Fashion-MNIST with `per-inject train`, without PER and with it, and prints test accuracies side by side."""

import argparse
import json
import os
import pathlib
import shlex
import subprocess

import onnx
from network import cnn11, for_28_pixels

# Where Debian's and Ubuntu's package dataset-fashion-mnist puts it.
FOLDER = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
RUNS = {"vanilla": [], "PER": ["--layers", "all", "--coef", "0.01", "--estimator", "exact"]}


def train(binary, model, out, options):
    """The summary of a run, as `per-inject train --json` prints it."""
    command = [binary, "train", str(model), "--data", FOLDER, "--eval", FOLDER, "--map", "x=images,y=labels"]
    command += ["--normalize", "0.2860,0.3530", "--out", str(out), "--json", *options]
    print("$", shlex.join(command), flush=True)
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--activation", default="Relu", help="Relu or Elu")
    options.add_argument("--epochs", default="1")
    options.add_argument("--optimizer", default="sgd")
    options.add_argument("--lr", default="cosine:0.05..0", help="a learning rate or a schedule")
    options.add_argument("--batch-size", default="32")
    options.add_argument("--out", type=pathlib.Path, default=pathlib.Path("fashion_mnist_out"))
    options = options.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    model = options.out / "cnn11.onnx"
    onnx.save(for_28_pixels(cnn11(options.activation)), model)
    same = ["--epochs", options.epochs, "--optimizer", options.optimizer, "--lr", options.lr, "--batch-size", options.batch_size]
    binary = os.environ.get("PER_INJECT", "per-inject")
    summaries = {run: train(binary, model, options.out / run, same + extra) for run, extra in RUNS.items()}

    print(f"\n{'':16}" + "".join(f"{run:>10}" for run in summaries))
    for name, form in (("task_loss", "10.3f"), ("accuracy", "10.2%")):
        print(f"{'test ' + name:16}" + "".join(f"{s['evaluation'][name]:{form}}" for s in summaries.values()))


if __name__ == "__main__":
    main()
