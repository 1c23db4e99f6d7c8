"""The commands as functions."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _arrays, _native
from ._models import M, Model, destination, native, same_kind, warn
from ._options import Arguments, Coefficient, Number, StrPath

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def inject(
    model: M,
    layers: Optional[str] = None,
    coef: Optional[Coefficient] = None,
    *,
    output: Optional[StrPath] = None,
    estimator: str = "sampled",
    slices: int = 256,
    share_slices: bool = False,
    view: str = "auto",
    reduction: str = "mean",
    seed: Optional[int] = None,
    at: str = "post",
    loss: Optional[str] = None,
    as_output: bool = False,
    form: str = "auto",
    loss_term: bool = False,
    outputs: Union[str, Iterable[str]] = (),
    coef_input: bool = False,
    any_coef: bool = False,
    for_: Optional[str] = None,
    wrt: Optional[str] = None,
    freeze: Optional[str] = None,
    strict: bool = False,
    external: str = "copy",
    sync: bool = False,
) -> M:
    """Adds λ·Σ PER(layer) to the loss of a training graph; everything else stays byte for byte as it was.

    Parameters
    ----------
    model
        The training graph: its path, its bytes, or ``onnx.ModelProto``.
    layers
        A selector of the layers to regularise: ``"relu"``, ``"all,!#1"``, ``"name:/fc*"`` … ; `per-inject --help` has the language.
    coef
        The coefficient λ; or λ by selector, the key None standing for all other layers: ``{None: 3e-5, "name:/fc*": 1e-4}``.
    output
        Where the result goes, for a model given by its path; it may be the same path.
    estimator
        ``"sampled"``, the paper's Monte Carlo; ``"structured"``, with slices that differ in signs; ``"exact"``, the closed form.
    slices
        Slices of the sampled and the structured estimator; structured gives a sample of many rows a quarter, its own.
    share_slices
        One draw for all layers whose rows are as long.
    view
        What one sample is: ``"flatten"``, all activations; ``"channel"``, the channels at a location; ``"last"``, the last axis at a
        position; ``"auto"`` decides by the kind of activation.
    reduction
        ``"mean"`` over rows, or their ``"sum"``.
    seed
        Makes the random slices reproducible.
    at
        Tap an activation's output, ``"post"``, or its input, ``"pre"``.
    loss
        The loss, where several outputs could be it.
    as_output
        Leave any loss alone and add the term as an output ``per_loss``.
    form
        ``"loss"`` adds the term to the loss, ``"gradient"`` its gradient to those in the graph; ``"auto"`` does what the graph wants.
    loss_term
        In the gradient form: add the term to the loss as well.
    outputs
        What to expose as further outputs: ``"task"``, ``"per"``, ``"layers"``.
    coef_input
        Make λ a graph input.
    any_coef
        Accept a coefficient of 1000 and more.
    for_
        Rewrite what a pipeline refuses: ``"ort-training"``. With ``layers="none"``, do only that.
    wrt, freeze
        Selectors of the initializers that are trained, and of those that are not.
    strict
        Refuse when a selected activation cannot be regularised, instead of leaving it out with a warning.
    external
        What happens to external data when `output` is in another folder: ``"copy"``, ``"link"`` or ``"keep"``.
    sync
        Flush to disk before the rename, also above 64 MB.

    Returns
    -------
    The same kind as `model`: the path `output`, bytes, or a message of the same class.

    Raises
    ------
    RefusedError, UsageError
        Both are ValueErrors, with the sentence that the command line would print.
    AccessError
        An OSError: a file cannot be read or written.
    TypeError
        For an argument of a type that makes no sense.

    Warns
    -----
    PerInjectWarning
        Of layers that were left out, and of whatever else deserves a second look.
    """
    target = destination(model, output)
    options = Arguments()
    _injection(options, dict(locals()))
    options.path(output=target)
    options.text(external=external)
    options.flag(sync=sync, dry_run=target is None)
    data, _, warnings = _native.inject(handed(options, model), options.list)
    warn(warnings)
    return same_kind(model, output, data)


def plan(
    model: Model,
    layers: Optional[str] = None,
    coef: Optional[Coefficient] = None,
    *,
    estimator: str = "sampled",
    slices: int = 256,
    share_slices: bool = False,
    view: str = "auto",
    reduction: str = "mean",
    seed: Optional[int] = None,
    at: str = "post",
    loss: Optional[str] = None,
    as_output: bool = False,
    form: str = "auto",
    loss_term: bool = False,
    outputs: Union[str, Iterable[str]] = (),
    coef_input: bool = False,
    any_coef: bool = False,
    for_: Optional[str] = None,
    wrt: Optional[str] = None,
    freeze: Optional[str] = None,
    strict: bool = False,
) -> dict[str, Any]:
    """What `inject` would do with the same arguments; nothing is written.

    Returns
    -------
    The report of ``per-inject --dry-run --json`` (schemas/report.schema.json): layers with their row length and cost, what is added,
    warnings.

    Raises
    ------
    RefusedError, UsageError, AccessError, TypeError
        As `inject`.
    """
    options = Arguments()
    _injection(options, dict(locals()))
    options.flag(dry_run=True)
    return report_of(_native.inject(handed(options, model), options.list)[1])


def strip(
    model: M, *, output: Optional[StrPath] = None, all: bool = False, external: str = "copy", sync: bool = False
) -> M:
    """Takes an injected regulariser, or a backward pass of `differentiate`, out again.

    The result is the original, bit for bit; weights are as they are in `model`.

    Parameters
    ----------
    model
        The model: its path, its bytes, or ``onnx.ModelProto``.
    output
        Where the result goes, for a model given by its path; it may be the same path.
    all
        Take out every injection, not only the last one.
    external, sync
        As for `inject`.

    Returns
    -------
    The same kind as `model`.

    Raises
    ------
    RefusedError
        Where nothing was injected, or what was injected has been edited since.
    UsageError, AccessError, TypeError
        As `inject`.
    """
    target = destination(model, output)
    options = Arguments("strip")
    options.path(output=target or "/dev/null")
    options.text(external=external)
    options.flag(all=all, sync=sync)
    data, _, warnings = _native.strip(handed(options, model), options.list)
    warn(warnings)
    return same_kind(model, output, data)


def differentiate(
    model: M,
    *,
    output: Optional[StrPath] = None,
    optimizer: str = "none",
    momentum: Optional[Number] = None,
    weight_decay: Optional[Number] = None,
    beta1: Optional[Number] = None,
    beta2: Optional[Number] = None,
    alpha: Optional[Number] = None,
    epsilon: Optional[Number] = None,
    group: Union[str, Iterable[str]] = (),
    clip_norm: Optional[Number] = None,
    clip_value: Optional[Number] = None,
    gradient_norm: bool = False,
    accumulate: bool = False,
    loss_scale: Optional[Number] = None,
    loss_scale_input: bool = False,
    opset: Optional[int] = None,
    device: str = "cpu",
    loss: Optional[str] = None,
    wrt: Optional[str] = None,
    freeze: Optional[str] = None,
    external: str = "copy",
    sync: bool = False,
) -> M:
    """Turns a forward + loss graph into a step graph: forward, backward and optimiser in standard operators.

    A parameter ``p`` becomes an input with its weights as default, and an output ``p_next``; with ``optimizer="none"`` its gradient is the
    output ``p_grad``. The model's metadata says what every name is for (schemas/step.schema.json). `strip` takes the step out again.

    Parameters
    ----------
    model
        The forward graph with its loss: its path, its bytes, or ``onnx.ModelProto``.
    output
        Where the result goes, for a model given by its path; it may be the same path.
    optimizer
        ``"none"``, ``"sgd"``, ``"momentum"``, ``"nesterov"``, ``"adam"``, ``"adamw"`` or ``"rmsprop"``.
    momentum, weight_decay, beta1, beta2, alpha, epsilon
        The optimiser's constants.
    group
        Parameters with settings of their own: ``"name:*.bias=lr:0.1,decay:0"``, one or more.
    clip_norm, clip_value
        Bounds of the gradients' norm, or of each entry.
    gradient_norm
        Make the norm of all gradients an output.
    accumulate
        Sum gradients from run to run, and step when the input ``apply`` is true.
    loss_scale, loss_scale_input
        A factor of the loss on the way back, as a number or as an input.
    opset
        Raise the model to this operator set first.
    device
        ``"cpu"`` or ``"cuda"``, where the step graph is to run: it is right on both, but faster on this one.
    loss, wrt, freeze, external, sync
        As for `inject`.

    Returns
    -------
    The same kind as `model`.

    Raises
    ------
    RefusedError
        Where something cannot be differentiated: the sentence names the node.
    UsageError, AccessError, TypeError
        As `inject`.
    """
    target = destination(model, output)
    options = Arguments("differentiate")
    options.path(output=target or "/dev/null")
    options.text(optimizer=optimizer, device=device, loss=loss, wrt=wrt, freeze=freeze, external=external)
    options.number(momentum=momentum, weight_decay=weight_decay, beta1=beta1, beta2=beta2, alpha=alpha, epsilon=epsilon)
    options.number(clip_norm=clip_norm, clip_value=clip_value, loss_scale=loss_scale)
    options.several(group=group)
    options.whole(opset=opset)
    options.flag(gradient_norm=gradient_norm, accumulate=accumulate, loss_scale_input=loss_scale_input, sync=sync)
    data, _, warnings = _native.differentiate(handed(options, model), options.list)
    warn(warnings)
    return same_kind(model, output, data)


def inspect(model: Model, *, wrt: Optional[str] = None, freeze: Optional[str] = None) -> dict[str, Any]:
    """What a model holds: what kind of graph it is, what its loss is, which activations can be regularised and at what cost, the roles of
    its initializers, and what would make it train wrongly.

    Parameters
    ----------
    model
        The model: its path, its bytes, or ``onnx.ModelProto``.
    wrt, freeze
        Selectors of the initializers that are trained, and of those that are not.

    Returns
    -------
    The report of ``per-inject inspect --json`` (schemas/inspect.schema.json).

    Raises
    ------
    RefusedError, UsageError, AccessError, TypeError
        As `inject`.
    """
    options = Arguments("inspect")
    options.text(wrt=wrt, freeze=freeze)
    return report_of(_native.inspect(handed(options, model), options.list))


def diff(
    a: Model,
    b: Model,
    *,
    ignore: Union[str, Iterable[str]] = (),
    run: bool = False,
    inputs: Union[None, StrPath, Mapping[str, ArrayLike]] = None,
    seed: Optional[int] = None,
    dim: Optional[Mapping[str, int]] = None,
    tolerance: Optional[Number] = None,
    bisect: bool = False,
    ort: Optional[StrPath] = None,
    device: Optional[str] = None,
    threads: Optional[int] = None,
) -> dict[str, Any]:
    """What differs between two models: nodes by structure, names second; with `run`, also what they compute.

    Parameters
    ----------
    a, b
        The model before and the model after: paths, bytes, or ``onnx.ModelProto``.
    ignore
        What not to compare: ``"names"``, ``"docs"``, ``"shapes"``, ``"weights"``, one or more.
    run
        Run both on the same inputs with ONNX Runtime and compare what comes out. All arguments below are for this.
    inputs
        Arrays by the name of the input, or the path of an .npz archive or of a folder of .npy files; what is missing is made up.
    seed
        Seed of the inputs that are made up.
    dim
        Sizes of dimensions of inputs that are made up, by symbol or ``INPUT:AXIS``.
    tolerance
        Floats a and b agree where \\|a − b\\| ≤ tolerance · max(1, \\|a\\|, \\|b\\|); 0 unless it is given.
    bisect
        Find the first value in execution order that differs.
    ort
        ONNX Runtime: its library, a folder that holds it, or a Python environment. Unless it is given: what ORT_DYLIB_PATH names, the
        package onnxruntime of this interpreter, and where the command line looks.
    device
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    threads
        Threads on the CPU; all cores where it is not given.

    Returns
    -------
    The report of ``per-inject diff --format json`` (schemas/diff.schema.json); ``["equal"]`` says whether nothing differs, and
    ``["run"]["agree"]`` whether what came out agrees.

    Raises
    ------
    RefusedError, UsageError, TypeError
        As `inject`.
    AccessError
        Also where there is no ONNX Runtime.
    """
    options = Arguments("diff")
    options.several(ignore=ignore)
    options.flag(run=run, bisect=bisect)
    options.whole(seed=seed, threads=threads)
    options.number(tolerance=tolerance)
    options.text(device=device)
    options.pairs(dim=dim)
    options.path(ort=runtime() if run and ort is None else ort)
    with _as_file(inputs) as path:
        options.path(inputs=path)
        # The command line wants to see two models; these are handed over beside it.
        return report_of(_native.diff(native(a), native(b), [*options.list, "--", "a", "b"]))


def runtime() -> Optional[str]:
    """The package onnxruntime of this interpreter, unless ORT_DYLIB_PATH names another one or it holds no library."""
    if os.environ.get("ORT_DYLIB_PATH"):
        return None
    spec = importlib.util.find_spec("onnxruntime")
    for folder in spec.submodule_search_locations or () if spec else ():
        names = [entry.name for entry in pathlib.Path(folder, "capi").glob("*onnxruntime.*")]
        if any(name.startswith(("libonnxruntime.", "onnxruntime.dll")) for name in names):
            return folder
    return None


@contextlib.contextmanager
def _as_file(inputs: Union[None, StrPath, Mapping[str, ArrayLike]]) -> Iterator[Optional[StrPath]]:
    if inputs is None or isinstance(inputs, (str, os.PathLike)):
        yield inputs
        return
    with tempfile.TemporaryDirectory(prefix="per-inject-") as folder:
        path = pathlib.Path(folder, "inputs.npz")
        _arrays.save(path, inputs)
        yield path


def _injection(options: Arguments, given: Mapping[str, Any]) -> None:
    """The options that `inject` and `plan` share."""
    options.coefficient(given["coef"])
    texts = ("layers", "estimator", "view", "reduction", "at", "loss", "form", "for_", "wrt", "freeze")
    options.text(**{name: given[name] for name in texts})
    options.whole(slices=given["slices"], seed=given["seed"])
    options.several(outputs=given["outputs"])
    flags = ("share_slices", "as_output", "loss_term", "coef_input", "any_coef", "strict")
    options.flag(**{name: given[name] for name in flags})


def handed(options: Arguments, model: Model) -> Union[bytes, str]:
    """The model for the extension module, and its name for the command line."""
    data = native(model)
    options.list += ["--", data if isinstance(data, str) else "model"]
    return data


def report_of(text: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(text)
    return report
