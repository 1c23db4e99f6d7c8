"""Injects in memory: a model goes in, the injected model and the report come out."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import tempfile

import onnx

from command import per_inject

Model = str | os.PathLike | bytes | onnx.ModelProto


@dataclasses.dataclass(frozen=True)
class Injected:
    data: bytes
    report: dict

    @property
    def model(self) -> onnx.ModelProto:
        return onnx.load_from_string(self.data)

    @property
    def layers(self) -> list[str]:
        """The outputs that `--outputs layers` adds, in execution order."""
        return [f"per_inject/{layer['name']}/per" for layer in self.report["layers"]]


def inject(model: Model, *arguments: object, check: bool = True) -> Injected:
    """`per-inject MODEL ARGUMENTS --json`; with `check`, onnx's full check and strict shape inference pass the result too."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder, "model.onnx"), pathlib.Path(folder, "injected.onnx")
        if isinstance(model, onnx.ModelProto):
            model = model.SerializeToString()
        if isinstance(model, bytes):
            source.write_bytes(model)
        else:
            source = pathlib.Path(model)
        report = json.loads(per_inject(source, *arguments, "--json", "-o", target).stdout)
        injected = Injected(target.read_bytes(), report)
    if check:
        onnx.checker.check_model(injected.data, full_check=True)
        onnx.shape_inference.infer_shapes(injected.data, check_type=True, strict_mode=True, data_prop=True)
    return injected
