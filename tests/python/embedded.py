"""per-inject inside a process whose ONNX Runtime is onnxruntime-training's: embedded.py LIBRARY ARGUMENT..., run by .venv-ort-training."""

import ctypes
import sys

import onnxruntime


def main(library, arguments):
    # First, so that it stays loaded when the options go that it is registered with.
    run = ctypes.CDLL(library).per_inject_run
    # ONNX Runtime hands it its C API.
    onnxruntime.SessionOptions().register_custom_ops_library(library)
    words = [b"per-inject", *(argument.encode() for argument in arguments)]
    sys.exit(run(ctypes.c_size_t(len(words)), (ctypes.c_char_p * len(words))(*words)))


main(sys.argv[1], sys.argv[2:])
