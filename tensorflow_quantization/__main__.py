"""`python -m tensorflow_quantization` is the command line."""

import sys

from tensorflow_quantization_cli import main

sys.exit(main())
