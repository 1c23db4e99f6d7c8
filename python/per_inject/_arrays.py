"""Arrays as NumPy's own file format, which keeps element type, byte order and layout."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def _write(file: IO[bytes], name: str, array: ArrayLike) -> None:
    # Not at the top: the program `per-inject` starts in half the time without.
    import numpy as np

    values = np.asarray(array)
    if values.dtype.hasobject:
        raise TypeError(f"the array {name!r} holds Python objects, not numbers")
    np.save(file, values, allow_pickle=False)


def npy(name: str, array: ArrayLike) -> bytes:
    """An array as the bytes of an .npy file."""
    file = io.BytesIO()
    _write(file, name, array)
    return file.getvalue()


def save(path: os.PathLike[str], arrays: Mapping[str, ArrayLike]) -> None:
    """Writes arrays to an .npz archive, under any names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                _write(file, name, array)
