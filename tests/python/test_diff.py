"""The difference between a model and its injected self is the injection, no more and no less; and still is when every name is another
one and nothing tells that per-inject was there.

What is expected is read from both files with onnx, and from the injection's own report. No tolerance: what is compared are positions,
names and numbers of parts.
"""

import collections
import json

import onnx
import pytest

import models
import ort
import taps
from command import per_inject
from renaming import renamed

ROOT = "per_inject/"


def diff(a, b, *options):
    return json.loads(per_inject("diff", a, b, "--format", "json", *options).stdout)


def inject(model, output, *options):
    return json.loads(per_inject(model, *options, "--json", "-o", output).stdout)



def expected_change(before: onnx.ModelProto, after: onnx.ModelProto, report):
    """What the patch did, from the two files: positions of added nodes, and of nodes whose inputs were rewired."""
    added = [i for i, node in enumerate(after.graph.node) if node.name.startswith(ROOT)]
    own = [node for node in after.graph.node if not node.name.startswith(ROOT)]
    # Without rewriting, the model's own nodes stay in order; renaming the loss is no change.
    task = {loss["task"]: loss["name"] for loss in report["losses"] if loss["training_info"] is None}
    assert len(own) == len(before.graph.node) and len(added) == report["added"]["nodes"]
    made_before = {name for node in before.graph.node for name in node.output}
    makers = {name: node for node in after.graph.node for name in node.output}
    rewired = []
    for old, new in zip(before.graph.node, own):
        assert [task.get(name, name) for name in new.output] == list(old.output)
        reads_sum = any(
            name in makers and makers[name].name.startswith(ROOT) and task.get(name, name) in made_before | {*old.input}
            for name in new.input
        )
        differs = [task.get(name, name) for name in new.input] != list(old.input)
        if differs or reads_sum:
            rewired.append(list(after.graph.node).index(new))
    return added, sorted(rewired)


def check(before_path, after_path, folder, report):
    before, after = onnx.load(before_path, load_external_data=False), onnx.load(after_path, load_external_data=False)
    found = diff(before_path, after_path)
    added, rewired = expected_change(before, after, report)
    nodes = found["nodes"]
    assert [node["position"] for node in nodes["added"]] == added
    assert nodes["removed"] == [] and nodes["renamed"] == []
    assert [change["b"]["position"] for change in nodes["changed"]] == rewired
    stored = [t.name for t in before.graph.initializer]
    new = [t.name for t in after.graph.initializer if t.name not in stored]
    tensors = found["initializers"]
    assert [t["name"] for t in tensors["added"]] == new and len(new) == report["added"]["initializers"]
    assert tensors["removed"] == tensors["changed"] == tensors["renamed"] == []
    assert [v["name"] for v in found["outputs"]["added"]] == report["outputs"]
    assert [v["name"] for v in found["inputs"]["added"]] == report["inputs"]
    assert found["outputs"]["removed"] == found["inputs"]["removed"] == found["inputs"]["changed"] == []
    in_main = [loss for loss in report["losses"] if loss["training_info"] is None]
    assert [change["b"]["name"] for change in found["outputs"]["changed"]] == [
        loss["name"] for loss in in_main if loss["name"] in [o.name for o in before.graph.output]
    ]
    assert [(p["what"], p["key"]) for p in found["model"]] == [("metadata", "per_inject")]
    # All of it is recognised, and each layer is one group.
    parts = [*nodes["added"], *nodes["changed"], *tensors["added"], *found["model"]]
    for values in (found["outputs"], found["inputs"], found["value_info"]):
        parts += values["added"] + values["changed"]
    assert all(part["fold"] is not None for part in parts)
    layers = [fold for fold in found["folds"] if fold["kind"] == "layer"]
    assert [(fold["name"], fold["nodes"]) for fold in layers] == [(l["name"], l["nodes"]) for l in report["layers"]]
    assert sum(fold["nodes"] for fold in found["folds"]) == report["added"]["nodes"]
    # Without the record, and under other names, the same numbers.
    other = folder / "renamed.onnx"
    other.write_bytes(renamed(after, forget=("per_inject",)).SerializeToString())
    plain = diff(before_path, other)
    assert plain["folds"] == []
    numbers = lambda d, kinds: {kind: {k: d["summary"][kind][k] for k in ("added", "removed", "changed")} for kind in kinds}
    assert numbers(plain, ["nodes", "initializers"]) == numbers(found, ["nodes", "initializers"])
    kinds = ["inputs", "outputs"]
    assert {k: plain["summary"][k]["added"] for k in kinds} == {k: found["summary"][k]["added"] for k in kinds}
    assert plain["summary"]["nodes"]["renamed"] == len(before.graph.node)
    return found


