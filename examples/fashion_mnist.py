"""Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28 x 28 grey values, ten classes."""

import gzip
import os
import pathlib

import numpy as np

#: Where Debian's package dataset-fashion-mnist puts the files.
DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")


def load_fashion_mnist():
    """(x_train, y_train), (x_test, y_test): images float32 in [0, 1] of shape (n, 28, 28, 1), labels int64.

    From Debian's package where it is installed; elsewhere `keras.datasets` downloads the same files. The environment
    variable `FASHION_MNIST_IMAGES` limits the number of training images, for a quick try.
    """
    count = int(os.environ.get("FASHION_MNIST_IMAGES", 60_000))
    if (DEBIAN / "train-images-idx3-ubyte.gz").exists():
        splits = [(_read(f"{s}-images-idx3-ubyte.gz"), _read(f"{s}-labels-idx1-ubyte.gz")) for s in ("train", "t10k")]
    else:
        import keras

        splits = keras.datasets.fashion_mnist.load_data()
    train, test = (
        (images[..., np.newaxis].astype("float32") / 255, labels.astype("int64")) for images, labels in splits
    )
    return tuple(part[:count] for part in train), test


def _read(name: str) -> np.ndarray:
    """An IDX file of bytes: a magic number whose last byte is the rank, the shape as big-endian int32, the values."""
    data = gzip.decompress((DEBIAN / name).read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
