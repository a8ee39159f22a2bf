"""`python -m tensorflow_quantization` is the command line."""

from tensorflow_quantization_cli import process

process()
