"""Writes the arrays of this folder with NumPy; src/train/data/tests reads them.

x[i, j, k] = 100 i + 10 j + k in float32[5, 3, 2], y[i] = i in int64[5].
"""

import pathlib

import numpy as np

folder = pathlib.Path(__file__).parent
i, j, k = np.indices((5, 3, 2))
x = (100 * i + 10 * j + k).astype(np.float32)
y = np.arange(5)

np.savez(folder / "stored.npz", x=x, y=y)
np.savez_compressed(folder / "compressed.npz", x=x, y=y)
np.save(folder / "fortran.npy", np.asfortranarray(x))
np.save(folder / "big_endian.npy", x.astype(">f4"))
np.save(folder / "both.npy", np.asfortranarray(x.astype(">f8")))
