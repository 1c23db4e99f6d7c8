"""Runs the `per-inject` binary that the environment variable PER_INJECT names."""

from __future__ import annotations

import os
import pathlib
import subprocess


def per_inject(*args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs `per-inject ARGS` with no stdin; with `check`, any exit status but 0 fails the test and shows what it printed."""
    binary = os.environ.get("PER_INJECT")
    assert binary, "PER_INJECT must name the per-inject binary; tests/run sets it"
    assert pathlib.Path(binary).is_file(), f"PER_INJECT names {binary}, which is not there"
    run = subprocess.run([binary, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and run.returncode != 0:
        shown = " ".join(map(str, args))
        raise AssertionError(f"`per-inject {shown}` exited with {run.returncode}\n{run.stdout}{run.stderr}")
    return run
