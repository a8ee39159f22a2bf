"""A Keras model as a graph that can be read, run and copied. Nothing here knows of quantization."""
