"""What is raised and what is warned of. Sentences are those of the command line."""


class PerInjectError(Exception):
    """Whatever this package refuses or cannot do. Nothing was written."""


class RefusedError(PerInjectError, ValueError):
    """The model, the data, or what was asked of them: the sentence names what was found and what to do. Exit code 1 of the program."""


class UsageError(PerInjectError, ValueError):
    """Options that make no sense, alone or together. Exit code 2 of the program."""


class AccessError(PerInjectError, OSError):
    """A file, a device or ONNX Runtime cannot be had. `errno` is the system's number, where the system gave one."""


class PerInjectWarning(UserWarning):
    """Something was done, and deserves a second look: a layer that was left out, for example."""
