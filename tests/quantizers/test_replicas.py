"""Several devices train what one device trains: the same ranges in each replica, of the whole batch."""

import importlib.util
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import replicas_training

from tensorflow_quantization.quantizers import replicas

PROGRAM = pathlib.Path(replicas_training.__file__)
#: By setting: the backend, and how many processes train.
SETTINGS = {
    "mirrored": ("tensorflow", 1),
    "workers": ("tensorflow", 2),
    "sharded": ("jax", 1),
    "processes": ("torch", 2),
}


def trained(folder, setting, ranges, backend, processes=1):
    """The weights of each process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8" if setting == "sharded" else "",
        "CUDA_VISIBLE_DEVICES": "",
    }
    outs = [folder / f"{setting}-{rank}.npz" for rank in range(processes)]
    running = [
        subprocess.Popen(
            [sys.executable, PROGRAM, setting, ranges, out, *([str(rank), str(port)] if processes > 1 else [])],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=500)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in running:
            process.kill()
    return [dict(np.load(out)) for out in outs]


@pytest.mark.parametrize(
    "setting",
    ["mirrored", *(pytest.param(name, marks=pytest.mark.slow) for name in ("workers", "sharded", "processes"))],
)
def test_replicas_train_what_one_device_trains(setting, tmp_path):
    backend, processes = SETTINGS[setting]
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    (one,) = trained(tmp_path, "one", "ema", backend)
    for replica in trained(tmp_path, setting, "ema", backend, processes):
        assert any(name.endswith("range") for name in replica)
        for name, value in replica.items():
            expected = one["0 " + name.partition(" ")[2]]
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["mirrored", pytest.param("processes", marks=pytest.mark.exhaustive)])
def test_learned_ranges_start_from_the_whole_batch_and_stay_equal(setting, tmp_path):
    backend, processes = SETTINGS[setting]
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    (one,) = trained(tmp_path, "one", "learned", backend)
    found = trained(tmp_path, setting, "learned", backend, processes)
    for replica in found:
        for name, value in replica.items():
            # Weights and steps are not compared: the gradient of a step jumps where one value is rounded the other way,
            # which the order of a sum decides.
            if name.endswith("range"):
                np.testing.assert_allclose(value, one["0 " + name.partition(" ")[2]], rtol=1e-5)
            np.testing.assert_array_equal(value, found[0]["0 " + name.partition(" ")[2]])


def test_either_computes_what_is_chosen():
    x = keras.ops.convert_to_tensor(np.float32([-1.0, 3.0]))
    assert keras.ops.convert_to_numpy(replicas.either(x[1] > 0, lambda: x, lambda: -x)).tolist() == [-1, 3]
    assert keras.ops.convert_to_numpy(replicas.either(x[0] > 0, lambda: x, lambda: -x)).tolist() == [1, -3]


def test_one_device_sees_its_own_batch():
    x = keras.ops.convert_to_tensor(np.float32([[-1.0, 3.0], [0.5, -4.0]]))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(replicas.batch_range(x)), [-4.0, 3.0])
    assert float(replicas.mean_magnitude(x)) == 2.125
