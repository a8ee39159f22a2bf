"""Reads `.npy` and `.npz` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

#: How files begin, by their endings.
_STARTS = {".npy": b"\x93NUMPY", ".npz": b"PK"}
#: How NumPy says that a file is shorter than its header tells.
_CUT_OFF = ("mmap length is greater", "EOF", "No data left", "cannot reshape array")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an `.npz` file by name; the array of an `.npy` file, which stays on the disk, under "".

    Raises:
        ValueError: the file is empty, damaged, or holds no arrays of numbers.
    """
    arrays = _read(path)
    if not arrays:
        raise ValueError(f"{path} holds no array. Write it with np.savez, with an array for each input.")
    for name, array in arrays.items():
        if array.dtype.kind == "c":
            where = f"The array {name!r} of {path}" if name else str(path)
            raise ValueError(f"{where} holds complex numbers, and inputs are real. Save what the training used.")
    return arrays


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: it has no bytes. Write it again with np.save or np.savez.")
    with path.open("rb") as file:
        start = file.read(max(map(len, _STARTS.values())))
    if not start.startswith(_STARTS[path.suffix][: len(start)]):
        raise ValueError(
            f"{path} is not an {path.suffix} file of NumPy: it does not begin as one. Write it with "
            f"{'np.save' if path.suffix == '.npy' else 'np.savez'} from arrays of numbers."
        )
    try:
        # Large files stay on the disk, and only the samples in use are read.
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        return dict(loaded) if path.suffix == ".npz" else {"": loaded}
    except Exception as error:  # NumPy and zipfile raise errors of many classes for damaged files
        said = str(error)
        if "object" in said.lower():
            raise ValueError(
                f"{path} holds Python objects, not numbers, as NumPy stores samples of different shapes. Bring the "
                "samples to one shape, and save np.stack(samples)."
            ) from error
        if any(text in said for text in _CUT_OFF):
            raise ValueError(
                f"{path} is cut off: it is shorter than its header says. Copy or write it again."
            ) from error
        raise ValueError(
            f"{path} cannot be read: {said}. Write it with np.save or np.savez from arrays of numbers."
        ) from error
