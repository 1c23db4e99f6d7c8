"""The program ``per-inject``, as this package installs it."""

import os
import signal
import sys

from . import _native


def main() -> int:
    """Runs the program with the arguments of this process; gives its exit code."""
    # Python would note Ctrl-C and wait for the extension module to come back.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Artifacts for --engine ort-training are made by a Python; the packages of this one are at hand.
    os.environ.setdefault("PER_INJECT_PYTHON", sys.executable)
    return _native.run(["per-inject", *sys.argv[1:]], sys.executable or None)
