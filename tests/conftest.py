"""What all tests share: a backend, fresh names and seeds, small models, real data."""

import importlib.util
import os
import pathlib
import sys

import pytest

TESTS = pathlib.Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "examples")]

# Whatever is installed runs the tests; KERAS_BACKEND chooses where there are several.
if "KERAS_BACKEND" not in os.environ:
    installed = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    os.environ["KERAS_BACKEND"] = installed[0]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow computes channels-first convolutions on a CPU with oneDNN only, which it leaves off on some processors.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# The warning is about this processor, not about what the processes of a test do.
os.environ.setdefault("PYTHONWARNINGS", "ignore:ONNX Runtime saturates on this processor:UserWarning")
# The models are so small that threads wait for each other longer than they compute.
for threads in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
# JAX compiles each operation for each shape: quickly rather than well, and once on this machine.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(TESTS.parent / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import keras  # noqa: E402
import small_models  # noqa: E402
from hypothesis import settings  # noqa: E402

from tensorflow_quantization import BaseQuantizeWrapper  # noqa: E402

# The same examples each time. No deadline, and few examples for JAX, which compiles each new shape.
examples = 10 if keras.backend.backend() == "jax" else 100
settings.register_profile("tests", deadline=None, derandomize=True, max_examples=examples)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _fresh_names_and_seeds():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def own_wrappers():
    """Lets a test define wrapper classes: they are forgotten afterwards."""
    wrappers = dict(BaseQuantizeWrapper.CHILD_WRAPPERS)
    objects = dict(keras.saving.get_custom_objects())
    yield
    BaseQuantizeWrapper.CHILD_WRAPPERS.clear()
    BaseQuantizeWrapper.CHILD_WRAPPERS.update(wrappers)
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(objects)


@pytest.fixture
def cnn():
    """Conv-BN-ReLU, pooling, Dense."""
    return small_models.cnn()


@pytest.fixture
def residual():
    """A residual block with an identity branch, and a classifier."""
    return small_models.residual()


@pytest.fixture
def images():
    """(x, y): 16 random images of shape (8, 8, 3) and labels 0 to 4."""
    return small_models.images()


@pytest.fixture(scope="session")
def fashion_mnist():
    """`(x_train, y_train), (x_test, y_test)` of the real Fashion-MNIST."""
    from fashion_mnist import load_fashion_mnist

    try:
        return load_fashion_mnist()
    except Exception as error:  # no package, and no network to download it
        pytest.skip(f"Fashion-MNIST is neither installed nor downloadable: {error}")
