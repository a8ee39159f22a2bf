"""Crops of the photographs in Debian's wallpaper packages."""

from __future__ import annotations

import pathlib

import numpy as np

from .network import UnavailableError
from .packages import debian

#: Photographs by package. None is for calibration and for evaluation: crops of one photograph are alike.
CALIBRATION = {
    "mate-backgrounds": ("Aqua", "Dune", "GreenMeadow", "LadyBird", "Storm", "TwoWings"),
    "lomiri-wallpapers-16.04": (
        "Bridge_by_Sander_Klootwijk",
        "Picture_0B_by_freespace",
        "Wine_by_Jakkub_Mede",
        "aitzgorri_by_Aitzol_Berasategi",
        "free_by_Peter_Nerlich",
        "life_by_Aitzol_Berasategi",
    ),
}
EVALUATION = {
    "mate-backgrounds": ("Blinds", "FreshFlower", "Garden", "RainDrops", "Wood", "YellowFlower"),
    "lomiri-wallpapers-16.04": (
        "Dragonfly_by_Bolly",
        "Picture_1A_by_freespace",
        "friends_by_Aitzol_Berasategi",
        "greentock_by_Peter_Nerlich",
        "picosdeeuropa_by_Aitzol_Berasategi",
        "seeding_by_Clements_Engelhardt",
    ),
}


def crops(photographs: dict[str, tuple[str, ...]], size: int, count: int = 256, seed: int = 0) -> np.ndarray:
    """Square crops, the same each time: uint8 of shape (count, size, size, 3).

    Each photograph gives as many as the others. A crop covers between a quarter of the photograph's height and all of
    it, and is resized to `size`.
    """
    image_module = _pillow()
    paths = [_path(package, name) for package, names in photographs.items() for name in names]
    images = [image_module.open(path).convert("RGB") for path in paths]
    rng = np.random.default_rng(seed)
    cut = []
    for index in range(count):
        image = images[index % len(images)]
        side = int(min(image.size) * rng.uniform(0.25, 1))
        left, top = (int(rng.integers(0, full - side + 1)) for full in image.size)
        box = (left, top, left + side, top + side)
        cut.append(np.asarray(image.resize((size, size), image_module.Resampling.BICUBIC, box=box)))
    return np.stack(cut)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Square images, uint8, in another size, bicubic and without aliasing."""
    image_module = _pillow()
    return np.stack([np.asarray(image_module.fromarray(image).resize((size, size))) for image in images])


def _pillow():
    try:
        from PIL import Image
    except ImportError as error:
        raise UnavailableError("Pillow is not installed, which reads the photographs") from error
    return Image


def _path(package: str, name: str) -> pathlib.Path:
    found = sorted(debian(package).rglob(f"{name}.jpg"))
    if not found:
        raise UnavailableError(f"Debian's package {package} has no {name}.jpg in this version")
    return found[0]
