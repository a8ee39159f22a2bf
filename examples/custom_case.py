"""A case of your own: a rule that decides by the model's structure where Q/DQ go.

python examples/custom_case.py
"""

import keras
from tensorflow_quantization.custom_qdq_cases import check_is_quantizable_by_layer_name
from tensorflow_quantization.utils import find_my_predecessors

from fashion_mnist import load_fashion_mnist
from tensorflow_quantization import CustomQDQInsertionCase, QuantizationSpec, calibrate, describe, quantize_model


class PooledConcatenateQDQCase(CustomQDQInsertionCase):
    """Quantizes the inputs of each Concatenate that come from a pooling layer."""

    def case(self, keras_model, qspec):
        asked = QuantizationSpec()
        for layer in keras_model.layers:
            if not isinstance(layer, keras.layers.Concatenate):
                continue
            if not check_is_quantizable_by_layer_name(qspec, layer.name):
                continue  # the user's spec names it, and that counts more
            inputs = find_my_predecessors(keras_model, layer.name)
            pooled = [i for i, producer in enumerate(inputs) if "Pooling" in producer["class"]]
            if pooled:
                asked.add(layer.name, quantization_index=pooled)
        return asked


inputs = keras.Input((28, 28, 1))
stem = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
convolved = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(stem)
pooled = keras.layers.MaxPooling2D()(stem)
x = keras.layers.Concatenate(name="concatenate")([convolved, pooled])
x = keras.layers.GlobalAveragePooling2D()(x)
model = keras.Model(inputs, keras.layers.Dense(10)(x))

quantized = quantize_model(model, custom_qdq_cases=[PooledConcatenateQDQCase()])
calibrate(quantized, load_fashion_mnist()[0][0][:1000])
print(describe(quantized))
