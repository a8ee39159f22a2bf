"""Reads samples: a folder of images, an `.npy` or an `.npz` file, as the inputs of a model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import fitting_arrays, model_inputs
from tensorflow_quantization.text.messages import shortened
from tensorflow_quantization_cli import results
from tensorflow_quantization_cli.arguments import images_in
from tensorflow_quantization_cli.arrays import read_arrays

#: Channels of an image, and what Keras calls such images.
_COLORS = {1: "grayscale", 3: "rgb", 4: "rgba"}
#: The largest part of the samples, and the most of them, on which the result is measured and not calibrated.
_HELD_OUT_SHARE, _HELD_OUT = 0.2, 64

Indices = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Samples:
    """The samples of a folder or file.

    Attributes:
        count: how many there are.
        read: a function from indices to these samples, in the structure of the model's inputs. It raises `ValueError`
            for an image that cannot be read, and for values that are NaN or infinite.
        batch: the batch size of the model; 1 if it takes any.
    """

    count: int
    read: Callable[[Indices], Any]
    batch: int

    def split(self, wanted: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the indices to calibrate with, at most `wanted`, and others to measure on; whole batches of each.

        Raises:
            ValueError: there are not enough samples for one batch.
        """
        return self._split(wanted, seed, self.whole(min(_HELD_OUT, int(_HELD_OUT_SHARE * self.count))))

    def choose(self, wanted: int, seed: int) -> np.ndarray:
        """Returns the indices to calibrate with, where none are kept apart. It raises what `split` raises."""
        return self._split(wanted, seed, 0)[0]

    def _split(self, wanted: int, seed: int, held_out: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng(seed).permutation(self.count)
        calibration = self.whole(min(wanted, self.count - held_out))
        if not calibration:
            raise ValueError(
                f"The model has a fixed batch size of {self.batch}, and the data holds {self.count} samples, of which "
                f"{wanted} may be used. Pass more samples, or a larger --samples."
            )
        return order[held_out : held_out + calibration], order[:held_out]

    def whole(self, count: int) -> int:
        """Returns the most samples, up to `count`, that fill the batches of the model."""
        return count // self.batch * self.batch

    def batches(self, indices: np.ndarray, size: int) -> list[Any]:
        """Reads these samples in batches of `size`, or of as many as the model takes, with a progress bar."""
        size = self.whole(size) or self.batch
        progress = keras.utils.Progbar(len(indices), verbose=results.verbosity(), unit_name="sample")
        found = []
        for start in range(0, len(indices), size):
            found.append(self.read(indices[start : start + size]))
            progress.update(min(start + size, len(indices)))
        return found

    def training(self, held_out: np.ndarray, size: int, steps: int, seed: int) -> keras.utils.PyDataset:
        """Returns `steps` batches for `fit` of all samples but `held_out`, read when they are used.

        They are in random order, and begin again if there are too few.
        """
        size, read = self.whole(size) or self.batch, self.read
        others = np.setdiff1d(np.arange(self.count), held_out)
        order = np.resize(np.random.default_rng(seed).permutation(others), steps * size)

        class _Batches(keras.utils.PyDataset):
            def __len__(self) -> int:
                return steps

            def __getitem__(self, index: int) -> tuple[Any]:
                x = read(order[index * size : (index + 1) * size])
                return (tuple(x) if isinstance(x, list) else x,)  # Keras takes no lists from a PyDataset

        return _Batches()


def open_samples(model: keras.Model, options: argparse.Namespace) -> Samples:
    """The samples of `--data`.

    Args:
        model: the model that takes them.
        options: with `data`, and the options of `add_preprocessing`.

    Raises:
        ValueError: they do not fit the inputs of the model.
    """
    graph = LayerGraph.trace(model)
    path = Path(options.data)
    count, read = _images(path, graph, options) if path.is_dir() else _arrays(path, graph, options)
    embeddings = _embeddings(graph)

    def checked(indices: Indices) -> Any:
        arrays = model_inputs(graph, read(indices), str(path), indices)
        for array, tensor in zip(arrays, graph.inputs, strict=True):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                first = indices[int(np.argwhere(~np.isfinite(array))[0][0])]
                raise ValueError(
                    f"{path} holds NaN or infinite values for input {tensor.name!r}, first in sample {first}."
                )
            layer = embeddings.get(tensor.name)
            if layer is not None and array.size and not 0 <= array.min() <= array.max() < layer.input_dim:
                where = np.argwhere((array < 0) | (array >= layer.input_dim))[0]
                raise ValueError(
                    f"{path} holds {array[tuple(where)]:g} for input {tensor.name!r}, first in sample "
                    f"{indices[int(where[0])]}, and layer {layer.name!r} takes indices from 0 to {layer.input_dim - 1}."
                )
        return tree.pack_sequence_as(graph.input_structure, arrays)

    return Samples(count, checked, graph.inputs[0].shape[0] or 1)


def _embeddings(graph: LayerGraph) -> dict[str, keras.layers.Embedding]:
    """Returns the layer that takes an input for indices, by the name of the input."""
    flat = graph.flatten()
    readers = {tensor.name: flat.consumers(tensor) for tensor in flat.inputs}
    return {
        name: call.operation
        for name, calls in readers.items()
        for call in calls
        if isinstance(call.operation, keras.layers.Embedding)
    }


def _images(
    folder: Path, graph: LayerGraph, options: argparse.Namespace
) -> tuple[int, Callable[[Indices], np.ndarray]]:
    inputs = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in graph.inputs)
    shape = graph.inputs[0].shape
    axis = next((axis for axis in (-1, 1) if len(shape) == 4 and shape[axis] in _COLORS), None)
    if len(graph.inputs) > 1 or axis is None:
        raise ValueError(
            f"A folder of images is for a model with one input of images, (batch, height, width, channels), and this "
            f"one has {inputs}. Pass an .npz file with an array for each input, named as the input."
        )
    layout = "channels_first" if axis == 1 else "channels_last"
    channels: Any = shape[axis]
    size = _size(shape[2:] if axis == 1 else shape[1:3], graph.inputs[0].name, options.size)
    preprocess = _preprocessing(options, channels, layout)
    paths, others = images_in(folder)
    if others:
        shown = shortened([f"{count} x {ending}" for ending, count in others.most_common()])
        print(f"Files in {folder} that are left out, by their endings: {shown}", file=sys.stderr)

    def read_one(path: Path) -> np.ndarray:
        _check_image(path)
        image = keras.utils.load_img(
            path,
            color_mode=_COLORS[channels],
            target_size=size,
            interpolation="bilinear",
            keep_aspect_ratio=options.crop,
        )
        return keras.utils.img_to_array(image, data_format=layout, dtype="float32")

    def read(indices: Indices) -> np.ndarray:
        try:
            images = np.stack([read_one(paths[index]) for index in indices])
        except ImportError as error:
            raise ImportError(
                "Pillow reads images, and is not installed: pip install 'tensorflow-quantization[images]'"
            ) from error
        except _DeepImageError:
            raise
        except Exception as error:  # Pillow raises errors of many classes for damaged files
            raise ValueError(_unreadable(paths, read_one)) from error
        return preprocess(images)

    return len(paths), read


