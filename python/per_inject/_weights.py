"""Weights out of models, and into them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _arrays, _native
from ._commands import handed, report_of
from ._models import M, Model, destination, same_kind, warn
from ._options import Arguments, StrPath

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def weights_get(model: Model, *, all: bool = False, wrt: Optional[str] = None) -> dict[str, NDArray[Any]]:
    """The weights of a model by the name of their initializer.

    Parameters
    ----------
    model
        The model: its path, its bytes, or ``onnx.ModelProto``.
    all
        All initializers; without it those that training moves: weights by their role, and running statistics.
    wrt
        These initializers, whatever their role: a selector over names.

    Returns
    -------
    Arrays of the initializers' shapes and element types; bfloat16 as float32, which holds every value of it.

    Raises
    ------
    RefusedError
        Where there is nothing to take, or elements cannot be read.
    UsageError, AccessError, TypeError
        As `inject`.

    Warns
    -----
    PerInjectWarning
        Of initializers whose element type no array has.
    """
    options = Arguments("weights", "get")
    options.flag(all=all)
    options.text(wrt=wrt)
    options.path(output="weights.safetensors")
    data, warnings = _native.weights_get(handed(options, model), options.list)
    warn(warnings)
    return _arrays.safetensors(data)


def weights_put(
    model: M,
    weights: Union[StrPath, Mapping[str, ArrayLike]],
    *,
    output: Optional[StrPath] = None,
    map: Optional[Mapping[str, str]] = None,
    all: bool = False,
    wrt: Optional[str] = None,
    strict: bool = False,
    sync: bool = False,
) -> M:
    """Puts weights into a model; no other byte of it changes.

    Parameters
    ----------
    model
        The model: its path, its bytes, or ``onnx.ModelProto``.
    weights
        Arrays by the name of their initializer, as `weights_get` and `Trainer.weights` give them; or the path of a training checkpoint of
        ONNX Runtime, a safetensors file, an .npz archive, a PyTorch state dict, or another ONNX file. Nothing is rounded: an array has the
        element type and the shape of its initializer, and of bfloat16 the same numbers as float32.
    output
        Where the result goes, for a model given by its path; it may be the same path, where no weights lie in data files.
    map
        The initializer that an array is for, by array, where it has another name. ``*`` stands for any text, and ``:T`` behind the
        initializer transposes a matrix: ``{"module.*": "*", "fc.weight": "val_40:T"}``.
    all
        Arrays of all initializers are put in; without it those of initializers that training moves.
    wrt
        Arrays of these initializers are put in, whatever their role: a selector over names.
    strict
        Refuse when an initializer has no array, or an array no initializer.
    sync
        As for `inject`.

    Returns
    -------
    The same kind as `model`.

    Raises
    ------
    RefusedError
        Where an array does not fit its initializer, or there is an initializer for none of them.
    UsageError, AccessError, TypeError
        As `inject`.

    Warns
    -----
    PerInjectWarning
        Of arrays that were not put in, and of elements that are NaN or infinite.
    """
    target = destination(model, output)
    options = Arguments("weights", "put")
    options.path(output=target or "/dev/null")
    options.pairs(map=map)
    options.flag(all=all, strict=strict, sync=sync)
    options.text(wrt=wrt)
    arrays = None
    if isinstance(weights, Mapping):
        file = io.BytesIO()
        _arrays.save(file, weights)
        arrays = file.getvalue()
        options.text(**{"from": "weights"})
    elif isinstance(weights, (str, os.PathLike)):
        options.path(**{"from": weights})
    else:
        raise TypeError(f"weights are arrays by name, or a path, not {type(weights).__name__}")
    data, report, _ = _native.weights_put(handed(options, model), arrays, options.list)
    warn(_second_looks(report_of(report)))
    return same_kind(model, output, data)


def _second_looks(report: Mapping[str, Any]) -> list[str]:
    """What deserves a second look of a report of ``per-inject weights put``."""

    def names(entries: list[Any]) -> str:
        found = [entry if isinstance(entry, str) else entry["name"] for entry in entries]
        shown = ", ".join(map(repr, found[:5]))
        return shown if len(found) <= 5 else f"{shown} and {len(found) - 5} more"

    sentences = []
    if report["unknown"]:
        sentences.append(f"no initializer is called like {names(report['unknown'])}; map={{FROM: TO}} says where an array goes")
    if report["left"]:
        sentences.append(f"training does not move {names(report['left'])}, and they stay as they are; all=True puts their arrays in too")
    if report["not_finite"]:
        sentences.append(f"elements of {names(report['not_finite'])} are NaN or infinite now")
    return sentences
