"""A Keras model as a graph that one can read, run and copy. Nothing here knows of quantization."""
