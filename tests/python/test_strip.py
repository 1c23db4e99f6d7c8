"""`strip` gives back the file that was there, bit for bit: after an injection of real layers, in files that no exporter would write
so, after training, after another program saved the file, and after several injections; and it refuses with a sentence where it cannot.

No tolerance: bytes are compared.
"""

import dataclasses
import itertools
import json
import os
import subprocess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
import taps
import wirefmt
from command import per_inject

VERIFIED = "byte for byte"
REWRITTEN = "written anew or edited since the injection"

# Field numbers of ModelProto, GraphProto, NodeProto and TensorProto in schemas/onnx.proto.
GRAPH, NODE, INITIALIZER, DIMS = 7, 1, 5, 1


def inject(model, output, *options):
    return taps.said(model, "--coef", "3e-5", *options, "-o", output)


def strip(model, output, *options):
    return taps.said("strip", model, *options, "-o", output)


def restores(original, folder, *options):
    """Injects with `options` into a file and strips it: the same bytes, and `strip` knows it."""
    injected, back = folder / "injected.onnx", folder / "back.onnx"
    inject(original, injected, *options)
    assert injected.read_bytes() != original.read_bytes()
    said = strip(injected, back)
    assert back.read_bytes() == original.read_bytes(), options
    assert VERIFIED in said
    return onnx.load(injected)


# ---------------------------------------------------------------- real layers

OUTPUTS = [("--outputs", ",".join(o)) for n in (1, 2, 3) for o in itertools.combinations(["task", "per", "layers"], n)]
IN_THE_LOSS = [(*o, *c) for o in [(), *OUTPUTS] for c in [(), ("--coef-input",)]]
AS_OUTPUT = [("--as-output", *o, *c) for o in [(), *OUTPUTS] if "task" not in "".join(o) for c in [(), ("--coef-input",)]]
OTHERS = [("--view", "channel"), ("--view", "last", "--reduction", "sum"), ("--at", "pre"), ("--coef", "#1=1e-3")]


@pytest.mark.parametrize("estimator", ["exact", "sampled"])
@pytest.mark.parametrize("name", models.NAMES)
def test_every_option_that_adds_something_is_undone_in_every_reference_model(reference, tmp_path, name, estimator):
    assert (len(IN_THE_LOSS), len(AS_OUTPUT)) == (16, 8)
    for options in [*IN_THE_LOSS, *AS_OUTPUT, *OTHERS]:
        if "pre" in options and name.startswith("seq_lstm"):
            # Its activations are recurrent operators, which have no single input.
            run = per_inject(reference(name).path, "--layers", "all", "--coef", "1e-5", *options, "--dry-run", check=False)
            assert "no single input to tap" in taps.refusal(run)
            continue
        restores(reference(name).path, tmp_path, "--layers", "all", "--estimator", estimator, *options)


# ---------------------------------------------------------------- files that no exporter writes


def with_records(data, more):
    return data + wirefmt.encode(more)


def unknown_everywhere(data):
    data = wirefmt.replace(data, GRAPH, lambda g: wirefmt.encode(wirefmt.unknown(2)) + with_records(
        wirefmt.replace(g, NODE, lambda n: with_records(n, wirefmt.unknown(3))), wirefmt.unknown(4)))
    return wirefmt.encode(wirefmt.unknown(1)) + with_records(data, wirefmt.unknown(5))


def unknown_between_nodes(data):
    def between(graph):
        records = wirefmt.parse(graph)
        return wirefmt.encode(itertools.chain.from_iterable((r, *wirefmt.unknown(i)[:2]) for i, r in enumerate(records)))

    return wirefmt.replace(data, GRAPH, between)


def padded_lengths(padding, tag_padding=0):
    def pad(data):
        names = lambda node: wirefmt.padded(node, [1, 2, 3, 4, 5], padding, tag_padding)
        nodes = lambda graph: wirefmt.padded(wirefmt.replace(graph, NODE, names), range(1, 16), padding, tag_padding)
        return wirefmt.padded(wirefmt.replace(data, GRAPH, nodes), range(1, 30), padding, tag_padding)

    return pad


