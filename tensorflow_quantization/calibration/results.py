"""The result of a calibration as a file: `save_calibration`, `load_calibration`, `merge_calibrations`."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.calibration.calibrate import ESTIMATORS, activation_quantizers, layer_paths
from tensorflow_quantization.calibration.estimator import MergeableEstimator
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme, WeightQuantizer
from tensorflow_quantization.quantizers.activation import are_learned
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import did_you_mean, is_path, must_be_path
from tensorflow_quantization.text.replacing import replacing
from tensorflow_quantization.text.warn import warn_user

_FORMAT = "tensorflow_quantization calibration 1"
_METHODS = {estimator: name for name, estimator in ESTIMATORS.items()}

Path = str | os.PathLike
#: Of one quantizer: its range, what estimated the range, and the statistics of the data.
Entry = dict[str, Any]


@suggests_arguments
def save_calibration(model: keras.Model, path: Path) -> None:
    """Writes the activation ranges of a calibrated model to a JSON file: a line for each quantizer.

    A line holds the range, the integers, and, directly after `calibrate`, the method and the statistics of the data.
    `merge_calibrations` needs these statistics; they are not saved with the model. The file also has a digest of the
    model's weights, by which `load_calibration` knows another model.

    Examples:
        >>> quantized = calibrate(quantize_model(model), images, verbose=0)
        >>> save_calibration(quantized, "ranges.json")
        >>> another = load_calibration(quantize_model(model), "ranges.json")
        >>> bool((another.predict(images, verbose=0) == quantized.predict(images, verbose=0)).all())
        True

    Args:
        model: the quantized model.
        path: the file to write. It is written beside and renamed, so that there is never half a file.

    Raises:
        TypeError: `model` is no `keras.Model`, or `path` is no path.
        ValueError: the model has no quantizers, a quantizer has no range from data, or two have the same path.
    """
    _check_path(path)
    entries = {name: _entry_of(name, quantizer) for name, quantizer in _by_path(model).items()}
    _write(path, entries, _digest(model))


@suggests_arguments
def load_calibration(model: keras.Model, path: Path) -> keras.Model:
    """Sets and freezes the activation ranges of a quantized model, as `calibrate` did before `save_calibration`.

    Ranges suit the weights that they were measured with: a model with other weights gets them with a warning.

    Args:
        model: a quantized model with the quantizers that the file names; changed in place.
        path: a file of `save_calibration` or `merge_calibrations`.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is no `keras.Model`, or `path` is no path.
        ValueError: the file is no such file, or is of a model with other quantizers or other integers. The model is
            unchanged then.
    """
    (entries, digest), quantizers = _read(path), _by_path(model)
    _check_same_quantizers(entries, f"File {str(path)!r}", quantizers, f"model {model.name!r}")
    for name, quantizer in quantizers.items():
        scheme = _scheme(entries[name])
        if scheme != quantizer.scheme:
            raise ValueError(
                f"{name!r} has {quantizer.scheme}, and file {str(path)!r} has its range for {scheme}. Calibrate this "
                "model, or quantize it as the model of the file."
            )
    estimators = {name: _estimator(entry) for name, entry in entries.items()}
    if digest not in (None, _digest(model)):
        warn_user(
            f"File {str(path)!r} has ranges of a model with other weights than model {model.name!r} has now. Calibrate "
            "this model, unless only training made the difference."
        )
    for name, quantizer in quantizers.items():
        quantizer.set_range(entries[name]["low"], entries[name]["high"])
        quantizer.estimator = estimators[name]
    for quantizer in activation_quantizers(model):
        quantizer.frozen = not are_learned(quantizer.ranges)
    model.train_function = None  # one that was compiled before moves the ranges
    return model


@suggests_arguments
def merge_calibrations(paths: Sequence[Path], path: Path) -> None:
    """Merges the calibrations of parts of the data, from several machines, into the calibration of all data.

    Each machine calibrates the same quantized model with its part of the data. The merged file is the file of one run
    with all batches, byte for byte. The ranges of "auto" cannot be merged.

    Examples:
        >>> for part in (0, 1):
        ...     quantized = calibrate(quantize_model(model), images[part::2], verbose=0)
        ...     save_calibration(quantized, f"part{part}.json")
        >>> merge_calibrations(["part0.json", "part1.json"], "ranges.json")
        >>> quantized = load_calibration(quantize_model(model), "ranges.json")

    Args:
        paths: the files of `save_calibration`, at least one.
        path: the file to write.

    Raises:
        TypeError: `paths` is a single path, or something is no path.
        ValueError: there are no files; a file is no such file, lacks statistics, or is of a model with other
            quantizers, other weights, other integers or another method than the first.
    """
    if is_path(paths):
        raise TypeError(f"paths must be a list of paths, got {paths!r}. Pass [{str(paths)!r}, ...].")
    _check_path(path)
    files = [(f"file {str(each)!r}", _read(each)) for each in paths]
    if not files:
        raise ValueError("paths is empty. Pass the files of save_calibration.")
    first, (merged, weights) = files[0]
    for what, (entries, digest) in files:
        _check_same_quantizers(entries, what.capitalize(), merged, first)
        if digest != weights:
            raise ValueError(
                f"{what.capitalize()} is of a model with other weights than the model of {first}. Calibrate the same "
                "model with each part of the data."
            )
        for name, entry in entries.items():
            if entry["statistics"] is None:
                raise ValueError(
                    f"{what.capitalize()} has no statistics of {name!r}, so it cannot be merged. Call save_calibration "
                    f"directly after calibrate, with a method of {', '.join(map(repr, ESTIMATORS))}. The ranges of "
                    "'auto' cannot be merged."
                )
            for key in ("method", "arguments", "scheme"):
                if entry[key] != merged[name][key]:
                    raise ValueError(
                        f"{name!r} has {key} {entry[key]!r} in {what}, and {merged[name][key]!r} in {first}. Calibrate "
                        "all parts alike."
                    )
    result = {}
    for name in merged:
        estimator, *others = (_estimator(entries[name]) for _, (entries, _) in files)
        for other in others:
            estimator.merge(**other.merged())
        result[name] = _entry(estimator, _scheme(merged[name]), estimator.range(_scheme(merged[name])))
    _write(path, result, weights)


def _digest(model: keras.Model) -> str:
    """Returns a digest of the weights of the layers, without the quantizers', in whatever order the model has them."""
    quantizers = [x for x in sublayers(model) if isinstance(x, (ActivationQuantizer, WeightQuantizer))]
    left_out = {id(variable) for quantizer in quantizers for variable in quantizer.weights}
    arrays = [float32_array(variable) for variable in model.weights if id(variable) not in left_out]
    each = sorted(hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).hexdigest() for array in arrays)
    return hashlib.sha256("".join(each).encode()).hexdigest()


