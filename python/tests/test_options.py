"""Every option of the command line is an argument in Python, by the same name."""

import inspect
import re

import pytest

import per_inject
from conftest import program

# What is no option of a function: where results go and how they look is decided by what it gives back.
PRINTED = {"help", "version", "json", "dry_run", "output", "format", "exit_code", "expand", "full", "color", "initializers"}


@pytest.mark.parametrize(
    "function, command",
    [
        (per_inject.inject, []),
        (per_inject.plan, []),
        (per_inject.strip, ["strip"]),
        (per_inject.differentiate, ["differentiate"]),
        (per_inject.inspect, ["inspect"]),
        (per_inject.diff, ["diff"]),
    ],
)
def test_no_option_is_missing_and_none_is_made_up(function, command):
    page = program(*command, "--help").stdout.decode()
    options = {name.replace("-", "_") for name in re.findall(r"^\s+(?:-\w, |    )--([a-z0-9-]+)", page, re.MULTILINE)}
    assert len(options) > 3, page
    arguments = {name.rstrip("_") for name in inspect.signature(function).parameters} - {"model", "a", "b"}
    if function is per_inject.plan:
        # Nothing is written.
        options -= {"external", "sync"}
    assert arguments - PRINTED == options - PRINTED
    # The arguments of `plan` are those of `inject`, as it says.
    page = per_inject.inject.__doc__ if function is per_inject.plan else function.__doc__
    missing = [name for name in inspect.signature(function).parameters if not re.search(rf"^    (.*, )?{name}(, .*)?$", page, re.MULTILINE)]
    assert not missing
