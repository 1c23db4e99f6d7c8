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
        (per_inject.weights_get, ["weights", "get"]),
        (per_inject.weights_put, ["weights", "put"]),
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
    if function is per_inject.weights_put:
        arguments.remove("weights")
        options.remove("from")
    if function is per_inject.weights_get:
        # Nothing is written.
        options.remove("sync")
    assert arguments - PRINTED == options - PRINTED
    # The arguments of `plan` are those of `inject`, as it says.
    page = per_inject.inject.__doc__ if function is per_inject.plan else function.__doc__
    missing = [name for name in inspect.signature(function).parameters if not re.search(rf"^    (.*, )?{name}(, .*)?$", page, re.MULTILINE)]
    assert not missing


def test_the_trainer_has_every_option_of_train():
    page = program("train", "--help").stdout.decode()
    options = {name.replace("-", "_") for name in re.findall(r"^\s+(?:-\w, |    )--([a-z0-9-]+)", page, re.MULTILINE)}
    of = inspect.signature(per_inject.Trainer).parameters
    in_fit = inspect.signature(per_inject.Trainer.fit).parameters
    arguments = {*of, *in_fit} - {"self", "model"}
    # Where the nodes are put is printed; order is said the other way round; data for evaluation has its whole name.
    assert arguments == (options - {"help", "json", "verbose", "no_shuffle", "eval"}) | {"shuffle", "evaluation"}
    for function, parameters in ((per_inject.Trainer, of), (per_inject.Trainer.fit, in_fit)):
        missing = [n for n in parameters if n != "self" and not re.search(rf"^ +(.*, )?{n}(, .*)?$", function.__doc__, re.MULTILINE)]
        assert not missing
