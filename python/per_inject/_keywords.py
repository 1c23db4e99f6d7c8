"""Sentences of the command line, whose options are keyword arguments here."""

from __future__ import annotations

import functools
import inspect
import re

#: What sentences say an option's value is, beside numbers; any other word after an option is a word of the sentence.
_VALUES = {
    "engine": {"auto", "ort", "ort-training", "tract"},
    "estimator": {"sampled", "structured", "exact"},
    "external": {"copy", "link", "keep"},
    "for": {"ort-training"},
    "form": {"auto", "loss", "gradient"},
    "layers": {"all", "none", "relu"},
    "on-nan": {"stop", "skip"},
    "optimizer": {"none", "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"},
    "outputs": {"task", "per", "layers"},
    "view": {"auto", "flatten", "channel", "last"},
}


@functools.cache
def keywords() -> dict[str, str]:
    """What an option of the command line is called here, by its name without dashes; of one that takes no value, as it is given."""
    from . import _commands, _trainer, _weights

    functions = (
        *(_commands.inject, _commands.strip, _commands.differentiate, _commands.inspect, _commands.diff),
        *(_weights.weights_get, _weights.weights_put, _trainer.Trainer, _trainer.Trainer.fit),
    )
    found = {"no-shuffle": "shuffle=False", "eval": "evaluation"}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY or name in ("layers", "coef"):
                shown = f"{name}=True" if parameter.default is False else name
                # What takes a value in one function and none in another is only named.
                option = name.rstrip("_").replace("_", "-")
                found[option] = shown if found.get(option, shown) == shown else name
    return found


def in_python(sentence: str) -> str:
    """The sentence with the keyword arguments in the place of the command line's options: ``--any-coef`` is ``any_coef=True``."""

    def keyword(found: re.Match[str]) -> str:
        option, placeholder, value = found.groups()
        name = keywords().get(option)
        if name is None:
            return found[0]
        if placeholder or value is None:
            return name
        if re.fullmatch(r"[0-9.]+(e[+-]?[0-9]+)?", value):
            return f"{name}={value}"
        return f'{name}="{value}"' if value in _VALUES.get(option, ()) else f"{name} {value}"

    sentence = re.sub(r"'per-inject (inspect|strip)\b[^']*'", r"per_inject.\1", sentence)
    return re.sub(r"(?<![\w-])--([a-z][a-z0-9-]*[a-z0-9])(?:( <[^>]*>)| ([a-z0-9](?:[\w.+-]*\w)?))?", keyword, sentence)