class _DeepImageError(ValueError):
    """An image with more than 8 bits a channel."""


def _check_image(path: Path) -> None:
    """Raises an error for what is not to be opened, or what Keras would clip or pass in another scale.

    Raises:
        FileNotFoundError: there is no file; to open a pipe would wait for ever.
        _DeepImageError: the image has more than 8 bits a channel.
    """
    from PIL import Image

    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file.")
    with Image.open(path) as image:
        if image.mode[0] in "IF":
            raise _DeepImageError(
                f"{path} has more than 8 bits a channel (mode {image.mode} of Pillow). Convert it to 8 bits, or pass "
                "an .npy file with values in the scale of the training."
            )


def _unreadable(paths: list[Path], read_one: Callable[[Path], np.ndarray]) -> str:
    """The message that names the images of a folder that cannot be read, all at once."""
    results.warn(f"An image cannot be read. All {len(paths)} are tried, to name such images at once.")
    found: dict[str, list[str]] = {}
    for path in paths:
        try:
            read_one(path)
        except Exception as error:
            found.setdefault(_what_it_is(path, error), []).append(str(path))
    kinds = " ".join(f"{kind}: {shortened(names)}." for kind, names in found.items())
    count = sum(map(len, found.values()))
    return f"{count} of {len(paths)} images cannot be read. {kinds} Repair or remove them."


