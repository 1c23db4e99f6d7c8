"""What ONNX Runtime's generate_artifacts makes: ort_artifacts.py MODEL FOLDER, run by .venv-ort-training.

FOLDER holds request.json (`parameters`: names, or null for every float32 initializer but running statistics; `frozen`: names) and
receives made_training_model.onnx and made_checkpoint.
"""

import json
import pathlib
import sys

import ort_gradients
import onnx
from onnxruntime.training import artifacts


def main(model_path, folder):
    model = onnx.load(model_path)
    request = json.loads((folder / "request.json").read_text())
    parameters = request["parameters"]
    if parameters is None:
        parameters = [name for name in ort_gradients.float_parameters(model.graph) if name not in request["frozen"]]
    artifacts.generate_artifacts(
        model, requires_grad=parameters, frozen_params=request["frozen"], loss=None, artifact_directory=str(folder), prefix="made_"
    )


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
