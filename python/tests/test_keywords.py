"""Sentences name keyword arguments where the program's name options."""

import re

import pytest

import per_inject
from conftest import MODELS, program
from per_inject._keywords import _VALUES, in_python, keywords

MLP = MODELS / "mlp_relu.ts17.onnx"


@pytest.mark.parametrize(
    "said, here",
    [
        ("--any-coef accepts it", "any_coef=True accepts it"),
        ("--estimator exact does without", 'estimator="exact" does without'),
        ("choose with --loss NAME", "choose with loss NAME"),
        ("which layers? add --layers relu, or --layers all; …", 'which layers? add layers="relu", or layers="all"; …'),
        ("--coef without --layers: which layers?", "coef without layers: which layers?"),
        ("go on from there with --resume --on-nan skip", 'go on from there with resume=True on_nan="skip"'),
        ("a lower --lr, or", "a lower lr, or"),
        ("start with --coef 3e-5", "start with coef=3e-5"),
        ("invalid value 'fast' for '--lr <η>'", "invalid value 'fast' for 'lr'"),
        ("use --engine ort, whose", 'use engine="ort", whose'),
        ("leave --for out", "leave for_ out"),
        ("'per-inject inspect model' lists them", "per_inject.inspect lists them"),
        ("--all takes the others too", "all=True takes the others too"),
        ("gradients over batches here (--accumulate)", "gradients over batches here (accumulate)"),
        # What is no keyword, and what is no option.
        ("--format json lists them all; a--b, --seeds and ---seed", "--format json lists them all; a--b, --seeds and ---seed"),
        ('no tensor is named "x--lr"', 'no tensor is named "x--lr"'),
    ],
)
def test_options_are_keywords(said, here):
    assert in_python(said) == here


def test_values_are_those_of_the_options():
    pages = "".join(program(*command, "--help").stdout.decode() for command in ([], ["train"], ["differentiate"], ["strip"]))
    for option, values in _VALUES.items():
        assert option in keywords()
        (first, *_) = re.findall(rf"^ +(?:-\w, |    )--{option} .*?(?=^ +(?:-\w, |    )--|\Z)", pages, re.MULTILINE | re.DOTALL)
        if option != "layers":
            missing = {value for value in values if not re.search(rf"\b{value}\b", pages)}
            assert not missing, first


def test_refusals_and_warnings_are_told_so(tmp_path):
    with pytest.raises(per_inject.UsageError, match="any_coef=True"):
        per_inject.inject(MLP.read_bytes(), "relu", 3e5)
    with pytest.raises(per_inject.UsageError, match='add layers="relu".*; per_inject.inspect lists them'):
        per_inject.inject(MLP.read_bytes())
    with pytest.raises(per_inject.UsageError, match="'optimizer'"):
        per_inject.Trainer(MLP, optimizer="adamm")
