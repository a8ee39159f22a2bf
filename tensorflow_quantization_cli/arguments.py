"""Arguments that several commands take, checked before anything is loaded."""

from __future__ import annotations

import argparse
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tensorflow_quantization_cli import start

#: What the options take. Tests compare it with the arguments that the functions accept.
TARGETS = ("onnxruntime", "openvino", "tensorrt", "litert")
METHODS = ("minmax", "percentile", "mse", "entropy", "auto")
#: How `keras.applications` preprocesses images for its networks.
PREPROCESSING = ("tf", "torch", "caffe")
#: As many samples as `post_training_quantize` and `sensitivity` use.
MOST_SAMPLES = 256
#: The arguments that are paths of files or folders, for the completion.
PATHS = ("model", "path", "paths", "quantized", "data", "output", "file", "keep", "html")
_JPEG, _NETPBM = (".jpg", ".jpeg", ".jpe", ".jfif"), (".ppm", ".pgm", ".pnm")
#: Endings of images that Pillow reads; .avif since 11.3.
IMAGE_SUFFIXES = (*_JPEG, ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", *_NETPBM)
ARRAY_SUFFIXES = (".npy", ".npz")
#: TFRecord files hold records of any form, so only the user knows how to read them.
_RECORDS = (
    " A TFRecord file does not say how its records are decoded: decode some hundred, and save them with "
    "np.savez('data.npz', image=array), where the names are those of the model's inputs."
)
#: What a saved Keras model is, in the help.
MODEL_FILE = "a .keras, .h5 or .hdf5 file"


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add what `start.load` needs to load a model."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a Python module to import first, here or installed: it registers the model's own layers; repeatable",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run the Python code of Lambda layers in the file; only for a file whose origin you trust",
    )


def add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace what is there")


def add_html(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--html", metavar="FILE", type=path, help="also write a report as one .html file, for a browser"
    )


def check_html(options: argparse.Namespace) -> None:
    """Raises: argparse.ArgumentTypeError: the file of `--html` cannot be written, or is there."""
    if options.html is not None:
        check_output(options.html, ".html", options.force, ", which a browser opens")


def add_choice(
    parser: argparse._ActionsContainer, option: str, names: Sequence[str], help: str, default: str | None = None
) -> None:
    """An option that takes one of some names; a wrong one gets an error with the closest."""
    help = f"{one_of(names)}; {help}"
    parser.add_argument(option, type=name_in(names), choices=names, metavar="NAME", default=default, help=help)


def add_input_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-shape",
        type=shape,
        action="append",
        default=[],
        metavar="NAME:SIZES",
        help="the shape of an input, for example image:1x224x224x3; once for each input with unknown sizes besides the "
        "first",
    )


def add_bits(parser: argparse._ActionsContainer, of_what: str, several: bool = False, wide: str = "") -> None:
    parser.add_argument(
        f"--{of_what}-bits",
        type=several_bits if several else wide_bits if wide else bits,
        metavar="BITS",
        help=f"bits of each {of_what}, 2 to 8{wide}"
        + (", or several, separated by commas" if several else "; default: 8"),
    )


def add_samples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples", type=positive, default=MOST_SAMPLES, metavar="N", help="the most samples; default: %(default)s"
    )


def add_seed(parser: argparse._ActionsContainer, of_what: str) -> None:
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help=f"of {of_what}; default: %(default)s")


def check_samples(options: argparse.Namespace) -> None:
    """Raises: argparse.ArgumentTypeError: more samples than are used for calibration."""
    if options.samples > MOST_SAMPLES:
        raise argparse.ArgumentTypeError(f"--samples is at most {MOST_SAMPLES}: more do not change the ranges")


