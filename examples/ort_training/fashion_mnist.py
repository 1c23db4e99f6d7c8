"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 + 10,000 grey images of clothes, 28 × 28, in ten classes."""

import gzip
import os
import pathlib

import numpy as np

# Where Debian's and Ubuntu's package dataset-fashion-mnist puts it.
FOLDER = pathlib.Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))


def load(part):
    """Images float32[N, 1, 32, 32] and labels int64[N] of `part` ("train", "t10k").

    Pixels are scaled to mean 0 and variance 1 (0.2860 and 0.3530 are those of the training images over 255) and framed by two rows
    and columns of background, so that five poolings by two end at one pixel.
    """
    images = _read(f"{part}-images-idx3-ubyte.gz", header=16).reshape(-1, 1, 28, 28)
    labels = _read(f"{part}-labels-idx1-ubyte.gz", header=8)
    framed = np.pad(images, [(0, 0), (0, 0), (2, 2), (2, 2)]).astype(np.float32)
    return (framed / 255 - 0.2860) / 0.3530, labels.astype(np.int64)


def _read(name, header):
    """The bytes of an IDX file behind its header."""
    try:
        with gzip.open(FOLDER / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)
    except FileNotFoundError:
        raise SystemExit(
            f"Fashion-MNIST is not in {FOLDER}: {name} is missing. `apt-get install dataset-fashion-mnist` puts it into "
            "/usr/share/datasets/fashion-mnist; elsewhere, set FASHION_MNIST to a folder that holds its four .gz files."
        )
