"""Runs a written file in a runtime, and compares the results with the Keras model."""
