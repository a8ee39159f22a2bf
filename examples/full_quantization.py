"""Full quantization: every layer that the default table knows, and with a spec, some of them in another way.

python examples/full_quantization.py
"""

from fashion_mnist import load_fashion_mnist
from models import small_cnn
from tensorflow_quantization import QuantizationSpec, calibrate, describe, quantize_model

(x_train, y_train), (x_test, y_test) = load_fashion_mnist()
model = small_cnn()
model.fit(x_train, y_train, batch_size=128, epochs=1)

# Full default: Conv2D, Dense, ... by the table, MaxPooling2D and others not.
default = quantize_model(model)
calibrate(default, x_train[:1000])
print(describe(default))

# Full custom: as before, but the max pooling too, four-bit weights in the largest layer, and the last one in float.
spec = QuantizationSpec()
spec.add("MaxPooling2D", is_keras_class=True)
spec.add("dense", weight_bits=4)
spec.add("dense_1", quantize_input=False, quantize_weight=False)
custom = quantize_model(model, quantization_spec=spec)
calibrate(custom, x_train[:1000])
print(describe(custom))

for name, each in [("float", model), ("full default", default), ("full custom", custom)]:
    print(f"{name:13}{each.evaluate(x_test, y_test, verbose=0, return_dict=True)['accuracy']:.2%}")
