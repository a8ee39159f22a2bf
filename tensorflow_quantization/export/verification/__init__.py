"""Compares a written file, run in a runtime, with the Keras model."""