def _by_path(model: keras.Model) -> dict[str, ActivationQuantizer]:
    """Returns the quantizers that have a range of their own, by path."""
    own = [quantizer for quantizer in activation_quantizers(model) if quantizer.has_own_range]
    paths = layer_paths(model)
    found = {paths[id(quantizer)]: quantizer for quantizer in own}
    if len(found) < len(own):
        names = [paths[id(quantizer)] for quantizer in own]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"Two quantizers of model {model.name!r} have the path {twice!r}. Name the layers differently."
        )
    return found


def _entry_of(name: str, quantizer: ActivationQuantizer) -> Entry:
    if not quantizer.seen:
        raise ValueError(f"{name!r} has no range from data. Call calibrate first.")
    if quantizer.is_moved:
        return _entry(None, quantizer.scheme, quantizer.limits())
    estimator, range_ = quantizer.estimator, float32_array(quantizer.range)
    if estimator is not None and (np.float32(estimator.range(quantizer.scheme)) != range_).any():  # trained since
        estimator = None
    return _entry(estimator, quantizer.scheme, range_)


def _entry(estimator: Any, scheme: QuantizationScheme, range_: Any) -> Entry:
    method = _METHODS.get(type(estimator))
    low, high = np.asarray(range_, np.float32).tolist()
    return {
        "low": low,
        "high": high,
        "method": method,
        "arguments": estimator.arguments() if method else None,
        "scheme": json.loads(json.dumps(scheme.get_config())),  # lists, as they are read
        "statistics": {key: _encode(value) for key, value in estimator.merged().items()} if method else None,
    }