def backwards(data):
    """Fields in falling order; the elements of each list stay in order."""
    turned = lambda message: wirefmt.encode(sorted(wirefmt.parse(message), key=lambda r: -r.field))
    return turned(wirefmt.replace(data, GRAPH, turned))


def interleaved(data):
    """Nodes and initializers alternate, outputs stand first."""

    def shuffle(graph):
        records = wirefmt.parse(graph)
        nodes = [r for r in records if r.field == NODE]
        stored = [r for r in records if r.field == INITIALIZER]
        rest = [r for r in records if r.field not in (NODE, INITIALIZER)]
        mixed = [r for pair in itertools.zip_longest(stored, nodes) for r in pair if r]
        return wirefmt.encode(rest[::-1] + mixed)

    return wirefmt.replace(data, GRAPH, shuffle)


def graph_first(data):
    return wirefmt.encode(sorted(wirefmt.parse(data), key=lambda r: r.field != GRAPH))


def split_graph(parts, at=None):
    """The graph field in several records; protobuf reads them as one. `at` puts other fields of the model in between."""

    def split(data):
        out = []
        for record in wirefmt.parse(data):
            if record.field != GRAPH:
                out.append(record)
                continue
            inner = wirefmt.parse(record.value)
            size = -(-len(inner) // parts)
            for k in range(parts):
                piece = wirefmt.encode(inner[k * size : (k + 1) * size])
                out.append(dataclasses.replace(record, value=piece, padding=k % 3))
                if at:
                    out.append(wirefmt.Record(6, wirefmt.BYTES, b"doc %d" % k))
        return wirefmt.encode(out)

    return split


def empty_last_graph(data):
    return with_records(data, [wirefmt.Record(GRAPH, wirefmt.BYTES, b"", padding=1)])


def packed_dims(data):
    """`dims` is unpacked in ONNX's schema; every reader takes it packed as well."""

    def pack(tensor):
        records = wirefmt.parse(tensor)
        dims = b"".join(r.value for r in records if r.field == DIMS)
        packed = [wirefmt.Record(DIMS, wirefmt.BYTES, dims)] if dims else []
        return wirefmt.encode(packed + [r for r in records if r.field != DIMS])

    return wirefmt.replace(data, GRAPH, lambda graph: wirefmt.replace(graph, INITIALIZER, pack))


def scalars_twice(data):
    """The last one counts."""
    return with_records(data, [wirefmt.Record(1, wirefmt.VARINT, wirefmt.varint(3, 1))]) + wirefmt.encode(
        r for r in wirefmt.parse(data) if r.field == 1
    )


ODD = {
    "unknown fields everywhere": unknown_everywhere,
    "unknown fields between nodes": unknown_between_nodes,
    "lengths padded by one": padded_lengths(1),
    "lengths padded by two": padded_lengths(2),
    "lengths and tags padded": padded_lengths(1, 1),
    "fields backwards": backwards,
    "nodes and initializers interleaved": interleaved,
    "the graph first": graph_first,
    "the graph in two records": split_graph(2),
    "the graph in seven records with others between": split_graph(7, at=True),
    "an empty last graph record": empty_last_graph,
    "packed dims": packed_dims,
    "scalars twice": scalars_twice,
    "all at once": lambda data: unknown_everywhere(split_graph(3)(packed_dims(backwards(data)))),
}


@pytest.mark.parametrize("name", ["mlp_relu.ts17", "gpt_gelu.dyn", "seq_lstm_lm.ts17"])
@pytest.mark.parametrize("kind", ODD)
def test_an_unusual_encoding_comes_back_bit_for_bit(reference, tmp_path, kind, name):
    data = reference(name).path.read_bytes()
    odd = ODD[kind](data)
    assert odd != data
    original = tmp_path / "odd.onnx"
    original.write_bytes(odd)
    nodes = len(onnx.load(original).graph.node)
    for options in [(), ("--as-output", "--outputs", "per,layers"), ("--outputs", "task,layers", "--coef-input")]:
        injected = restores(original, tmp_path, "--layers", "all", "--estimator", "exact", *options)
        assert len(injected.graph.node) > nodes
        onnx.checker.check_model(injected)


@pytest.mark.parametrize("padding", range(1, 5))
@pytest.mark.parametrize("nodes", [1, 30, 3000])
def test_lengths_as_wide_as_readers_take_stay_readable_and_come_back(tmp_path, nodes, padding):
    """A program that writes a length before it knows it leaves five bytes for it; more than five no reader of protobuf takes."""
    chain = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], name=f"relu{i}") for i in range(nodes)]
    chain.append(helper.make_node("ReduceSum", [f"v{nodes}"], ["loss"], keepdims=0))
    x, loss = (helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in [("v0", [4, 3]), ("loss", [])])
    graph = helper.make_graph(chain, "chain", [x], [loss])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    data = wirefmt.replace(data, GRAPH, lambda g: wirefmt.padded(g, [NODE], padding))
    width = next(len(wirefmt.varint(len(r.value))) for r in wirefmt.parse(data) if r.field == GRAPH)
    data = wirefmt.padded(data, [GRAPH], min(padding, 5 - width))
    original = tmp_path / "wide.onnx"
    original.write_bytes(data)
    assert len(onnx.load(original).graph.node) == nodes + 1
    injected = restores(original, tmp_path, "--layers", "name:relu0", "--estimator", "exact")
    assert len(injected.graph.node) > nodes + 1


