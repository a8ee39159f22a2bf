"""Lets `python -m tensorflow_quantization --help` answer before the package imports Keras and its backend.

Python imports a package before its `__main__`. Until then, argument 0 is "-m". So the package imports
this module first.
"""

import sys
from itertools import pairwise

if sys.argv[:1] == ["-m"] and ("-m", __package__) in pairwise(sys.orig_argv):
    from tensorflow_quantization_cli import started_with_the_package

    started_with_the_package()