def _estimator(entry: Entry) -> Any:
    """Returns the estimator of an entry with its statistics; `None` if there are none."""
    if entry["statistics"] is None:
        return None
    estimator: MergeableEstimator = ESTIMATORS[entry["method"]](**entry["arguments"])
    estimator.merge(**{key: _decode(value) for key, value in entry["statistics"].items()})
    return estimator


def _scheme(entry: Entry) -> QuantizationScheme:
    return QuantizationScheme.from_config(entry["scheme"])


def _encode(array: np.ndarray) -> Any:
    """Returns the only element of an array's first axis for JSON: a number, or counts without the zeros at the ends."""
    (value,) = array
    if np.ndim(value) == 0:
        return value.item()
    occupied = np.flatnonzero(value)
    first, stop = (int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else (0, 0)
    return {"size": len(value), "first": first, "counts": value[first:stop].tolist()}


def _decode(value: Any) -> np.ndarray:
    if not isinstance(value, dict):
        return np.array([value])
    counts = np.zeros((1, value["size"]), np.int64)
    counts[0, value["first"] : value["first"] + len(value["counts"])] = value["counts"]
    return counts


def _check_path(path: Any) -> None:
    if not is_path(path):
        raise TypeError(must_be_path("path", path))


def _check_same_quantizers(entries: dict[str, Any], what: str, others: dict[str, Any], other: str) -> None:
    for name in others:
        if name not in entries:
            raise ValueError(
                f"{what} has no range for {name!r} of {other}.{did_you_mean(name, list(entries))} Use the calibration "
                "of a model with the same layers, target and spec."
            )
    for name in entries:
        if name not in others:
            raise ValueError(
                f"{what} has a range for {name!r}, which {other} does not have.{did_you_mean(name, list(others))} Use "
                "the calibration of a model with the same layers, target and spec."
            )


def _read(path: Path) -> tuple[dict[str, Entry], str | None]:
    """Returns the entries of a file by path, and the digest of the model's weights, `None` of older files."""
    _check_path(path)
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no file of save_calibration: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f'{str(path)!r} is no file of save_calibration: it lacks "format": {_FORMAT!r}.')
    quantizers = content.get("quantizers")
    if not isinstance(quantizers, dict):
        raise ValueError(f'{str(path)!r} is no file of save_calibration: it lacks "quantizers".')
    for name, entry in quantizers.items():
        try:
            _check_entry(entry)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{str(path)!r} is no file of save_calibration: what it has of {name!r} is damaged "
                f"({type(error).__name__}: {error}). Save the calibration again."
            ) from error
    return quantizers, content.get("weights")


def _check_entry(entry: Entry) -> None:
    """Raises an error of any kind if an entry is not what `_entry` returns."""
    low, high = entry["low"], entry["high"]
    if not all(type(end) in (int, float) and abs(end) <= float(np.finfo(np.float32).max) for end in (low, high)):
        raise ValueError(f"the range {low!r} to {high!r} is not finite")
    if low > high:
        raise ValueError(f"the range begins at {low!r} and ends at {high!r}")
    if not isinstance(entry["scheme"], dict):
        raise TypeError(f"scheme must be a dict, got {entry['scheme']!r}")
    _scheme(entry)
    estimator = _estimator(entry)
    if estimator is None:
        return
    for key, (value,) in estimator.merged().items():
        if not np.isfinite(value).all() or (key == "counts" and (value < 0).any()):
            raise ValueError(f"the statistic {key!r} is out of range")
    if estimator.low > estimator.high:
        raise ValueError(f"the data begins at {estimator.low!r} and ends at {estimator.high!r}")


def _write(path: Path, entries: dict[str, Entry], weights: str | None) -> None:
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(entries.items()))
    head = f' "format": {json.dumps(_FORMAT)},\n "weights": {json.dumps(weights)},'
    text = f'{{\n{head}\n "quantizers": {{\n{lines}\n }}\n}}\n'
    with replacing(pathlib.Path(path)) as beside:
        beside.write_text(text, encoding="utf-8")
