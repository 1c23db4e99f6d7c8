"""From keyword arguments to the arguments of the command line, which parses them: one parser, one set of defaults and refusals."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from typing import Any, Optional, SupportsFloat, SupportsIndex, Union

from ._errors import UsageError

#: A number, be it NumPy's.
Number = Union[float, SupportsFloat]
#: λ: a number for every layer, or numbers by selector, the key None standing for all other layers.
Coefficient = Union[Number, Mapping[str, Number], Mapping[Optional[str], Number]]
#: A number, or a schedule such as ``"cosine:3e-5..0"``.
Schedule = Union[Number, str]
#: As `Coefficient`, with schedules in the place of numbers.
Schedules = Union[Schedule, Mapping[str, Schedule], Mapping[Optional[str], Schedule]]
#: A path of a file or a folder.
StrPath = Union[str, "os.PathLike[str]"]


def _refuse(name: str, wanted: str, value: object) -> TypeError:
    return TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


class Arguments:
    """Arguments of the command line, put together option by option. What is None keeps the command line's default."""

    def __init__(self, *command: str) -> None:
        self.list = list(command)

    def _add(self, name: str, value: str) -> None:
        # One word, so that a value may begin with a dash.
        self.list.append(f"--{name.strip('_').replace('_', '-')}={value}")

    def text(self, **options: Optional[str]) -> None:
        """Strings."""
        for name, value in options.items():
            if value is None:
                continue
            if not isinstance(value, str):
                raise _refuse(name, "a string", value)
            self._add(name, value)

    def path(self, **options: Optional[StrPath]) -> None:
        """Paths."""
        for name, value in options.items():
            if value is None:
                continue
            if not isinstance(value, (str, os.PathLike)):
                raise _refuse(name, "a path", value)
            self._add(name, named(value))

    def flag(self, **options: bool) -> None:
        """Options without a value."""
        for name, value in options.items():
            # numpy's bool is none of Python's, and says so itself.
            if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
                raise _refuse(name, "True or False", value)
            if value:
                self.list.append(f"--{name.replace('_', '-')}")

    def whole(self, **options: Optional[SupportsIndex]) -> None:
        """Whole numbers."""
        for name, value in options.items():
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, SupportsIndex):
                raise _refuse(name, "a whole number", value)
            self._add(name, str(operator.index(value)))

    def number(self, **options: Optional[SupportsFloat]) -> None:
        """Numbers, which survive the way through text bit for bit."""
        for name, value in options.items():
            if value is not None:
                self._add(name, _number(name, value))

    def several(self, **options: Optional[Union[str, Iterable[str]]]) -> None:
        """One string or more of them, each an option of its own."""
        for name, value in options.items():
            for item in [value] if isinstance(value, str) else value or ():
                self.text(**{name: item})

    def pairs(self, **options: Optional[Mapping[str, Any]]) -> None:
        """Mappings, each entry an option of its own: NAME=VALUE."""
        for name, value in options.items():
            if value is not None and not isinstance(value, Mapping):
                raise _refuse(name, "a mapping", value)
            for key, item in (value or {}).items():
                if not isinstance(key, str):
                    raise _refuse(f"each key of {name}", "a string", key)
                self._add(name, f"{key}={item}")

    def coefficient(self, value: Union[None, Coefficient, Schedules], schedules: bool = False) -> None:
        """λ, common and by selector."""
        if value is None:
            return
        entries = value.items() if isinstance(value, Mapping) else [(None, value)]
        for selector, each in entries:
            if selector is not None and not isinstance(selector, str):
                raise _refuse("each key of coef", "a selector or None", selector)
            text = each if schedules and isinstance(each, str) else _number("coef", each)
            self._add("coef", text if selector is None else f"{selector}={text}")


def _number(name: str, value: object) -> str:
    # A string of digits is a slip more often than not.
    if isinstance(value, (bool, str, bytes)) or not isinstance(value, SupportsFloat):
        raise _refuse(name, "a number", value)
    try:
        return repr(float(value))
    except OverflowError:
        raise UsageError(f"{name} is larger than any number that can be counted with, which end at 1.8e308") from None


def named(path: StrPath) -> str:
    """A path for the command line, to which ``-`` alone would be a standard stream."""
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"a path must be a string, not {type(name).__name__}")
    return os.path.join(".", name) if name == "-" else name
