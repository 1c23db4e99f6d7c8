"""What is raised and what is warned of. Sentences are those of the command line, with keyword arguments in the place of options."""

from __future__ import annotations

import errno as numbers
import os
from typing import Any, Optional

from ._keywords import in_python


class PerInjectError(Exception):
    """Whatever this package refuses or cannot do. Nothing was written."""


class RefusedError(PerInjectError, ValueError):
    """The model, the data, or what was asked of them: the sentence names what was found and what to do. Exit code 1 of the program."""


class UsageError(PerInjectError, ValueError):
    """Options that make no sense, alone or together. Exit code 2 of the program."""


class AccessError(PerInjectError, OSError):
    """A file, a device or ONNX Runtime cannot be had. `errno` is the system's number and `filename` the file, where there is one."""

    def __init__(self, sentence: str, errno: Optional[int] = None, filename: Optional[str] = None) -> None:
        super().__init__(sentence)
        self.errno, self.filename = errno, filename
        self.strerror = None if errno is None else os.strerror(errno)

    def __str__(self) -> str:
        # OSError would put a sentence of its own together.
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.errno, self.filename)


class MissingFileError(AccessError, FileNotFoundError):
    """A file that is not there."""


class PerInjectWarning(UserWarning):
    """Something was done, and deserves a second look: a layer that was left out, for example."""


def refusal(kind: str, sentence: str, errno: Optional[int], filename: Optional[os.PathLike[str]]) -> PerInjectError:
    """The exception for a refusal of the extension module: ``"usage"``, ``"system"`` or ``"refused"``."""
    sentence = in_python(sentence)
    if kind != "system":
        return UsageError(sentence) if kind == "usage" else RefusedError(sentence)
    error = MissingFileError if errno == numbers.ENOENT else AccessError
    return error(sentence, errno, None if filename is None else os.fspath(filename))
