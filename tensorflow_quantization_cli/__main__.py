"""`python -m tensorflow_quantization_cli` is the command line."""

import sys

from tensorflow_quantization_cli import main

sys.exit(main())
