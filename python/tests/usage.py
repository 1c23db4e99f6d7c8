"""What a program that uses the package looks like to a type checker: `mypy --strict` takes it, and what it must not take is marked."""

import pathlib

import numpy as np
import onnx
from typing_extensions import assert_type

import per_inject

path = pathlib.Path("model.onnx")

assert_type(per_inject.inject("model.onnx", "relu", 3e-5, output=path), str)
assert_type(per_inject.inject(path, layers="relu", coef={None: 3e-5, "#1": 1}, output="out.onnx"), pathlib.Path)
assert_type(per_inject.inject(b"", "relu", 3e-5, outputs=["task"], for_="ort-training"), bytes)
assert_type(per_inject.inject(onnx.ModelProto(), "relu", 3e-5, seed=1), onnx.ModelProto)
assert_type(per_inject.strip(bytearray()), bytearray)
assert_type(per_inject.differentiate(onnx.ModelProto(), optimizer="adam", group=["all=lr:0.1"]), onnx.ModelProto)
per_inject.inspect(path)["taps"]
per_inject.plan(path, "relu", 1)["layers"]
per_inject.diff(path, b"", run=True, inputs={"x": np.zeros(3)}, dim={"N": 4}, tolerance=1e-6)["equal"]

trainer = per_inject.Trainer(onnx.ModelProto(), "relu", coef="cosine:3e-5..0", lr=0.1)
trainer.fit({"x": np.zeros((4, 3)), "y": [0, 1, 2, 3]}, [path, "more.npz"], epochs=3)
assert_type(trainer.model, onnx.ModelProto)
trainer.weights["fc1.weight"].mean()
trainer.history[0]["values"]

per_inject.inject(b"", "relu", np.float32(1e-4))
per_inject.inject(b"", "relu", {"relu": np.float64(1e-4)})
by_layer: dict[str, float] = {"name:/fc*": 1e-4}
per_inject.inject(b"", coef=by_layer)
per_inject.Trainer(b"", "relu", np.float32(1e-4), lr=np.float32(0.1), momentum=np.float16(0.9))
weights = per_inject.weights_get(path, wrt="name:*.weight")
assert_type(per_inject.weights_put(path, weights, output="out.onnx"), pathlib.Path)
assert_type(per_inject.weights_put(b"", trainer.weights), bytes)
per_inject.weights_put(onnx.ModelProto(), "weights.npz", map={"a": "b:T"}, strict=True)

try:
    per_inject.inject(path, "relu", 1, output=path)
except per_inject.AccessError as error:
    print(error.errno, error.filename)
except (per_inject.RefusedError, per_inject.UsageError) as error:
    print(str(error))

per_inject.inject(3, "relu", 1)  # type: ignore[type-var]
per_inject.inject(b"", ["relu"], 1)  # type: ignore[arg-type]
per_inject.inject(b"", "relu", "3e-5")  # type: ignore[arg-type]
per_inject.inject(b"", "relu", 1, colour="red")  # type: ignore[call-arg]
per_inject.diff(b"")  # type: ignore[call-arg]
trainer.fit(3)  # type: ignore[arg-type]
