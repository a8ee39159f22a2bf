"""`python -m tensorflow_quantization` is the command line."""

import sys

from tensorflow_quantization.cli import main

sys.exit(main())
