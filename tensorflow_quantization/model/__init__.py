"""A Keras model as a graph that can be read, run and copied. It knows nothing of quantization."""
