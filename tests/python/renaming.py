"""Other names for everything in a model, written with onnx alone: what a comparison by structure must see through."""

from __future__ import annotations

import onnx


def renamed(model: onnx.ModelProto, forget: tuple[str, ...] = ()) -> onnx.ModelProto:
    """A copy in which every node, value and initializer of the main graph and of its bodies has another name.

    Metadata under keys that start with one of `forget` is left out. Function bodies keep their names.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    kept = [entry for entry in model.metadata_props if not entry.key.startswith(forget or ("\0",))]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    _rename(model.graph, {}, _fresh())
    return model


def _fresh():
    """Names that say nothing, in an order that says nothing."""
    for count in range(1, 1 << 30):
        yield f"n{count * 7919 % 1000003}"


def _rename(graph: onnx.GraphProto, around: dict[str, str], names) -> None:
    here = dict(around)
    defined = [value.name for value in graph.input]
    defined += [tensor.name for tensor in graph.initializer]
    defined += [sparse.values.name for sparse in graph.sparse_initializer]
    defined += [name for node in graph.node for name in node.output]
    for name in dict.fromkeys(defined):
        if name:
            here[name] = next(names)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        value.name = here.get(value.name, value.name)
    for tensor in graph.initializer:
        tensor.name = here[tensor.name]
    for sparse in graph.sparse_initializer:
        sparse.values.name = here[sparse.values.name]
    for note in graph.quantization_annotation:
        note.tensor_name = here.get(note.tensor_name, note.tensor_name)
        for entry in note.quant_parameter_tensor_names:
            entry.value = here.get(entry.value, entry.value)
    for node in graph.node:
        node.name = next(names)
        node.input[:] = [here.get(name, name) for name in node.input]
        node.output[:] = [here.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for body in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                _rename(body, here, names)