def _what_it_is(path: Path, error: Exception) -> str:
    """What an image is, in the plural, that was not read because of an error."""
    from PIL import Image

    if not path.is_file():
        return "Pipes or devices" if path.exists() else "Links to nothing"
    if isinstance(error, Image.DecompressionBombError):
        return f"More pixels than Pillow reads, {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.3g} million"
    if path.suffix.lower() not in Image.registered_extensions():
        return "Of a format that Pillow, as installed, does not read"
    return "Damaged or no images"


def _size(fixed: tuple[int | None, ...], name: str, given: tuple[int, int] | None) -> tuple[int, int]:
    height, width = fixed
    if given is None:
        if height is None or width is None:
            raise ValueError(f"Input {name!r} of the model takes images of any size. Pass one: --size 224x224.")
        return height, width
    if any(wanted not in (None, got) for wanted, got in zip(fixed, given, strict=True)):
        raise ValueError(
            f"--size {given[0]}x{given[1]} does not fit input {name!r} of the model, which is {height}x{width}. Leave "
            "--size out: images are resized to the input."
        )
    return given


def _arrays(path: Path, graph: LayerGraph, options: argparse.Namespace) -> tuple[int, Callable[[Indices], Any]]:
    arrays = read_arrays(path)
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    shapes = ", ".join(f"{name} {array.shape}".strip() for name, array in arrays.items())
    if 0 in lengths.values():
        raise ValueError(f"{path} holds no samples, which are along the first axis: shape {shapes}.")
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path} must hold as many samples in each array, along the first axis, got shapes {shapes}.")
    wanted = options.preprocess or (options.scale, options.mean, options.std) != (None, None, None)
    if len(graph.inputs) == 1 and len(arrays) == 1:
        (array,) = arrays.values()
        fitting_arrays(graph, array, str(path))
        channels = array.shape[-1] if wanted and array.ndim > 1 else 1
        preprocess = _preprocessing(options, channels, "channels_last")

        def read_only(indices: Indices) -> np.ndarray:
            samples = np.asarray(array[np.asarray(indices)])
            return preprocess(samples.astype("float32")) if wanted else samples

        return len(array), read_only
    if wanted:
        raise ValueError(
            f"--scale, --mean, --std and --preprocess are for a model with one input, and {path} for several."
        )
    if len(graph.inputs) > 1 and "" in arrays:
        names = ", ".join(tensor.name for tensor in graph.inputs)
        raise ValueError(f"{path} holds one array, and the model has the inputs {names}. Pass an .npz file with each.")
    fitting_arrays(graph, arrays, str(path))
    return next(iter(lengths.values())), lambda indices: {k: v[np.asarray(indices)] for k, v in arrays.items()}


def _preprocessing(options: argparse.Namespace, channels: int, layout: str) -> Callable[[np.ndarray], np.ndarray]:
    """What `--scale`, `--mean`, `--std` and `--preprocess` do to a batch of float32."""
    if options.preprocess:
        if channels != 3:
            raise ValueError(f"--preprocess is for images with 3 channels, and these have {channels}. Pass --scale.")
        preprocess_input = keras.applications.imagenet_utils.preprocess_input
        # It changes its argument.
        return lambda x: preprocess_input(x.copy(), data_format=layout, mode=options.preprocess)
    along = (channels, 1, 1) if layout == "channels_first" else (channels,)

    def per_channel(name: str, values: list[float] | None, default: float) -> np.ndarray:
        values = [default] if values is None else values
        if len(values) not in (1, channels):
            raise ValueError(f"{name} has {len(values)} numbers, and there are {channels} channels.")
        return np.broadcast_to(np.array(values, np.float32), channels).reshape(along)

    scale = np.float32(1.0 if options.scale is None else options.scale)
    mean, std = per_channel("--mean", options.mean, 0.0), per_channel("--std", options.std, 1.0)
    return lambda x: (x * scale - mean) / std
