"""Warnings about the values of samples: another scale than in training, or nothing in them."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.calibration.input_scale import judges_scale, scale_mismatch
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization_cli import results

#: Layers that bring images to the scale of the training.
_SCALING = (keras.layers.Rescaling, keras.layers.Normalization)
#: Channels of images.
_CHANNELS = (1, 3, 4)
#: Images that differ by less, after a Rescaling layer of the model if there is one, seem scaled twice. Images in any
#: usual scale are from 0 to 1 or wider: this is 5 of 255 grey levels. Twice divided by 255 they differ by 1/255, by
#: 127.5 by 2/127.5.
_NARROW = 1 / 50


class _Values(NamedTuple):
    """The least and the greatest value of one input, and whether all its samples are equal."""

    low: float
    high: float
    equal: bool
    is_image: bool


def warn_of_inputs(model: keras.Model, batches: Sequence[Any], options: argparse.Namespace) -> None:
    """Warns if inputs seem to have another scale than in training, and names the options that help.

    The statistics of normalization layers judge, if the model has some. Else only images are judged: inputs of four
    axes with the channels of images. Tokens, one-hot vectors and other data have no usual scale. Data without
    information, the same value or the same sample throughout, is named for any model; of several inputs, one may be
    constant, as masks are.

    Args:
        model: the float model.
        batches: samples, in the structure of the model's inputs.
        options: with `data` and the options of `add_preprocessing`.
    """
    given = bool(options.preprocess) or (options.scale, options.mean, options.std) != (None, None, None)
    scaling = next((layer for layer in sublayers(model) if isinstance(layer, _SCALING)), None)
    values = _values_of(batches)
    empty = _without_information(values)
    mismatch = None if empty else scale_mismatch(model, batches[0])
    narrow = None if empty or mismatch or judges_scale(model) else _narrow(values, scaling)
    if empty is not None:
        results.warn(f"{options.data}: {empty} Ranges from such data are wrong for others: pass samples as in use.")
    if mismatch is not None:
        if mismatch.small:
            hint = _scaled_twice(given, scaling)
        else:
            hint = (
                "For a model that was trained on 0 to 1, pass --scale 1/255; else --scale, --mean and --std, or "
                "--preprocess, as in training."
            )
        results.warn(f"{mismatch.text} The samples seem to have another scale than the training data. {hint}")
    if narrow is not None:
        results.warn(f"{narrow} {_scaled_twice(given, scaling)}")
    if _statistics_of_unit_images(options, values):
        results.warn(
            "--mean and --std are at most 1, as of images from 0 to 1, and the samples are not scaled to that: images "
            "are 0 to 255. Pass --scale 1/255, too, unless the training did without."
        )
    if given and scaling is not None and not narrow and not (mismatch and mismatch.small):
        results.warn(
            f"Layer {scaling.name!r} of the model scales its inputs, and --scale, --mean, --std or --preprocess scale "
            "them before. Leave these options out, unless the training did both."
        )
    if not given and scaling is None and mismatch is None and not judges_scale(model) and _are_bytes(values):
        results.warn(
            "The samples are 0 to 255, and the model has no layer that scales them. If it was trained on 0 to 1, pass "
            "--scale 1/255."
        )


def _scaled_twice(given: bool, scaling: keras.layers.Layer | None) -> str:
    """What to do about samples that seem scaled twice."""
    if given:
        return "Leave out --scale, --mean, --std or --preprocess: the data, or the model, is scaled already."
    if scaling is not None:
        return f"Layer {scaling.name!r} of the model scales them, too: pass images from 0 to 255."
    return "Scale them once, as in training."


def _values_of(batches: Sequence[Any]) -> list[_Values]:
    found = []
    for parts in zip(*(tree.flatten(batch) for batch in batches), strict=True):
        arrays = [np.asarray(part) for part in parts]
        first = arrays[0][:1]
        count = sum(len(array) for array in arrays)
        shape = first.shape
        found.append(
            _Values(
                min(float(array.min()) for array in arrays),
                max(float(array.max()) for array in arrays),
                count > 1 and all(bool((array == first).all()) for array in arrays),
                len(shape) == 4 and (shape[-1] in _CHANNELS or shape[1] in _CHANNELS),
            )
        )
    return found


def _without_information(values: list[_Values]) -> str | None:
    """What is wrong with data that says nothing; `None` if it does."""
    if all(v.low == v.high for v in values):
        shown = ", ".join(dict.fromkeys(f"{v.low:g}" for v in values))
        return f"the samples hold the value {shown} and no other."
    return "all samples are equal." if all(v.equal for v in values) else None


def _narrow(values: list[_Values], scaling: keras.layers.Layer | None) -> str | None:
    """Says that images differ by less than images in any usual scale do; `None` if there are no such images."""
    factor, by = 1.0, ""
    if isinstance(scaling, keras.layers.Rescaling):
        factor = float(np.abs(np.asarray(scaling.scale)).max())
        by = f", and layer {scaling.name!r} of the model multiplies them by {factor:.3g}"
    for v in values:
        if v.is_image and (v.high - v.low) * factor <= _NARROW:
            return f"The images are only from {v.low:.3g} to {v.high:.3g}{by}: they seem to be scaled twice."
    return None


def _statistics_of_unit_images(options: argparse.Namespace, values: list[_Values]) -> bool:
    """Whether images of 0 to 255 are shifted or divided by the mean and deviation of images from 0 to 1."""
    mean, std = options.mean or [0.0], options.std or [1.0]
    if options.scale is not None or (not any(mean) and options.std is None):
        return False
    small = max(map(abs, mean)) <= 1 and max(map(abs, std)) <= 1
    return small and any(v.is_image and max(abs(v.low), abs(v.high)) > 127 for v in values)


def _are_bytes(values: list[_Values]) -> bool:
    """Whether samples look like images that nothing scaled: from 0 to 255."""
    return any(v.is_image and v.low >= 0 and 127 < v.high <= 255 for v in values)


@contextlib.contextmanager
def without_scale_warning() -> Iterator[None]:
    """A context in which `calibrate` does not repeat what `warn_of_inputs` said."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*calibration data seems to have another scale", UserWarning)
        yield
