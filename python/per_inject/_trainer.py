"""Training."""

from __future__ import annotations

import atexit
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Optional, TypeVar, Union

from . import _arrays, _native
from ._commands import runtime
from ._errors import UsageError
from ._models import M, is_path, native, same_kind, warn
from ._options import Arguments, Number, Schedule, Schedules, StrPath, named

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    #: Arrays by the name of the input, rows of which are samples; or files and folders, as ``per-inject train --data`` takes them.
    Data = Union[Mapping[str, ArrayLike], StrPath, Sequence[StrPath]]


T = TypeVar("T")

# What the runtime of a training wheel looks into lies on disk to the end of the process.
atexit.register(_native.tidy)


class Trainer(Generic[M]):
    """Trains a forward graph that holds its loss, with the regulariser or without, on stock ONNX Runtime.

    The run is that of ``per-inject train``, bit for bit: the graph is injected and differentiated into standard operators, and stepped.
    It needs the package onnxruntime, or another ONNX Runtime from 1.17 on.

    >>> trainer = per_inject.Trainer("model.onnx", layers="relu", coef=3e-5, lr="cosine:0.05..0")
    >>> trainer.fit({"x": x, "y": y}, {"x": x_test, "y": y_test}, epochs=10, out="run")["evaluation"]["accuracy"]
    0.98
    >>> trainer.weights["fc1.weight"].shape
    (300, 784)

    Parameters
    ----------
    model
        The forward graph with its loss: its path, its bytes, or ``onnx.ModelProto``.
    layers, coef, estimator, slices, share_slices, view, reduction, at, any_coef, strict, loss, wrt, freeze
        As for `inject`. Without `layers` nothing is regularised; ``coef=0`` measures PER and leaves the loss alone; a coefficient may be a
        schedule.
    optimizer, momentum, weight_decay, beta1, beta2, alpha, epsilon, group, clip_norm, clip_value
        As for `differentiate`; ``"sgd"`` unless it is given.
    lr
        The learning rate: a number, or a schedule such as ``"cosine:0.05..0"``, ``"warmup:2,step:0.1@30,60"`` or ``"plateau:0.05@3"``.
    accumulate
        Sum gradients over that many batches and change the parameters by their mean, and at the end of an epoch.
    loss_scale
        A factor of the loss on the way back, for half precision.
    batch_size
        Samples of a batch; 128 where the graph does not say it.
    batch_axis
        The axis that counts samples, by input, where it is neither the only open one nor the first.
    map
        The array that an input takes, by input, where it has another name.
    normalize
        Bring an input to mean 0 and standard deviation 1: ``"[INPUT=]MEAN,STD"``, or a mean and then a deviation for each channel.
    augment
        Move and mirror images by chance: ``"pad-crop:4,flip"``, or one of the two.
    ahead
        Batches that another thread reads ahead, where there is a core for it or they take time; 0 reads each when it is wanted.
    shuffle
        Go through samples in random order.
    seed
        Seed of the order of samples, of slices, and of Dropout.
    on_nan
        What happens when a step gives a loss or a gradient that is no number: ``"stop"`` or ``"skip"``.
    metric
        What is measured beside the loss: ``"auto"``, ``"accuracy"``, ``"perplexity"`` or ``"none"``.
    quiet
        False shows bars, or a line for every epoch, on standard error.
    device, threads, ort
        As for `diff`.
    engine
        What makes the steps: ``"auto"``, ``"ort"``, ``"ort-training"`` or ``"tract"``.
    python
        With ``engine="ort-training"``: the Python that makes artifacts of a model; this one unless it is given.
    tf32, cudnn_search, cuda_graph, cuda_arena, cuda_memory
        For ``device="cuda"``; `per-inject train --help` has them.
    """

    def __init__(
        self,
        model: M,
        layers: Optional[str] = None,
        coef: Optional[Schedules] = None,
        *,
        estimator: str = "sampled",
        slices: int = 256,
        share_slices: bool = False,
        view: str = "auto",
        reduction: str = "mean",
        at: str = "post",
        any_coef: bool = False,
        strict: bool = False,
        loss: Optional[str] = None,
        wrt: Optional[str] = None,
        freeze: Optional[str] = None,
        optimizer: str = "sgd",
        momentum: Optional[Number] = None,
        weight_decay: Optional[Number] = None,
        beta1: Optional[Number] = None,
        beta2: Optional[Number] = None,
        alpha: Optional[Number] = None,
        epsilon: Optional[Number] = None,
        group: Union[str, Iterable[str]] = (),
        clip_norm: Optional[Number] = None,
        clip_value: Optional[Number] = None,
        lr: Schedule = 0.05,
        accumulate: int = 1,
        loss_scale: Optional[Number] = None,
        batch_size: Optional[int] = None,
        batch_axis: Optional[Mapping[str, int]] = None,
        map: Optional[Mapping[str, str]] = None,
        normalize: Union[str, Iterable[str]] = (),
        augment: Optional[str] = None,
        ahead: Optional[int] = None,
        shuffle: bool = True,
        seed: int = 0,
        on_nan: str = "stop",
        metric: str = "auto",
        quiet: bool = True,
        device: str = "cpu",
        threads: Optional[int] = None,
        ort: Optional[StrPath] = None,
        engine: str = "auto",
        python: Optional[StrPath] = None,
        tf32: bool = False,
        cudnn_search: Optional[str] = None,
        cuda_graph: bool = False,
        cuda_arena: Optional[str] = None,
        cuda_memory: Optional[int] = None,
    ) -> None:
        options = Arguments("train")
        options.text(layers=layers, estimator=estimator, view=view, reduction=reduction, at=at)
        options.text(loss=loss, wrt=wrt, freeze=freeze, optimizer=optimizer, augment=augment, on_nan=on_nan, metric=metric)
        is_ort_training = engine == "ort-training"
        options.text(engine=engine, device=device, cudnn_search=cudnn_search, cuda_arena=cuda_arena)
        options.path(python=sys.executable if is_ort_training and python is None else python)
        options.coefficient(coef, schedules=True)
        options.whole(slices=slices, accumulate=accumulate, batch_size=batch_size, seed=seed)
        options.whole(threads=threads, cuda_memory=cuda_memory)
        options.number(momentum=momentum, weight_decay=weight_decay, beta1=beta1, beta2=beta2, alpha=alpha, epsilon=epsilon)
        options.number(clip_norm=clip_norm, clip_value=clip_value, loss_scale=loss_scale)
        options.several(group=group, normalize=normalize)
        options.pairs(batch_axis=batch_axis, map=map)
        options.flag(share_slices=share_slices, any_coef=any_coef, strict=strict, quiet=quiet, tf32=tf32, cuda_graph=cuda_graph)
        options.flag(no_shuffle=not shuffle if isinstance(shuffle, bool) else shuffle)
        if isinstance(lr, str):
            options.text(lr=lr)
        else:
            options.number(lr=lr)
        # The training API is that of the onnxruntime which Python loads itself.
        self._options, self._find_ort = options, ort is None and not is_ort_training
        options.path(ort=ort)
        self._ahead = ahead
        self._given, self._native = model, native(model)
        _native.check_training(self._native, [*options.list, "--data=data", "--out=run", "--", self._name()])
        self._model: Optional[M] = None
        self._weights: Optional[dict[str, NDArray[Any]]] = None
        self._history: Optional[list[dict[str, Any]]] = None

    def fit(
        self,
        data: Data,
        evaluation: Optional[Data] = None,
        *,
        epochs: int = 10,
        out: Optional[StrPath] = None,
        resume: bool = False,
        checkpoint_every: Optional[int] = None,
        keep: int = 3,
    ) -> dict[str, Any]:
        """Trains from the weights that the model has; afterwards `model`, `weights` and `history` are those of this run.

        Ctrl-C stops it after the step, with a checkpoint in `out`, and raises KeyboardInterrupt; ``resume=True`` goes on from there and
        ends in the same bits as a run that was never stopped. `model`, `weights` and `history` are those of the stopped run then; after a
        loss that is no number, those before that step.

        Parameters
        ----------
        data
            Arrays by the name of the input, rows of which are samples; or a file or folder, or several, as ``--data`` takes them. Arrays are
            copied once; files are read batch by batch, and may be larger than memory.
        evaluation
            The same, to evaluate on after every epoch.
        epochs
            How often the data is gone through.
        out
            The folder of the run: checkpoints, log.jsonl, tensorboard, and at the end model.onnx and model.safetensors. A model given by
            its path wants one; for another it may be left out, and then nothing of the run stays on disk.
        resume
            Go on from the last checkpoint in `out`.
        checkpoint_every
            Steps between two checkpoints; without it there is one after every epoch.
        keep
            How many of the last checkpoints are kept, beside the best.

        Returns
        -------
        The summary of ``per-inject train --json`` (schemas/train.schema.json): loss, task loss, PER of each layer and metric of the last
        epoch under ``"training"``, of the last evaluation under ``"evaluation"``.

        Raises
        ------
        RefusedError
            Also for data that does not fit, and for a loss that is no number any more.
        AccessError
            Also where there is no ONNX Runtime, or not the device.
        UsageError, TypeError
            As `inject`.
        KeyboardInterrupt
            And whatever else a handler of a signal raises.
        """
        if out is None and (is_path(self._given) or resume):
            what = "a model given by its path" if is_path(self._given) else "resume=True"
            raise UsageError(f"where shall the run go? {what} wants out=FOLDER")
        if out is not None:
            return self._run(data, evaluation, epochs, out, resume, checkpoint_every, keep)
        kept = "in weights, model and history of the Trainer"
        with tempfile.TemporaryDirectory(prefix="per-inject-") as folder:
            return self._run(data, evaluation, epochs, folder, resume, checkpoint_every, keep, kept)

    def _run(
        self,
        data: Data,
        evaluation: Optional[Data],
        epochs: int,
        out: StrPath,
        resume: bool,
        checkpoint_every: Optional[int],
        keep: int,
        kept: Optional[str] = None,
    ) -> dict[str, Any]:
        options = Arguments(*self._options.list)
        options.path(out=out, ort=runtime() if self._find_ort else None)
        options.whole(epochs=epochs, checkpoint_every=checkpoint_every, keep=keep)
        # The thread that reads ahead would share work with others, of which a child that fork made has none. Results are the same.
        options.whole(ahead=0 if _native.is_forked() else self._ahead)
        options.flag(resume=resume)
        # The command line wants to see data; it is handed over beside it.
        options.text(data="data", eval=None if evaluation is None else "evaluation")
        options.list += ["--", self._name()]
        handed = None if evaluation is None else _handed(evaluation)
        folder = pathlib.Path(out)
        before = _version(folder / "model.safetensors")
        try:
            interrupted, summary, warnings = _native.train(self._native, _handed(data), handed, kept, options.list)
            # Nobody but a signal stops a run, and then the extension module raises.
            assert not interrupted
        finally:
            # A run that was refused has written nothing; one that was stopped has.
            if _version(folder / "model.safetensors") != before:
                self._take(folder)
        warn(warnings, depth=2)
        report: dict[str, Any] = json.loads(summary)
        return report

    def _name(self) -> str:
        """The model for the command line."""
        return self._native if isinstance(self._native, str) else "model"

    def _take(self, folder: pathlib.Path) -> None:
        """Takes what a run wrote."""
        result = folder / "model.onnx"
        self._model = same_kind(self._given, result, None if is_path(self._given) else result.read_bytes())
        self._weights = _arrays.safetensors((folder / "model.safetensors").read_bytes())
        self._history = [_event(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def model(self) -> M:
        """The trained model, as the kind that was given: a path is that of ``model.onnx`` in the folder of the run."""
        return _after_fit(self._model)

    @property
    def weights(self) -> dict[str, NDArray[Any]]:
        """The trained parameters and running statistics by name; bfloat16 as float32, which holds every value of it."""
        return _after_fit(self._weights)

    @property
    def history(self) -> list[dict[str, Any]]:
        """What log.jsonl has: ``{"kind": "train", "step": …, "epoch": …, "time": …, "values": {"loss": …}}`` for every step, for every epoch's
        means (``"epoch/loss"`` …), and, of the kind ``"eval"``, for every evaluation."""
        return _after_fit(self._history)


def _after_fit(value: Optional[T]) -> T:
    if value is None:
        raise AttributeError("nothing is trained yet: call fit first")
    return value


def _version(path: pathlib.Path) -> Optional[tuple[int, int]]:
    """What tells a file from another one that takes its place; None without a file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _event(line: str) -> dict[str, Any]:
    """A line of log.jsonl, which has NaN and infinity as strings."""
    event: dict[str, Any] = json.loads(line)
    return {**event, "values": {name: float(value) for name, value in event["values"].items()}}


def _handed(data: Data) -> Union[list[str], list[tuple[str, bytes]]]:
    """Data for the extension module."""
    if isinstance(data, Mapping):
        for name in data:
            if not isinstance(name, str):
                raise TypeError(f"arrays are given by the name of an input, not by {type(name).__name__}")
        return [(name, _arrays.npy(name, array)) for name, array in data.items()]
    if isinstance(data, (str, os.PathLike)):
        return [named(data)]
    if not isinstance(data, Sequence) or isinstance(data, (bytes, bytearray)):
        given = type(data).__name__
    elif all(isinstance(path, (str, os.PathLike)) for path in data):
        return [named(path) for path in data]
    else:
        given = f"{type(data).__name__} of {next(type(item).__name__ for item in data if not isinstance(item, (str, os.PathLike)))}"
    raise TypeError(
        f'data is a dict of arrays by the name of the input that takes them, {{"x": x, "y": y}}, or a path, or several paths, not {given}'
    )
