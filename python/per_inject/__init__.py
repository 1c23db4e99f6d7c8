"""Puts PER, the projected error function regulariser, into ONNX training graphs that already exist.

>>> import per_inject
>>> per_inject.inject("model.onnx", layers="relu", coef=3e-5, output="model_per.onnx")
'model_per.onnx'

A model is given by its path, as bytes, or as ``onnx.ModelProto``, and comes back as the same. `inject` puts the regulariser in, `strip` takes
it out, `inspect` shows what can be regularised, `plan` what an injection would do, `diff` what differs, `differentiate` makes a step graph,
and `Trainer` trains. `weights_get` takes weights out of a model and `weights_put` puts them in. `per_inject.onnxblock` is for ONNX Runtime's
training API.

Everything is what the command line does, with the same options, reports and refusals. No function holds the interpreter's lock while it works.
"""

from . import _native
from ._commands import diff, differentiate, inject, inspect, plan, strip
from ._errors import AccessError, MissingFileError, PerInjectError, PerInjectWarning, RefusedError, UsageError
from ._trainer import Trainer
from ._weights import weights_get, weights_put

__version__: str = _native.VERSION

__all__ = [
    "AccessError",
    "MissingFileError",
    "PerInjectError",
    "PerInjectWarning",
    "RefusedError",
    "Trainer",
    "UsageError",
    "__version__",
    "diff",
    "differentiate",
    "inject",
    "inspect",
    "plan",
    "strip",
    "weights_get",
    "weights_put",
]
