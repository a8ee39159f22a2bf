"""What `import tensorflow_quantization` loads."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_onnx_is_imported_when_it_is_needed_only():
    code = (
        "import sys, tensorflow_quantization as package\n"
        "print(sorted({'onnx', 'onnx_ir', 'onnxruntime', 'tf2onnx'} & set(sys.modules)))\n"
        "package.export_onnx\n"
        "print('onnx_ir' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == ["[]", "True"]
