"""What becomes of models that a test draws: each is right in its target's own runtime, or refused by an error."""

import os
import pathlib
import random
import traceback
import warnings

import keras
import numpy as np
import onnx
from hypothesis import assume, seed, settings
from hypothesis import strategies as st
from onnx_models import run
from processor import EXACT_WEIGHT_BITS

import tensorflow_quantization
from tensorflow_quantization import calibrate, export_litert, export_onnx, quantize_model
from tensorflow_quantization.export import VerificationError

TARGETS = (None, "tensorrt", "onnxruntime", "openvino", "litert")
#: Of three models, one stays float.
QUANTIZED = st.sampled_from([True, True, False])
PACKAGE = pathlib.Path(tensorflow_quantization.__file__).parent


def many(variable, few):
    """Settings for a test that draws `few` models, the same each time, or as many as an environment variable asks for.

    The seed of these is printed; the variable with `_SEED` repeats them.
    """
    count = int(os.environ.get(variable, 0))
    if not count:
        return settings(max_examples=few)
    number = int(os.environ.get(f"{variable}_SEED", random.randrange(2**32)))
    print(f"{variable}_SEED={number}")
    return lambda test: seed(number)(settings(max_examples=count, derandomize=False, database=None)(test))


def is_ours(error):
    """Whether a statement of this package raised the error: a test holds these against the page of errors."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return PACKAGE in pathlib.Path(last.filename).parents and (last.line or "").lstrip().startswith("raise")


def outcome(build, data, target, quantized, folder, *, products_of_activations=False, in_use=False):
    """ "right", or the class of the error that refused the model; raises whatever should not be.

    Cases that this backend or processor cannot run are no cases of the test. `in_use`: the file must be right in ONNX
    Runtime as users run it, too.
    """
    if target == "litert" and (not quantized or keras.backend.backend() != "tensorflow"):
        target = None
    if target == "openvino" and EXACT_WEIGHT_BITS is not None:
        # Products of activations, too, saturate on this processor, and they have no weights with fewer bits.
        assume(not quantized or not products_of_activations)
    keras.utils.clear_session(free_memory=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build()
        try:
            _export(model, data, target, quantized, folder, in_use)
        except VerificationError:
            raise
        except Exception as error:
            if not is_ours(error):
                raise
            return type(error).__name__
    return "right"


def _export(model, data, target, quantized, folder, in_use):
    if quantized:
        model = quantize_model(model, target=target, weight_bits=EXACT_WEIGHT_BITS if target != "litert" else None)
        calibrate(model, data, verbose=0)
    if target == "litert":
        export_litert(model, folder / "m.tflite", verify_with=data)
    else:
        runtime = "openvino" if target == "openvino" else "onnxruntime"
        export_onnx(model, folder / "m.onnx", verify_with=data, verify_runtime=runtime)
        if in_use and runtime == "onnxruntime" and {layer.compute_dtype for layer in model.layers} <= {"float32"}:
            _assert_right_in_use(model, data, folder / "m.onnx")


def _assert_right_in_use(model, data, path):
    """`verify_with` runs a file with all integers as outputs and without ONNX Runtime's optimizer, and users do not.

    The optimizer may change the last bit of a float, and so a few integers, of which later layers make more: a U-Net of
    14 convolutions was at 44 dB. Of 114 models that were drawn, each was above 84 dB.
    """
    expected = model.predict(data, verbose=0)
    names = [output.name for output in onnx.load(path).graph.output]
    outputs = [expected[name] for name in names] if isinstance(expected, dict) else keras.tree.flatten(expected)
    for y, actual in zip(outputs, run(path, [data], exact=True), strict=True):
        signal, noise = np.square(y - y.mean(axis=0)).sum(), np.square(y - actual).sum()
        assert noise <= 1e-3 * signal + 1e-8, f"{10 * np.log10(signal / noise):.1f} dB"
