"""The program ``per-inject``, as this package installs it."""

import signal
import sys

from . import _native


def main() -> int:
    """Runs the program with the arguments of this process; gives its exit code."""
    # Python would note Ctrl-C and wait for the extension module to come back.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _native.run(["per-inject", *sys.argv[1:]])
