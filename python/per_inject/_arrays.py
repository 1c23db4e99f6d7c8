"""Arrays as NumPy's own file format, which keeps element type, byte order and layout."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Element types of safetensors, as NumPy names them; of BF16, which NumPy lacks, the bits.
_TYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "BF16": "<u2",
    "F32": "<f4",
    "F64": "<f8",
}


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


def save(target: Union[os.PathLike[str], IO[bytes]], arrays: Mapping[str, ArrayLike]) -> None:
    """Writes arrays to an .npz archive, under any names."""
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            if not isinstance(name, str):
                raise TypeError(f"arrays are given by name, not by {type(name).__name__}")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                _write(file, name, array)


def safetensors(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays in the bytes of a safetensors file; bfloat16 as float32, which holds every value of it."""
    import numpy as np

    start = 8 + int.from_bytes(data[:8], "little")
    arrays: dict[str, NDArray[Any]] = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        values = np.frombuffer(data[start + first : start + last], _TYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        arrays[name] = values.reshape(entry["shape"]).copy()
    return arrays