OPTIONS = [
    ["--estimator", "exact"],
    ["--seed", "7", "--slices", "16"],
    ["--estimator", "exact", "--outputs", "per,layers", "--coef-input"],
    ["--estimator", "exact", "--as-output"],
    ["--seed", "3", "--share-slices", "--view", "channel"],
]


@pytest.mark.parametrize("name", models.NAMES)
def test_the_difference_to_an_injected_model_is_the_patch(reference, tmp_path, name):
    path, injected = reference(name).path, tmp_path / "injected.onnx"
    for options in OPTIONS:
        report = inject(path, injected, "--layers", "all", "--coef", "3e-5", *options)
        check(path, injected, tmp_path, report)


@pytest.mark.parametrize("name", ["bn_resnet8.ts17", "fixup_resnet20.dyn"])
def test_the_difference_is_the_patch_in_graphs_that_compute_gradients(reference, tmp_path, name):
    """Readers of a layer's gradient read a sum instead: these are changed, and belong to the injection."""
    path, injected = tmp_path / "training_model.onnx", tmp_path / "injected.onnx"
    path.write_bytes(ort.artifacts(reference(name).model).training_model)
    report = inject(path, injected, "--layers", "relu", "--coef", "3e-5", "--estimator", "exact")
    assert report["form"] == "gradient"
    found = check(path, injected, tmp_path, report)
    assert len(found["nodes"]["changed"]) >= len(report["layers"])


@pytest.mark.parametrize("name", models.NAMES)
def test_stripping_is_the_difference_the_other_way_round(reference, tmp_path, name):
    path, injected = reference(name).path, tmp_path / "injected.onnx"
    inject(path, injected, "--layers", "all", "--coef", "3e-5", "--estimator", "exact")
    there, back = diff(path, injected), diff(injected, path)
    assert [n["position"] for n in there["nodes"]["added"]] == [n["position"] for n in back["nodes"]["removed"]]
    assert [t["name"] for t in there["initializers"]["added"]] == [t["name"] for t in back["initializers"]["removed"]]
    assert {fold["side"] for fold in back["folds"]} == {"removed"}
    assert [fold["title"] for fold in there["folds"]] == [fold["title"] for fold in back["folds"]]


@pytest.mark.parametrize("name", models.NAMES)
def test_what_was_rewritten_for_a_pipeline_is_recognised(reference, tmp_path, name):
    path, injected = reference(name).path, tmp_path / "injected.onnx"
    report = inject(path, injected, "--layers", "all", "--coef", "3e-5", "--estimator", "exact", "--for", "ort-training")
    found = diff(path, injected)
    nodes = found["nodes"]
    # One of the nodes that stand for another may be of its operator: then that one is changed. Readers of what was rewritten read it from
    # another node now, which is part of the rewriting.
    turned = sum(change["b"]["name"].startswith(ROOT) for change in nodes["changed"])
    assert len(nodes["added"]) + turned == report["added"]["nodes"]
    assert len(nodes["removed"]) + turned == len(report["rewritten"])
    assert all(part["fold"] is not None for kind in ("added", "removed", "changed") for part in nodes[kind])
    rewritings = [fold for fold in found["folds"] if fold["kind"] == "rewriting"]
    assert sorted(fold["nodes"] for fold in rewritings) == sorted(r["nodes"] for r in report["rewritten"])
    # The summary has a line for each group, and no node beside them.
    text = per_inject("diff", path, injected).stdout
    assert "@@ node" not in text and all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("name", models.NAMES)
def test_other_names_are_no_other_structure(reference, tmp_path, name):
    model = reference(name).model
    other = tmp_path / "renamed.onnx"
    other.write_bytes(renamed(model).SerializeToString())
    found = diff(reference(name).path, other)
    counts = found["summary"]
    for kind in ("nodes", "initializers", "inputs", "outputs"):
        assert [counts[kind][k] for k in ("added", "removed", "changed", "moved")] == [0] * 4
    assert counts["nodes"]["renamed"] == len(model.graph.node) == len(found["nodes"]["renamed"])
    assert found["value_info"] == dict.fromkeys(("added", "removed", "changed", "renamed", "moved"), [])
    assert per_inject("diff", reference(name).path, other, "--ignore", "names", "--exit-code").returncode == 0


