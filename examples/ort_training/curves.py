"""Draws what train.py measured."""

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

COLOURS = {"vanilla": "tab:gray", "PER": "tab:blue"}
# PER of a layer whose activations are all 0, its least value, and of one with exactly normal activations.
AT_ZERO, NORMAL = 0.797885, 1.128379


def draw(results, path):
    """`results[activation][method]["history"]` are the measurements of a run, in a row of panels for each activation."""
    figure, rows = pyplot.subplots(len(results), 4, figsize=(13, 3 * len(results)), squeeze=False, layout="constrained")
    for (loss, accuracy, mean, last), (activation, runs) in zip(rows, results.items()):
        for method, run in runs.items():
            history = run["history"]
            steps = [entry["step"] for entry in history]
            look = {"color": COLOURS[method], "label": method, "marker": ".", "markersize": 4}
            loss.plot(steps, [entry["loss"] for entry in history], **look)
            accuracy.plot(steps, [100 * entry["accuracy"] for entry in history], **look)
            mean.plot(steps, [sum(entry["per"]) / len(entry["per"]) for entry in history], **look)
            last.plot(range(1, len(history[-1]["per"]) + 1), history[-1]["per"], **look)
        loss.set(title=f"{activation}: test loss", xlabel="step", yscale="log")
        accuracy.set(title="test accuracy, %", xlabel="step")
        mean.set(title="PER, mean of the layers", xlabel="step")
        last.set(title="PER at the end", xlabel="layer")
        for panel in (mean, last):
            panel.axhline(NORMAL, color="black", linewidth=0.6, linestyle=":", label="normal activations")
            panel.axhline(AT_ZERO, color="black", linewidth=0.6, label="all zero")
    figure.legend(*last.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=75)
    pyplot.close(figure)
