"""`python -m tensorflow_quantization_cli` is the command line."""

from tensorflow_quantization_cli import process

process()
