"""Partial quantization by name: `conv2d_2` and `dense`, and nothing else.

python examples/partial_quantization.py
"""

from fashion_mnist import load_fashion_mnist
from models import small_cnn
from tensorflow_quantization import QuantizationSpec, describe, export_onnx, quantize_model

(x_train, y_train), (x_test, y_test) = load_fashion_mnist()
model = small_cnn()
model.fit(x_train, y_train, batch_size=128, epochs=1)

spec = QuantizationSpec()
spec.add(["conv2d_2", "dense"])
print(spec)

quantized = quantize_model(model, quantization_mode="partial", quantization_spec=spec)
quantized.fit(x_train, y_train, batch_size=128, epochs=1)
print(describe(quantized))
export_onnx(quantized, "partial.onnx", verify_with=x_test[:100])
print(quantized.evaluate(x_test, y_test, verbose=0, return_dict=True))
