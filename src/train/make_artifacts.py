"""Makes training artifacts of a forward model whose loss is its first output: python - < this REQUEST.json.

The request holds `model`, `folder`, `trained` (names of initializers), and `optimizer`: null for plain gradient descent, else `betas`,
`epsilon` and `decay` of AdamW. What cannot be is said in one line on standard error, with exit status 3 where the packages are not there and
4 where they do not take the model.
"""

import json
import logging
import sys
import types


def stop(status, message):
    print(" ".join(str(message).split()), file=sys.stderr)
    sys.exit(status)


# The training package imports its PyTorch-only half unless a module of that name is there already.
sys.modules["onnxruntime.training.optim"] = types.ModuleType("onnxruntime.training.optim")
logging.disable(logging.WARNING)
try:
    import onnx
    import onnxruntime
    from onnxruntime.training import artifacts, onnxblock
except Exception as error:
    stop(3, f"{type(error).__name__}: {error}")


def main(request):
    model = onnx.load(request["model"])
    adamw = request["optimizer"]
    if adamw is None:
        optimizer = onnxblock.optim.SGD()
    else:
        optimizer = onnxblock.optim.AdamW(betas=adamw["betas"], eps=adamw["epsilon"], weight_decay=adamw["decay"])
    artifacts.generate_artifacts(
        model, requires_grad=request["trained"], loss=None, optimizer=optimizer, artifact_directory=request["folder"]
    )
    path = request["folder"] + "/optimizer_model.onnx"
    made = onnx.load(path)
    if made.ir_version > model.ir_version and made.ir_version > 10:
        stop(
            3,
            f"onnx {onnx.__version__} writes IR version {made.ir_version}, and onnxruntime-training {onnxruntime.__version__} reads up to 10; "
            "'pip install \"onnx<1.18\"' there",
        )
    # Mode 1, which the block writes, puts epsilon elsewhere and decays after the step; mode 0 is PyTorch's AdamW.
    for node in made.graph.node:
        for attribute in node.attribute:
            if attribute.name == "adam_mode":
                attribute.i = 0
    onnx.save(made, path)


try:
    with open(sys.argv[1], encoding="utf-8") as file:
        main(json.load(file))
except Exception as error:
    stop(4, f"{type(error).__name__}: {error}")
