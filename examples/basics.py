"""The basic flow: train, export, quantize, fine-tune, export.

    python examples/basics.py

Writes the models to toolkit_basics/.
"""

import tensorflow as tf

from fashion_mnist import load_fashion_mnist
from tensorflow_quantization import quantize_model, utils

(train_images, train_labels), (test_images, test_labels) = load_fashion_mnist()

assets = utils.CreateAssetsFolders("toolkit_basics")
assets.add_folder("example")

# 1. Create a simple model (baseline)
input_img = tf.keras.layers.Input(shape=(28, 28, 1))
x = tf.keras.layers.Conv2D(filters=2, kernel_size=(3, 3))(input_img)
x = tf.keras.layers.ReLU()(x)
x = tf.keras.layers.Flatten()(x)
x = tf.keras.layers.Dense(10)(x)
model = tf.keras.Model(input_img, x)
loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])

# 2. Train model
model.fit(train_images, train_labels, batch_size=32, epochs=2, validation_split=0.1)

# 3. Save model and then convert it to ONNX
tf.keras.models.save_model(model, assets.example.fp32_saved_model)
utils.convert_saved_model_to_onnx(assets.example.fp32_saved_model, assets.example.fp32_onnx_model)

# 4. Quantize the model: it is compiled as the float model was
q_model = quantize_model(model)

# 5. Train quantized model again for a few epochs to recover accuracy (fine-tuning).
q_model.fit(train_images, train_labels, batch_size=32, epochs=2, validation_split=0.1)

# 6. Save the quantized model with QDQ nodes inserted and then convert it to ONNX
tf.keras.models.save_model(q_model, assets.example.int8_saved_model)
utils.convert_saved_model_to_onnx(assets.example.int8_saved_model, assets.example.int8_onnx_model)

print("float    ", model.evaluate(test_images, test_labels, verbose=0, return_dict=True))
print("quantized", q_model.evaluate(test_images, test_labels, verbose=0, return_dict=True))
