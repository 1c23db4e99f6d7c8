"""The three kinds in which a model comes and goes: its path, its bytes, and ``onnx.ModelProto``, without importing onnx."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any, Optional, Protocol, TypeVar, Union, cast

from ._errors import PerInjectWarning, UsageError
from ._keywords import in_python
from ._options import StrPath, named


class ModelProto(Protocol):
    """``onnx.ModelProto``, as far as it is needed here: any protobuf message of that name."""

    def SerializeToString(self) -> bytes:
        """The model's bytes."""


#: A model: its path, its bytes, or ``onnx.ModelProto``.
Model = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, ModelProto]
M = TypeVar("M", bound=Model)

#: What the extension module takes: bytes, or a path.
Native = Union[bytes, str]


def native(model: Model) -> Native:
    """The model for the extension module.

    Raises
    ------
    TypeError
        For anything else than a model.
    """
    if isinstance(model, bytes):
        return model
    if isinstance(model, (bytearray, memoryview)):
        return bytes(model)
    if isinstance(model, (str, os.PathLike)):
        return named(model)
    serialize = getattr(model, "SerializeToString", None)
    if serialize is None or isinstance(model, type):
        given = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"a model is a path, bytes or onnx.ModelProto, not {given}")
    data = serialize()
    if not isinstance(data, bytes):
        raise TypeError(f"{type(model).__name__}.SerializeToString gave {type(data).__name__} instead of bytes")
    return data


def is_path(model: Model) -> bool:
    """Whether the model is in a file."""
    return isinstance(model, (str, os.PathLike))


def destination(model: Model, output: Optional[StrPath]) -> Optional[str]:
    """Where the result of an edit goes: a file for a model in a file, None for one in memory.

    Raises
    ------
    UsageError
        Where the two do not go together.
    """
    if is_path(model):
        if output is None:
            raise UsageError(
                "where shall the result go? a model given by its path wants output=PATH, which may be the same path; "
                "a model given as bytes or onnx.ModelProto comes back as one"
            )
        if not isinstance(output, (str, os.PathLike)):
            raise TypeError(f"output must be a path, not {type(output).__name__}")
        return named(output)
    if output is not None:
        raise UsageError("output= is for a model given by its path; this one comes back as what it is")
    return None


def same_kind(model: M, output: Optional[StrPath], data: Optional[bytes]) -> M:
    """The result of an edit as what the model was: where it was written, or bytes, or a message of the same class."""
    result: Any
    if data is None:
        result = output if type(output) is type(model) else _path_like(model, output)
    elif isinstance(model, (bytes, bytearray, memoryview)):
        result = type(model)(data)
    else:
        result = cast(Any, type(model)).FromString(data)
    return cast(M, result)


def _path_like(model: Model, output: Optional[StrPath]) -> StrPath:
    name = os.fspath(output or "")
    if isinstance(model, str):
        return name
    return type(model)(name) if isinstance(model, pathlib.PurePath) else pathlib.Path(name)


def warn(sentences: list[str], depth: int = 1) -> None:
    """Warns, as from the line that called the public function, which is `depth` calls up from here."""
    for sentence in sentences:
        warnings.warn(in_python(sentence), PerInjectWarning, stacklevel=depth + 2)
