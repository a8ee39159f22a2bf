"""Models as users have them: each is right in its target's own runtime, or refused by an error of ours.

`USER_MODELS=10000` draws as many models instead of the same few each time, and prints the seed that repeats them:
`USER_MODELS_SEED`.
"""

import collections
import os
import pathlib
import random
import traceback
import warnings

import keras
import pytest
from hypothesis import assume, given, seed, settings
from hypothesis import strategies as st
from processor import EXACT_WEIGHT_BITS
from user_models import build, data_for, user_models

import tensorflow_quantization
from tensorflow_quantization import calibrate, export_litert, export_onnx, quantize_model
from tensorflow_quantization.export import VerificationError

COUNT = int(os.environ.get("USER_MODELS", 0))
SEED = int(os.environ.get("USER_MODELS_SEED", random.randrange(2**32)))
TARGETS = (None, "tensorrt", "onnxruntime", "openvino", "litert")
PACKAGE = pathlib.Path(tensorflow_quantization.__file__).parent


def many(test):
    """Settings for the number of models asked for."""
    if not COUNT:
        return settings(max_examples=60)(test)
    print(f"USER_MODELS_SEED={SEED}")
    return seed(SEED)(settings(max_examples=COUNT, derandomize=False, database=None)(test))


def is_ours(error):
    """Whether a statement of this package raised the error: a test holds these against the page of errors."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return PACKAGE in pathlib.Path(last.filename).parents and (last.line or "").lstrip().startswith("raise")


def outcome(case, target, quantized, folder):
    """ "right", or the class of the error that refused the model; raises whatever should not be."""
    data = data_for(case["kind"], 4)
    runtime = {"openvino": "openvino"}.get(target, "onnxruntime")
    model = build(**case)
    try:
        if quantized:
            bits = EXACT_WEIGHT_BITS if target != "litert" else None
            model = quantize_model(model, target=target, weight_bits=bits)
            calibrate(model, data, verbose=0)
        if target == "litert":
            export_litert(model, folder / "m.tflite", verify_with=data)
        else:
            export_onnx(model, folder / "m.onnx", verify_with=data, verify_runtime=runtime)
    except VerificationError:
        raise
    except Exception as error:
        if not is_ours(error):
            raise
        return type(error).__name__
    return "right"


@pytest.mark.slow
def test_a_model_is_right_in_its_runtime_or_refused(tmp_path_factory):
    outcomes = collections.Counter()

    @many
    @given(case=user_models(), target=st.sampled_from(TARGETS), quantized=st.sampled_from([True, True, False]))
    def draw(case, target, quantized):
        outcomes[checked(case, target, quantized, tmp_path_factory.mktemp("case"))] += 1

    draw()
    print(dict(outcomes))
    assert outcomes["right"] > outcomes.total() / 2  # refusing all models is no way to be right


def checked(case, target, quantized, folder):
    """The outcome of a case, without cases that this backend or processor cannot run."""
    if target == "litert" and (not quantized or keras.backend.backend() != "tensorflow"):
        target = None
    if target == "openvino" and EXACT_WEIGHT_BITS is not None:
        # Products of activations, too, saturate on this processor, and they have no weights with fewer bits.
        assume(not quantized or "attention" not in [name for name, _, _ in case["steps"]])
    keras.utils.clear_session(free_memory=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return outcome(case, target, quantized, folder)
