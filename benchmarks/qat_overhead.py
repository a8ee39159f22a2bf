"""What quantization-aware training costs: a training step of a quantized ResNet-20 against one of the float model.

    python benchmarks/qat_overhead.py [--quick] [--peer-python PYTHON]

Both models take turns in one process, at batch size 64 on 32 x 32 images. TFMOT, on tf-keras, is measured in the same
way in a process of its own, against the float step of tf-keras, if the interpreter PYTHON (by default this one) has it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import numpy as np

from tensorflow_quantization.export.verification.timing import interleaved, summary

BATCH = 64


def resnet20(keras):
    """ResNet-20 for 32 x 32 images (arXiv:1512.03385, section 4.2), in the given Keras: Keras 3 or tf-keras."""
    layers = keras.layers

    def conv(x, filters, size=3, strides=1):
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = layers.Input((32, 32, 3))
    x = layers.ReLU()(conv(inputs, 16))
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if filters > 16 and block == 0 else 1
            shortcut = conv(x, filters, 1, strides) if strides > 1 else x
            y = layers.ReLU()(conv(x, filters, strides=strides))
            x = layers.ReLU()(layers.Add()([conv(y, filters), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def training_step(keras, model):
    """A function that trains one batch."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss=loss)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 32, 32, 3)).astype("float32")
    y = rng.integers(10, size=BATCH)
    return lambda: model.train_on_batch(x, y)


def measure(rounds: int) -> list[tuple[str, float, float]]:
    """This library, on Keras 3."""
    import keras

    from tensorflow_quantization import quantize_model

    model = resnet20(keras)
    contenders = {"float, Keras 3": training_step(keras, model)}
    for ranges in ("ema", "learned"):
        quantized = quantize_model(model, ranges=ranges)
        contenders[f'quantized, ranges="{ranges}"'] = training_step(keras, quantized)
    return summary(interleaved(contenders, rounds))


def measure_peer(rounds: int) -> list[tuple[str, float, float]]:
    """TFMOT, on tf-keras; call it in a process that sets TF_USE_LEGACY_KERAS."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    model = resnet20(tf_keras)
    quantized = tfmot.quantization.keras.quantize_model(model)
    contenders = {
        "float, tf-keras": training_step(tf_keras, model),
        f"quantized, TFMOT {tfmot.__version__}": training_step(tf_keras, quantized),
    }
    return summary(interleaved(contenders, rounds))


def run_peer(python: str, rounds: int) -> list[tuple[str, float, float]] | None:
    """`measure_peer` in another process; `None` where TFMOT is not installed."""
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    modules = "import tensorflow_model_optimization, tf_keras"
    if subprocess.run([python, "-c", modules], env=environment, capture_output=True, check=False).returncode:
        return None
    command = [python, __file__, "--as-peer", str(rounds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"TFMOT is installed, but failed:\n{done.stderr}")
    return [tuple(row) for row in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: does it run, not how fast")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PYTHON", help="an interpreter with TFMOT")
    parser.add_argument("--as-peer", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_peer:
        print(json.dumps(measure_peer(arguments.as_peer)))
        return

    from tensorflow_quantization.text.tables import markdown_table

    rounds = 5 if arguments.quick else 60
    rows = measure(rounds)
    peer = run_peer(arguments.peer_python, rounds)
    table = [(name, f"{ms:.1f}", f"{ratio:.2f}") for name, ms, ratio in rows + (peer or [])]
    print(f"A training step of ResNet-20, batch {BATCH}, {rounds} rounds, medians\n")
    print(markdown_table(["step", "ms", "against float"], table))
    if peer is None:
        print("\nTFMOT is not installed here: pip install tensorflow-model-optimization tf-keras, or --peer-python.")


if __name__ == "__main__":
    main()
