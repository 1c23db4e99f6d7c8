"""The JSON that the tool prints is what its schemas say, for every model and with every part of a report filled in."""

import json
import pathlib

import jsonschema
import numpy as np
import onnx
import pytest

import models
import training

SCHEMAS = pathlib.Path(__file__).parents[2] / "schemas"


def schema(name):
    found = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def closed(part):
    """Whether every object of a schema refuses what it does not name: else a new field would go unnoticed."""
    if isinstance(part, list):
        return all(map(closed, part))
    if not isinstance(part, dict):
        return True
    named = "properties" in part and part.get("type") == "object"
    return (not named or part.get("additionalProperties") is False) and all(map(closed, part.values()))


@pytest.mark.parametrize("name", ["report", "inspect", "diff", "step", "train", "weights"])
def test_the_schemas_name_every_field(name):
    assert closed(schema(name).schema)


@pytest.mark.parametrize("name", models.NAMES)
def test_reports_of_every_model_follow_their_schemas(per_inject, reference, tmp_path, name):
    path, injected = reference(name).path, tmp_path / "injected.onnx"
    schema("inspect").validate(json.loads(per_inject("inspect", path, "--json").stdout))
    arguments = [path, "--layers", "all", "--coef", "3e-5", "--json"]
    for more in (
        ["--dry-run"],
        ["--dry-run", "--estimator", "exact", "--view", "channel", "--reduction", "sum"],
        ["--dry-run", "--coef", "#1=1e-4", "--coef-input", "--seed", "7", "--outputs", "task,per,layers"],
        ["--dry-run", "--as-output"],
        ["--dry-run", "--for", "ort-training", "--coef", "0"],
        ["-o", injected],
    ):
        schema("report").validate(json.loads(per_inject(*arguments, *more).stdout))
    # Injections that are there already, rewritten or not, and a second one.
    rewritten = tmp_path / "rewritten.onnx"
    schema("report").validate(json.loads(per_inject(*arguments, "--for", "ort-training", "-o", rewritten).stdout))
    schema("inspect").validate(json.loads(per_inject("inspect", rewritten, "--json").stdout))
    schema("inspect").validate(json.loads(per_inject("inspect", injected, "--json").stdout))
    again = [injected, "--layers", "all", "--coef", "1e-5", "--json", "--dry-run"]
    schema("report").validate(json.loads(per_inject(*again).stdout))


def test_reports_of_odd_models_follow_their_schemas(per_inject, tmp_path):
    """Layers left out, nothing selected, names in bodies, no shapes."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x, bool c, int64[N] i) => (float y, int64[N] k) <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}> {
      h = MatMul(x, w)  a = Relu(h)  b = Relu(x)  k = Relu(i)  u = Mystery(a)
      s = If(c) <then_branch = t () => (p) { r = Relu(u)  p = Neg(r) }, else_branch = e () => (q) { q = Relu(u) }>
      z = Sigmoid(s)  y = ReduceMean<keepdims = 0>(z)
    }"""
    model = tmp_path / "odd.onnx"
    model.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    found = json.loads(per_inject("inspect", model, "--json").stdout)
    schema("inspect").validate(found)
    assert found["hidden"] and any(tap["problem"] for tap in found["taps"])
    for arguments in (["--layers", "all", "--coef", "1"], ["--layers", "none", "--coef", "1"], ["--layers", "tensor:x", "--as-output"]):
        report = json.loads(per_inject(model, *arguments, "--dry-run", "--json").stdout)
        schema("report").validate(report)
        assert arguments[1] != "all" or report["skipped"]


@pytest.mark.parametrize("name", models.NAMES)
def test_names_of_step_graphs_follow_their_schema_and_stand_in_the_file(per_inject, reference, tmp_path, name):
    step = tmp_path / "step.onnx"
    accumulated = ["--accumulate", "--clip-norm", "0.25", "--loss-scale-input", "--group", "all=lr:0.5"]
    for options in (
        [],
        ["--gradient-norm", "--loss-scale", "128"],
        *(["--optimizer", optimizer] for optimizer in ("sgd", "momentum", "nesterov", "rmsprop")),
        ["--optimizer", "adam", *accumulated],
        ["--optimizer", "adamw", *accumulated],
    ):
        report = json.loads(per_inject("differentiate", reference(name).path, "-o", step, "--json", *options).stdout)
        schema("step").validate(report)
        graph = onnx.load(step)
        assert [json.loads(m.value) for m in graph.metadata_props if m.key == "per_inject.step"] == [report]
        # Everything that is named is there, and everything that was added is named.
        successors = report["statistics"] + report["counters"] + [s for p in report["parameters"] for s in p.get("state", [])]
        results = {s["next"] for s in successors} | {p.get("next", p.get("gradient")) for p in report["parameters"]}
        fed = {s["name"] for s in successors} | {p["name"] for p in report["parameters"]}
        original = onnx.load(reference(name).path).graph
        kept = {value.name for value in original.output}, {value.name for value in original.input}
        assert {o.name for o in graph.graph.output} == results | set(report["outputs"].values()) | kept[0]
        assert {i.name for i in graph.graph.input} == fed | set(report["inputs"].values()) | kept[1]


def test_summaries_of_training_runs_follow_their_schema(tmp_path):
    """With and without layers, an evaluation, a metric, a part that was there before, and steps that gave no number."""
    mlp, lstm = (models.MODELS / f"{name}.ts17.onnx" for name in ("mlp_relu", "seq_lstm_lm"))
    np.savez(tmp_path / "points.npz", **training.points(64, 1))
    np.savez(tmp_path / "sentences.npz", **training.sentences(16))

    def summary(model, run, data, *options):
        done = training.train(model, tmp_path / run, "--data", tmp_path / f"{data}.npz", "--batch-size", 16, "--json", *options)
        found = json.loads(done.stdout)
        schema("train").validate(found)
        return found

    plain = summary(mlp, "plain", "points", "--epochs", 1, "--metric", "none")
    assert plain["layers"] == [] and plain["evaluation"] is plain["best"] is plain["resumed_from"] is None and plain["steps"] == 4
    options = ("--eval", tmp_path / "points.npz", "--layers", "relu", "--coef", 0.1)
    first = summary(mlp, "per", "points", "--epochs", 1, *options)
    assert len(first["layers"]) == len(first["evaluation"]["per"]) == 2 and first["metric"] == "accuracy"
    assert summary(mlp, "per", "points", "--epochs", 2, "--resume", *options)["resumed_from"] == 4
    assert summary(mlp, "per", "points", "--epochs", 2, "--resume", *options)["training"] is None
    assert summary(lstm, "lstm", "sentences", "--epochs", 1)["training"]["perplexity"] > 1
    wrong = summary(mlp, "wrong", "points", "--epochs", 3, "--lr", 1e12, "--on-nan", "skip", "--eval", tmp_path / "points.npz")
    assert wrong["skipped"] > 0
    assert all(path.endswith(("model.onnx", "model.safetensors")) for path in wrong["written"]) and len(wrong["written"]) == 2