def corpus_pairs(folder):
    """Injects into one model of the corpus and compares; what went wrong, or what was compared."""

    def of(tap):
        name = str(abs(hash(tap.path)))
        injected, other = folder / f"{name}.onnx", folder / f"{name}.renamed.onnx"
        run = taps.inject(tap, injected, "--estimator", "exact", "--json", check=False)
        if run.returncode != 0:
            return f"{tap.path}: {taps.refusal(run)}"
        report = json.loads(run.stdout)
        after = onnx.load(injected, load_external_data=False)
        other.write_bytes(renamed(after, forget=("per_inject",)).SerializeToString())
        problems = []
        for path, is_known in ((injected, True), (other, False)):
            found = diff(tap.path, path)
            counts = found["summary"]
            added = report["added"]
            got = [counts[k]["added"] for k in ("nodes", "initializers", "inputs", "outputs")]
            if got != [added[k] for k in ("nodes", "initializers", "inputs", "outputs")]:
                problems.append(f"{tap.path}: added {got} instead of {added}")
            rest = [counts[k][c] for k in ("nodes", "initializers", "inputs", "outputs") for c in ("removed", "changed")]
            if any(rest):
                problems.append(f"{tap.path}: removed or changed {rest}")
            if is_known and not all(part["fold"] is not None for part in found["nodes"]["added"]):
                problems.append(f"{tap.path}: not all of it is recognised")
            if is_known and any(counts[k]["renamed"] for k in ("nodes", "initializers")) or found["warnings"]:
                problems.append(f"{tap.path}: {counts} {found['warnings']}")
            if found["functions"] != {"added": [], "removed": [], "changed": []} or found["training_info"]:
                problems.append(f"{tap.path}: functions or training_info differ")
        injected.unlink()
        other.unlink()
        return "; ".join(problems)

    return of


def test_the_difference_is_the_patch_in_every_model_of_the_wheels(corpus, tmp_path):
    chosen = [tap for tap in map(taps.choose, corpus()) if tap and tap.opset is not None]
    # As many as test_corpus taps.
    assert len(chosen) == 1368
    problems = [p for p in taps.in_parallel(corpus_pairs(tmp_path), chosen) if p]
    assert not problems, f"{len(problems)} of {len(chosen)}:\n" + "\n".join(problems[:20])


def test_every_model_of_the_wheels_equals_itself_and_its_renamed_self(corpus, tmp_path):
    def of(path):
        other = tmp_path / f"{abs(hash(path))}.onnx"
        other.write_bytes(renamed(onnx.load(path, load_external_data=False)).SerializeToString())
        same = per_inject("diff", path, path, "--exit-code", check=False)
        named = per_inject("diff", path, other, "--ignore", "names", "--exit-code", check=False)
        other.unlink()
        return [] if (same.returncode, named.returncode) == (0, 0) else [f"{path}\n{same.stdout}{same.stderr}{named.stdout}{named.stderr}"]

    problems = [p for found in taps.in_parallel(of, corpus()) for p in found]
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:5])


def test_the_declaration_of_a_node_that_is_gone_is_no_difference(reference, tmp_path):
    model = onnx.ModelProto.FromString(reference("cnn11_elu.dyn").path.read_bytes())
    elu = next(node for node in model.graph.node if node.op_type == "Elu")
    for node in model.graph.node:
        node.input[:] = [elu.input[0] if name == elu.output[0] else name for name in node.input]
    model.graph.node.remove(elu)
    onnx.save(model, tmp_path / "b.onnx")
    for a, b in [(reference("cnn11_elu.dyn").path, tmp_path / "b.onnx"), (tmp_path / "b.onnx", reference("cnn11_elu.dyn").path)]:
        graph = diff(a, b)
        assert len(graph["nodes"]["added"]) + len(graph["nodes"]["removed"]) == 1 and len(graph["nodes"]["changed"]) == 1
        assert not any(graph["value_info"][kind] for kind in ("added", "removed", "changed"))


@pytest.mark.parametrize("name", ["joined_adam", "called_momentum", "repeated_adagrad", "two_entries"])
def test_training_info_is_compared_too(tmp_path, name):
    path, injected = models.MODELS / "training_info" / f"{name}.onnx", tmp_path / "injected.onnx"
    report = inject(path, injected, "--layers", "relu", "--coef", "3e-5", "--estimator", "exact")
    found = diff(path, injected)
    steps = found["training_info"]
    assert [step["position"] for step in steps] == [loss["training_info"] for loss in report["losses"]]
    added = [node for step in steps for node in step["algorithm"]["nodes"]["added"]]
    assert len(added) == report["added"]["nodes"] and all(node["fold"] is not None for node in added)
    assert found["nodes"]["added"] == found["nodes"]["changed"] == []
    assert collections.Counter(fold["kind"] for fold in found["folds"])["layer"] == len(report["layers"])
