"""PER for training graphs that are put together with ``onnxruntime.training.onnxblock``.

>>> from onnxruntime.training import onnxblock
>>> from per_inject.onnxblock import PERLoss
>>> class Loss(onnxblock.TrainingBlock):
...     def __init__(self):
...         super().__init__()
...         self.cross_entropy = onnxblock.loss.CrossEntropyLoss()
...         self.per = PERLoss(layers="relu", coef=3e-5)
...         self.add = onnxblock.blocks.Add()
...
...     def build(self, logits):
...         return self.add(self.cross_entropy(logits), self.per())

Importing this module imports onnxruntime.training, which wants PyTorch for its ``optim`` unless ``onnxruntime.training.optim`` is in
``sys.modules`` already.
"""

from __future__ import annotations

from typing import Any, Optional

# The wheels of onnxruntime-training have no types.
try:
    from onnxruntime.training.onnxblock import blocks  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError as error:
    raise ImportError(
        f"per_inject.onnxblock is for ONNX Runtime's training API, and that cannot be imported here ({error}): "
        "install the wheel with it, 'pip install onnxruntime-training-cpu==1.19.2', in the place of onnxruntime, and PyTorch beside it",
        name=error.name,
    ) from error

from . import _commands
from ._options import Coefficient

__all__ = ["PERLoss"]


class PERLoss(blocks.Block):  # type: ignore[misc,unused-ignore]
    """A block whose output is λ·Σ PER(layer) over activations of the model so far; add it to the task loss.

    The graph is rewritten where ONNX Runtime's gradient builder would refuse it, as by ``per-inject --for ort-training``, with ELU among the
    reasons. Names, shapes and values of parameters stay what they are. What the block adds is constant and begins with ``per_inject``: it is
    no parameter, so leave it out of `requires_grad`.

    Call it without arguments, once, where everything that it shall see is in the model already; activations that later blocks add are not
    regularised.

    Parameters
    ----------
    layers, coef, estimator, slices, share_slices, view, reduction, seed, at, any_coef, wrt, freeze, strict
        As for `per_inject.inject`.

    Raises
    ------
    RefusedError, UsageError, TypeError
        When it is called, as `per_inject.inject`.
    """

    def __init__(
        self,
        layers: str,
        coef: Coefficient,
        *,
        estimator: str = "sampled",
        slices: int = 256,
        share_slices: bool = False,
        view: str = "auto",
        reduction: str = "mean",
        seed: Optional[int] = None,
        at: str = "post",
        any_coef: bool = False,
        wrt: Optional[str] = None,
        freeze: Optional[str] = None,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self._options: dict[str, Any] = {
            "layers": layers,
            "coef": coef,
            "estimator": estimator,
            "slices": slices,
            "share_slices": share_slices,
            "view": view,
            "reduction": reduction,
            "seed": seed,
            "at": at,
            "any_coef": any_coef,
            "wrt": wrt,
            "freeze": freeze,
            "strict": strict,
        }

    def build(self) -> str:
        """Puts the term into the model; gives the name of its output."""
        model = self.base
        injected = _commands.inject(model, as_output=True, for_="ort-training", **self._options)
        known = {output.name for output in model.graph.output}
        (term,) = (output for output in injected.graph.output if output.name not in known)
        # A value of the graph for the block around this one, which decides what the outputs are.
        injected.graph.output.remove(term)
        injected.graph.value_info.append(term)
        model.CopyFrom(injected)
        name: str = term.name
        return name
