"""Reads all that an HDF5 file holds besides arrays. A script for a process of its own: `python hdf5_check.py FILE`.

The HDF5 library may search a damaged file forever, or end the process.
"""

import sys

import h5py


def read(path: str) -> None:
    """Read each group, each attribute, and the shape and dtype of each array.

    Raises:
        Exception: the file is damaged; of any class.
    """

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        dict(item.attrs)
        if isinstance(item, h5py.Dataset):
            item.shape, item.dtype  # noqa: B018 - reads them

    with h5py.File(path, "r") as file:
        dict(file.attrs)
        file.visititems(visit)


if __name__ == "__main__":
    read(sys.argv[1])