def add_min_share(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--min-integer-share", type=share, metavar="SHARE", help="from 0 to 1")


def add_min_snr(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--min-snr", type=number, metavar="DB", help="signal-to-noise ratio in decibels")


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    """The options that say how images become inputs of the model."""
    group = parser.add_argument_group(
        "images", "how images, from 0 to 255, become inputs; nothing is needed for a model with preprocessing layers"
    )
    group.add_argument("--size", type=size, metavar="HxW", help="default: the size of the model's input")
    group.add_argument(
        "--crop", action="store_true", help="cut the middle to the ratio of the size; default: images are stretched"
    )
    group.add_argument("--scale", type=number, metavar="NUMBER", help="multiply values, for example by 1/255")
    group.add_argument("--mean", type=numbers, metavar="NUMBERS", help="then subtract: one number, or one per channel")
    group.add_argument("--std", type=numbers, metavar="NUMBERS", help="then divide: one number, or one per channel")
    add_choice(group, "--preprocess", PREPROCESSING, "instead: as preprocess_input of keras.applications does")


def check_preprocessing(options: argparse.Namespace) -> None:
    """Raises: argparse.ArgumentTypeError: two options contradict each other."""
    if options.preprocess and (options.scale, options.mean, options.std) != (None, None, None):
        raise argparse.ArgumentTypeError("--preprocess scales and shifts by itself: leave out --scale, --mean, --std")
    if options.scale == 0:
        raise argparse.ArgumentTypeError("--scale multiplies: with 0, all samples are equal")
    if options.std is not None and 0.0 in options.std:
        raise argparse.ArgumentTypeError("--std divides: it cannot be 0")
    if not os.path.isdir(options.data) and (options.size or options.crop):
        raise argparse.ArgumentTypeError(f"--size and --crop are for a folder of images, and {options.data} is a file")


def path(given: str) -> str:
    """The path of a file or folder, which may be missing: the type, or part of it, of all arguments in `PATHS`."""
    if not given:
        raise argparse.ArgumentTypeError("The path is empty. Pass the name of a file or folder.")
    try:
        Path(given).exists()
    except OSError as error:  # too long, or in a folder without permission
        raise argparse.ArgumentTypeError(f"{given} cannot be looked up: {error.strerror}.") from error
    return given


def file(given: str) -> str:
    """A file that exists."""
    if not Path(path(given)).exists():
        raise argparse.ArgumentTypeError(f"There is no file {given}.")
    return given


def model(given: str) -> str:
    """A file that exists, with the ending of a saved Keras model."""
    file(given)
    try:
        start.messages()["check_is_model_path"](given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return given


def data(given: str) -> str:
    """A folder that holds images, or a file of arrays."""
    place = Path(path(given))
    if place.is_dir():
        if not images_in(place)[0]:
            records = _RECORDS if any(place.rglob("*.tfrecord*")) else ""
            raise argparse.ArgumentTypeError(
                f"The folder {given} holds no images: nothing in it, and in its folders, ends in "
                f"{one_of(IMAGE_SUFFIXES)}.{records}"
            )
        return given
    if not place.exists():
        raise argparse.ArgumentTypeError(
            f"There is no folder or file {given}. Pass a folder of images, or an .npy or .npz file."
        )
    if place.suffix not in ARRAY_SUFFIXES:
        hint = f" Pass its folder, {place.parent}." if place.suffix.lower() in IMAGE_SUFFIXES else ""
        hint = _RECORDS if ".tfrecord" in place.name else hint  # also one of several, data.tfrecord-00000-of-00010
        raise argparse.ArgumentTypeError(
            f"Data is a folder of images, or an .npy or .npz file, got the file {given}.{hint}"
        )
    return given


def images_in(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Returns the images in a folder and the folders in it, in alphabetical order, and the endings of other files.

    Links to folders are followed, and each folder is searched once, so that links in a circle end. Hidden files and
    folders are left out.
    """
    images: list[Path] = []
    others: Counter[str] = Counter()
    # A link to a folder that holds this one leads in a circle, too.
    seen = {_identity(above) for above in folder.resolve().parents}
    for where, folders, names in os.walk(folder, followlinks=True):
        if (identity := _identity(where)) in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                images.append(Path(where, name))
            elif not name.startswith("."):
                others[Path(name).suffix or "no ending"] += 1
    return sorted(images), others


def _identity(folder: str | Path) -> tuple[int, int]:
    """The same for all paths of a folder."""
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def check_output(path: str, suffix: str, force: bool, why: str = "") -> None:
    """Raises: argparse.ArgumentTypeError: no file can be written to `path`, it has another ending, or it is there."""
    given = Path(path)
    if given.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a directory. Pass the name of a file.")
    if given.suffix != suffix:
        raise argparse.ArgumentTypeError(f"{path} does not end in {suffix}{why}. Pass {given.with_suffix(suffix)}.")
    folder = Path(os.path.realpath(given)).parent if given.is_symlink() else given.parent
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"The directory {folder} does not exist; create it first.")
    if not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"The directory {folder} cannot be written to: no permission.")
    if given.exists() and not force:
        raise argparse.ArgumentTypeError(f"{path} exists already. Pass --force to replace it, or another name.")


def check_folder(path: str, force: bool) -> None:
    """Raises: argparse.ArgumentTypeError: no files can be written into the folder, or it is there."""
    given = Path(path)
    there = next(folder for folder in (given, *given.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there} is a file. Pass the name of a folder to --keep.")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"The directory {there} cannot be written to: no permission.")
    if given.exists() and not force:
        raise argparse.ArgumentTypeError(f"{path} exists already. Pass --force to write into it.")


def name_in(allowed: Sequence[str]) -> Callable[[str], str]:
    """The check of an option that takes one of some names."""

    def check(given: str) -> str:
        if given not in allowed:
            must_be_one_of = start.messages()["must_be_one_of"]
            raise argparse.ArgumentTypeError(must_be_one_of("the value", allowed, given))
        return given

    return check


def size(given: str) -> tuple[int, int]:
    """Height and width of an image, in pixels."""
    parts = given.lower().split("x")
    parts = parts * 2 if len(parts) == 1 else parts
    if len(parts) != 2 or not all(part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"A size is height x width in pixels, 224x224, got {given}.")
    return int(parts[0]), int(parts[1])


def number(given: str) -> float:
    """A number, or a fraction such as 1/255."""
    above, _, below = given.partition("/")
    try:
        value = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"Not a number or a fraction, such as 1/255: {given}.")
    return value


def share(given: str) -> float:
    """A number from 0 to 1."""
    value = number(given)
    if not 0 <= value <= 1:
        hint = f" Pass {value / 100:g} for {value:g} %." if 1 < value <= 100 else ""
        raise argparse.ArgumentTypeError(f"A share is from 0 to 1, got {given}.{hint}")
    return value


def numbers(given: str) -> list[float]:
    """Numbers that are separated by commas."""
    return [number(part) for part in given.split(",")]


def positive(given: str) -> int:
    """A whole number above 0."""
    if not given.isdigit() or not int(given):
        raise argparse.ArgumentTypeError(f"Not a whole number above 0: {given}.")
    return int(given)


def seed(given: str) -> int:
    """A whole number that NumPy takes as a seed."""
    if not given.isdigit() or int(given) >= 2**32:
        raise argparse.ArgumentTypeError(f"A seed is a whole number from 0 to {2**32 - 1}, got {given}.")
    return int(given)


def block_size(given: str) -> int:
    """As many inputs of a layer as share a scale."""
    size = int(given) if given.isdigit() else 0
    if size < 16 or size & (size - 1):
        raise argparse.ArgumentTypeError(f"A block size is a power of two of at least 16, such as 32, got {given}.")
    return size


def bits(given: str) -> int:
    """The bits of an integer."""
    if not given.isdigit() or not 2 <= int(given) <= 8:
        raise argparse.ArgumentTypeError(f"Bits are a whole number from 2 to 8, got {given}.")
    return int(given)


def wide_bits(given: str) -> int:
    """The bits of an integer of 2 to 8, or 16."""
    return 16 if given == "16" else bits(given)


def several_bits(given: str) -> list[int]:
    """Bits that are separated by commas."""
    if not all(given.split(",")):
        raise argparse.ArgumentTypeError(f"Bits are whole numbers between single commas, such as 4,8, got {given}.")
    return [bits(part) for part in given.split(",")]


def shape(given: str) -> tuple[str, tuple[int, ...]]:
    """The name of an input and its shape."""
    name, _, sizes = given.rpartition(":")
    if not name or not all(size.isdigit() for size in sizes.split("x")):
        raise argparse.ArgumentTypeError(f"A shape is an input, a colon and its sizes, image:1x224x224x3, got {given}.")
    return name, tuple(int(size) for size in sizes.split("x"))


def one_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
