"""Which tensor of a model is tapped, and injection and strip of one model of the corpus."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import onnx
from onnx import TensorProto

from command import per_inject

FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclasses.dataclass(frozen=True)
class Tap:
    """A floating-point tensor of a model's main graph."""

    path: pathlib.Path
    model: onnx.ModelProto
    tensor: str

    @property
    def opset(self) -> int | None:
        """The version of ONNX's own operators; `None` where the model imports only others."""
        if not self.model.opset_import:
            return 1
        return next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), None)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of the main graph's tensors, declared or inferred. Sequences, maps and optionals are left out."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError:
        graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    return {v.name: v.type.tensor_type.elem_type for v in values if v.type.WhichOneof("value") == "tensor_type"}


def choose(path: pathlib.Path) -> Tap | None:
    """The first floating-point tensor that a node makes, else the first such input; `None` where there is neither."""
    model = onnx.load(path, load_external_data=False)
    types = element_types(model)
    graph = model.graph
    stored = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    made = [name for node in graph.node for name in node.output if name]
    fed = [value.name for value in graph.input if value.name not in stored]
    return next((Tap(path, model, name) for name in made + fed if types.get(name) in FLOATS), None)


def selector(tensor: str) -> str:
    """`tensor:NAME`, with commas as the selector language wants them."""
    return "tensor:" + tensor.replace(",", "\\,")


def inject(tap: Tap, output: pathlib.Path, *options: object, check: bool = True):
    """Adds the term as an output, so that a graph needs no loss."""
    arguments = [tap.path, "--layers", selector(tap.tensor), "--as-output", "--coef", "0.1", *options, "-o", output]
    return per_inject(*arguments, check=check)


class Sentence(str):
    """What a report or a refusal says. Whether it contains some words does not depend on where the terminal's width breaks them."""

    def __contains__(self, words: str) -> bool:
        return "".join(words.split()) in "".join(self.split())


def refusal(run) -> Sentence:
    """The sentence of a refusal, without the frame and the line breaks around it."""
    assert run.returncode == 1, f"exit status {run.returncode}: {run.stderr}"
    return Sentence(" ".join(run.stderr.replace("│", " ").replace("×", " ").split()))


def in_parallel(work: Callable, items: Iterable) -> list:
    """`work` of every item, two at a time: most of it waits for another process."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, items))


def said(*args: object) -> Sentence:
    """What a command that succeeds reports."""
    return Sentence(per_inject(*args).stdout)