def furnished(model):
    """With all that a model may hold beside its graph."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.metadata_props.add(key="per_injection_notes", value="not ours")
    model.metadata_props.add(key="author", value="someone")
    model.doc_string = "a model"
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    weight = model.graph.initializer[0].name
    annotation = model.graph.quantization_annotation.add(tensor_name=weight)
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=weight)
    model.graph.metadata_props.add(key="graph", value="notes")
    model.graph.node[0].metadata_props.add(key="node", value="notes")
    return model


def test_functions_metadata_and_annotations_stay(reference, tmp_path):
    original = tmp_path / "furnished.onnx"
    onnx.save(furnished(reference("mlp_relu.ts17").model), original)
    injected = restores(original, tmp_path, "--layers", "relu")
    assert len(injected.functions) == 1 and len(injected.graph.quantization_annotation) == 1
    assert [p.key for p in injected.metadata_props] == ["per_injection_notes", "author", "per_inject"]
    onnx.checker.check_model(injected, full_check=True)


def test_training_info_stays(reference, tmp_path):
    model = onnx.ModelProto.FromString(reference("mlp_relu.ts17").model.SerializeToString())
    training = model.training_info.add()
    training.algorithm.CopyFrom(helper.make_graph([helper.make_node("Add", ["a", "a"], ["b"])], "step", [], []))
    training.update_binding.add(key="w", value="b")
    original = tmp_path / "training.onnx"
    onnx.save(model, original)
    assert "training_info" in taps.refusal(per_inject(original, "--layers", "relu", "--coef", "1e-5", "--dry-run", check=False))
    for options in [("--loss", "loss"), ("--as-output",)]:
        injected = restores(original, tmp_path, "--layers", "relu", *options)
        assert injected.training_info == model.training_info


# ---------------------------------------------------------------- after other programs


@pytest.mark.parametrize("name", models.NAMES)
def test_after_onnx_saved_the_file_the_same_bytes_come_back(reference, tmp_path, name):
    path = reference(name).path
    data = path.read_bytes()
    assert onnx.load(path).SerializeToString() == data, "the reference models are canonical"
    injected, saved, back = (tmp_path / f"{n}.onnx" for n in ["injected", "saved", "back"])
    inject(path, injected, "--layers", "all", "--outputs", "task,per,layers", "--coef-input")
    onnx.save(onnx.load(injected), saved)
    assert VERIFIED in strip(saved, back)
    assert back.read_bytes() == data


@pytest.mark.parametrize("kind", ODD)
def test_after_onnx_saved_an_unusual_file_the_graph_comes_back_and_the_difference_is_told(reference, tmp_path, kind):
    original, injected, saved, back = (tmp_path / f"{n}.onnx" for n in ["original", "injected", "saved", "back"])
    original.write_bytes(ODD[kind](reference("mlp_relu.ts17").path.read_bytes()))
    inject(original, injected, "--layers", "relu")
    onnx.save(onnx.load(injected), saved)
    said = strip(saved, back)
    assert REWRITTEN in said and VERIFIED not in said
    assert onnx.load(back) == onnx.load(original)


def trained(model):
    """Other values in every weight, of the same type and number."""
    random = np.random.default_rng(5)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and not tensor.name.startswith("per_inject/"):
            value = numpy_helper.to_array(tensor)
            tensor.raw_data = random.normal(size=value.shape).astype(np.float32).tobytes()
    return model


@pytest.mark.parametrize("name", models.NAMES)
def test_after_training_all_but_the_weights_is_the_original(reference, tmp_path, name):
    injected, back = tmp_path / "injected.onnx", tmp_path / "back.onnx"
    inject(reference(name).path, injected, "--layers", "all")
    onnx.save(trained(onnx.load(injected)), injected)
    assert VERIFIED in strip(injected, back)
    expected = trained(onnx.load(reference(name).path)).SerializeToString()
    assert expected != reference(name).path.read_bytes()
    assert back.read_bytes() == expected


def test_after_training_in_place_an_unusual_file_is_the_original_but_for_the_weights(reference, tmp_path):
    """The weights are overwritten where they lie, as a training loop that maps the file does."""
    original, injected, back = (tmp_path / f"{n}.onnx" for n in ["original", "injected", "back"])
    data = ODD["all at once"](reference("mlp_relu.ts17").path.read_bytes())
    original.write_bytes(data)
    inject(original, injected, "--layers", "relu")
    weights = [t.raw_data for t in onnx.load(original).graph.initializer if len(t.raw_data) >= 64]
    changed, expected = injected.read_bytes(), data
    for weight in weights:
        assert changed.count(weight) == expected.count(weight) == 1
        changed, expected = (d.replace(weight, weight[::-1]) for d in (changed, expected))
    injected.write_bytes(changed)
    assert VERIFIED in strip(injected, back)
    assert back.read_bytes() == expected != data


# ---------------------------------------------------------------- more than one injection


def test_each_strip_peels_one_injection_and_all_peels_every_one(reference, tmp_path):
    layers = [tmp_path / f"{i}.onnx" for i in range(4)]
    layers[0].write_bytes(reference("bn_resnet8.ts17").path.read_bytes())
    inject(layers[0], layers[1], "--layers", "relu,#1..3", "--outputs", "task,layers")
    inject(layers[1], layers[2], "--layers", "relu,#4..", "--estimator", "exact", "--coef-input", "--as-output")
    inject(layers[2], layers[3], "--layers", "relu,#5", "--estimator", "exact", "--as-output", "--outputs", "per")
    onnx.checker.check_model(onnx.load(layers[3]), full_check=True)
    assert [o.name for o in onnx.load(layers[3]).graph.output if o.name.startswith("per_loss")] == ["per_loss", "per_loss_2"]
    back = tmp_path / "back.onnx"
    for later, earlier in zip(layers[:0:-1], layers[-2::-1]):
        assert VERIFIED in strip(later, back)
        assert back.read_bytes() == earlier.read_bytes()
    for layer in layers[1:]:
        said = strip(layer, back, "--all")
        assert VERIFIED in said and said.count("Took out") == layers.index(layer)
        assert back.read_bytes() == layers[0].read_bytes()


def test_all_stops_at_metadata_that_only_looks_like_an_injection(reference, tmp_path):
    original, injected, back = (tmp_path / f"{n}.onnx" for n in ["original", "injected", "back"])
    onnx.save(furnished(reference("mlp_relu.ts17").model), original)
    inject(original, injected, "--layers", "relu")
    assert VERIFIED in strip(injected, back, "--all")
    assert back.read_bytes() == original.read_bytes()


def test_a_layer_that_is_regularised_already_is_named(reference, tmp_path):
    once, twice, back = (tmp_path / f"{n}.onnx" for n in ["once", "twice", "back"])
    assert "regularised already" not in inject(reference("mlp_relu.ts17").path, once, "--layers", "relu")
    said = inject(once, twice, "--layers", "relu,#2")
    [tensor] = json.loads(per_inject(once, "--layers", "relu,#2", "--coef", "1e-5", "--dry-run", "--json").stdout)["layers"]
    assert f'1 layer(s) are regularised already, "{tensor["tensor"]}" first' in said
    strip(twice, back)
    assert back.read_bytes() == once.read_bytes()


def test_a_model_whose_names_start_like_ours_keeps_them(reference, tmp_path):
    """The names of an injection start with a root that no name of the model has."""
    model = onnx.ModelProto.FromString(reference("mlp_relu.ts17").model.SerializeToString())
    model.graph.node[0].name = "per_inject/mine"
    renamed = model.graph.node[1].output[0]
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == renamed:
                    names[i] = "per_inject/2/mine"
    original = tmp_path / "original.onnx"
    onnx.save(model, original)
    injected = restores(original, tmp_path, "--layers", "relu")
    assert any(node.name.startswith("per_inject/3/") for node in injected.graph.node)


# ---------------------------------------------------------------- files and pipes


def test_strip_in_place(reference, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(data := reference("mlp_relu.ts17").path.read_bytes())
    inject(file, file, "--layers", "relu")
    assert file.read_bytes() != data
    assert VERIFIED in strip(file, file)
    assert file.read_bytes() == data
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_strip_through_pipes(reference, tmp_path):
    data = reference("gpt_gelu.ts17").path.read_bytes()
    run = lambda *args, given: subprocess.run([os.environ["PER_INJECT"], *args], input=given, capture_output=True, check=True)
    injected = run("-", "--layers", "all", "--coef", "3e-5", "-o", "-", given=data)
    stripped = run("strip", "-", "-o", "-", given=injected.stdout)
    assert stripped.stdout == data
    assert VERIFIED in taps.Sentence(stripped.stderr.decode())
    twice = run("-", "--layers", "all", "--coef", "3e-5", "-o", "-", given=injected.stdout)
    assert run("strip", "--all", "-", "-o", "-", given=twice.stdout).stdout == data


# ---------------------------------------------------------------- refusals


def remove_injected_node(model):
    del model.graph.node[next(i for i, n in enumerate(model.graph.node) if n.name.endswith("/per"))]


def fuse_injected_nodes(model):
    """As an optimiser does: one node less, and the graph is still whole."""
    *_, before, last = model.graph.node
    assert last.op_type == "Identity" and list(last.input) == list(before.output)
    before.output[0] = last.output[0]
    model.graph.node.remove(last)


def read_injected_value(model):
    value = next(n.output[0] for n in model.graph.node if n.name.endswith("/per"))
    model.graph.node.append(helper.make_node("Neg", [value], ["spy"], name="spy"))


def read_in_a_body(model):
    value = next(n.output[0] for n in model.graph.node if n.name.endswith("/per"))
    branch = lambda out: helper.make_graph(
        [helper.make_node("Neg", [value], [out])], "b", [], [helper.make_tensor_value_info(out, TensorProto.FLOAT, [])]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    body = helper.make_node("If", ["yes"], ["spy"], name="spy", then_branch=branch("t"), else_branch=branch("e"))
    model.graph.node.append(body)


def read_per_loss(model):
    model.graph.node.append(helper.make_node("Neg", ["per_loss"], ["spy"], name="spy"))


def expose_injected_value(model):
    value = next(n.output[0] for n in model.graph.node if n.name.endswith("/per"))
    model.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, []))


def remove_coefficient(model):
    del model.graph.initializer[next(i for i, t in enumerate(model.graph.initializer) if t.name == "per_inject/coef")]


def record_of(model):
    return next(entry for entry in model.metadata_props if entry.key == "per_inject")


def damage_record(model):
    record_of(model).value = record_of(model).value[:-20]


def empty_record(model):
    record_of(model).value = ""


def newer_record(model):
    record_of(model).value = record_of(model).value.replace('"record":1', '"record":2')


def forget_record(model):
    model.metadata_props.remove(record_of(model))


REFUSED = [
    (forget_record, "the model holds no injection"),
    (damage_record, 'the metadata entry "per_inject" is no record of an injection'),
    (empty_record, 'the metadata entry "per_inject" is no record of an injection'),
    (newer_record, "is a record of version 2, and this tool reads 1; update it"),
    (remove_injected_node, 'but no node, input or initializer of the graph defines it'),
    (remove_coefficient, 'reads tensor "per_inject/coef" as its input 1, but no node, input or initializer of the graph defines it'),
    (fuse_injected_nodes, "another program changed the injected part (nodes under "),
    (read_injected_value, '"spy" (Neg) reads "per_inject/'),
    (read_in_a_body, '"spy" (If) reads "per_inject/'),
    (read_per_loss, '"spy" (Neg) reads "per_loss"'),
    (expose_injected_value, "another program changed the injected part (outputs under "),
]


@pytest.mark.parametrize("damage, sentence", REFUSED, ids=[damage.__name__ for damage, _ in REFUSED])
@pytest.mark.parametrize("place", ["beside", "in place"])
def test_what_cannot_be_taken_out_is_refused_in_a_sentence_and_left_alone(reference, tmp_path, damage, sentence, place):
    file = tmp_path / "model.onnx"
    inject(reference("mlp_relu.ts17").path, file, "--layers", "relu", "--as-output", "--estimator", "exact")
    model = onnx.load(file)
    damage(model)
    onnx.save(model, file)
    before, stamp = file.read_bytes(), file.stat().st_mtime_ns
    output = file if place == "in place" else tmp_path / "back.onnx"
    run = per_inject("strip", file, "-o", output, check=False)
    said = taps.refusal(run)
    assert sentence in said
    assert run.stdout == "" and "panicked" not in said
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (before, stamp)
    assert os.listdir(tmp_path) == ["model.onnx"]


def rename_loss(model):
    """As a program does that gives outputs names of its own."""
    total = next(n for n in model.graph.node if n.output[0] == "loss")
    total.output[0] = model.graph.output[0].name = "final"


def record_another_loss(model):
    record_of(model).value = record_of(model).value.replace('"from":"loss"', '"from":"lost"')


def record_an_original_value_as_loss(model):
    value = model.graph.node[0].output[0]
    record_of(model).value = record_of(model).value.replace('"from":"loss"', f'"from":"{value}"')
    rename_loss(model)
    model.graph.output[0].name = value


@pytest.mark.parametrize("damage, sentence", [
    (rename_loss, 'the graph output "final" is made by the injection, which did not name it so'),
    (record_another_loss, 'the graph output "loss" is made by the injection, which did not name it so'),
    (record_an_original_value_as_loss, "another program changed the injected part (task losses under "),
], ids=lambda case: getattr(case, "__name__", ""))
def test_a_loss_under_another_name_is_not_left_without_its_node(reference, tmp_path, damage, sentence):
    file = tmp_path / "model.onnx"
    inject(reference("mlp_relu.ts17").path, file, "--layers", "relu", "--estimator", "exact")
    model = onnx.load(file)
    damage(model)
    onnx.save(model, file)
    assert sentence in taps.refusal(per_inject("strip", file, "-o", tmp_path / "back.onnx", check=False))
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_a_model_without_an_injection_is_left_alone(reference, tmp_path):
    run = per_inject("strip", reference("mlp_relu.ts17").path, "-o", tmp_path / "out.onnx", check=False)
    assert 'mlp_relu.ts17.onnx: the model holds no injection: its metadata has no entry "per_inject"' in taps.refusal(run)
    assert os.listdir(tmp_path) == []
