"""From a float Keras model to an INT8 ONNX file: train, quantize, calibrate, fine-tune, export, run.

    python examples/quickstart.py

Writes its files to quickstart_output/ and takes a few minutes on two cores.
"""

import pathlib

import keras

from fashion_mnist import load_fashion_mnist
from report import evaluate, print_table
from tensorflow_quantization import calibrate, describe, export_onnx, html_report, quantize_model, runtime_report

OUTPUT = pathlib.Path("quickstart_output")


def residual_network() -> keras.Model:
    """A small residual network: a stem and three residual blocks."""

    def conv(x, filters, size=3, strides=1):
        x = keras.layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        return keras.layers.BatchNormalization()(x)

    inputs = keras.Input((28, 28, 1))
    x = keras.layers.ReLU()(conv(inputs, 16, strides=2))
    for filters, strides in [(16, 1), (32, 2), (64, 2)]:
        shortcut = x if strides == 1 else conv(x, filters, 1, strides)
        x = keras.layers.ReLU()(conv(x, filters, 3, strides))
        x = keras.layers.Add()([shortcut, conv(x, filters)])
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x), name="fashion")


def train(model: keras.Model, x, y, epochs: int, learning_rate: float) -> None:
    """Adam with a learning rate that falls to zero."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=epochs * -(-len(x) // 128))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    model.fit(x, y, batch_size=128, epochs=epochs)


def main() -> None:
    keras.utils.set_random_seed(1)
    OUTPUT.mkdir(exist_ok=True)
    (x_train, y_train), (x_test, y_test) = load_fashion_mnist()

    print("1. Train a float model")
    model = residual_network()
    train(model, x_train, y_train, epochs=2, learning_rate=3e-3)
    export_onnx(model, OUTPUT / "float.onnx")
    results = [evaluate("float", model, OUTPUT / "float.onnx", x_test, y_test)]

    print("\n2. Quantize it, and calibrate the ranges of its activations: no training")
    quantized = quantize_model(model, target="onnxruntime")
    calibrate(quantized, x_train[:3200], method="percentile")
    (OUTPUT / "layers.md").write_text(describe(quantized).to_markdown())
    export_onnx(quantized, OUTPUT / "int8_calibrated.onnx", verify_with=x_test[:100])
    results += [evaluate("INT8 calibrated", quantized, OUTPUT / "int8_calibrated.onnx", x_test, y_test)]

    page = html_report(
        OUTPUT / "report.html",
        quantized,
        float_model=model,
        data=x_test[:32],
        file=OUTPUT / "int8_calibrated.onnx",
        float_file=OUTPUT / "float.onnx",
    )

    print("\n3. Fine-tune the quantized model")
    train(quantized, x_train, y_train, epochs=1, learning_rate=3e-4)
    export_onnx(quantized, OUTPUT / "int8_fine_tuned.onnx", verify_with=x_test[:100])
    results += [evaluate("INT8 fine-tuned", quantized, OUTPUT / "int8_fine_tuned.onnx", x_test, y_test)]
    quantized.save(OUTPUT / "int8_fine_tuned.keras")

    print_table(results, x_test[:1])
    print(f"\nWhat was quantized in which layer, and why, is in {OUTPUT / 'layers.md'}.")
    print(runtime_report(OUTPUT / "int8_fine_tuned.onnx", runtime="onnxruntime"))
    print(f"\nOpen {page} in a browser: the calibrated network, layer by layer.")


if __name__ == "__main__":
    main()
