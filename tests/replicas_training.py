"""Trains a small quantized network on one device or on several; a program, since a process has its devices for good.

    python tests/replicas_training.py SETTING RANGES OUT.npz [RANK PORT]

SETTING: one; of TensorFlow mirrored (two virtual devices) or workers (two processes, this one is RANK); of JAX sharded
(eight virtual devices); of PyTorch processes (two, this one is RANK). Each replica writes what it has.
"""

import contextlib
import json
import os
import pathlib
import sys

import numpy as np

BATCH, BATCHES, EPOCHS = 16, 4, 2
WORKERS = 2


def data() -> tuple[np.ndarray, np.ndarray]:
    """Images whose range differs from one to the next, so that no two parts of a batch have the same."""
    rng = np.random.default_rng(0)
    gains = np.linspace(0.2, 3.0, BATCH * BATCHES)[rng.permutation(BATCH * BATCHES)]
    images = rng.normal(size=(BATCH * BATCHES, 8, 8, 3)) * gains[:, None, None, None]
    return images.astype("float32"), rng.integers(0, 4, BATCH * BATCHES)


def network(ranges: str):
    import keras

    from tensorflow_quantization import quantize_model

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, use_bias=False)(inputs)
    # PyTorch's processes would need a BatchNormalization that knows of them; Keras' does not.
    if keras.backend.backend() != "torch":
        x = keras.layers.BatchNormalization(synchronized=keras.backend.backend() == "tensorflow")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.DepthwiseConv2D(3)(x))
    weight_ranges = "learned" if ranges == "learned" else "minmax"
    quantized = quantize_model(
        keras.Model(inputs, keras.layers.Dense(4)(x)), ranges=ranges, weight_ranges=weight_ranges
    )
    quantized.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return quantized


def fit(quantized) -> None:
    images, labels = data()
    quantized.fit(images, labels, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0)


def train_mirrored(ranges: str):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * WORKERS)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        quantized = network(ranges)
    fit(quantized)
    return quantized


def train_workers(ranges: str, rank: int, port: int):
    import tensorflow as tf

    workers = [f"localhost:{port + index}" for index in range(WORKERS)]
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}})
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        quantized = network(ranges)
    # Keras 3's `fit` knows the replicas of one process only: here, as its guide shows, a step of one's own.
    optimizer, loss = quantized.optimizer, quantized.loss
    optimizer.build(quantized.trainable_variables)

    @tf.function
    def step(batch):
        def replica_step(images, labels):
            with tf.GradientTape() as tape:
                value = loss(labels, quantized(images, training=True))  # Keras divides it by the replicas
            gradients = tape.gradient(value, [variable.value for variable in quantized.trainable_variables])
            optimizer.apply_gradients(zip(gradients, quantized.trainable_variables, strict=True))

        strategy.run(replica_step, args=batch)

    batches = tf.data.Dataset.from_tensor_slices(data()).batch(BATCH)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    for _ in range(EPOCHS):
        for batch in strategy.experimental_distribute_dataset(batches.with_options(options)):
            step(batch)
    return quantized


def train_sharded(ranges: str):
    import keras

    keras.distribution.set_distribution(keras.distribution.DataParallel())
    quantized = network(ranges)
    fit(quantized)
    return quantized


def train_processes(ranges: str, rank: int, port: int):
    import torch

    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=WORKERS)
    quantized = network(ranges)
    replica = torch.nn.parallel.DistributedDataParallel(quantized)
    optimizer = torch.optim.SGD(replica.parameters(), 0.05)
    loss = torch.nn.CrossEntropyLoss()
    images, labels = data()
    for _ in range(EPOCHS):
        for start in range(0, len(images), BATCH):
            part = slice(start + rank * BATCH // WORKERS, start + (rank + 1) * BATCH // WORKERS)
            optimizer.zero_grad()
            loss(replica(torch.tensor(images[part]), training=True), torch.tensor(labels[part])).backward()
            optimizer.step()
    return quantized


def train_one(ranges: str):
    quantized = network(ranges)
    fit(quantized)
    return quantized


def values(quantized) -> dict[str, np.ndarray]:
    """All weights; of mirrored variables one replica's after the other."""
    import keras

    found = {}
    for weight in quantized.weights:
        mirrored = getattr(weight.value, "values", None)
        for index, value in enumerate(mirrored if isinstance(mirrored, tuple) else [weight.value]):
            found[f"{index} {weight.path}"] = np.array(keras.ops.convert_to_numpy(value))
    return found


def main(setting: str, ranges: str, out: str, *worker: str) -> None:
    trained = globals()[f"train_{setting}"](ranges, *map(int, worker))
    np.savez(out, **{name.replace("/", "|"): value for name, value in values(trained).items()})


if __name__ == "__main__":
    sys.path[:] = [str(pathlib.Path(__file__).parents[1]), *(p for p in sys.path if p)]
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
