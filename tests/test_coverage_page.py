import importlib.util
from pathlib import Path

import keras
import pytest

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_on_coverage_is_up_to_date():
    spec = importlib.util.spec_from_file_location("generate_coverage", DOCS / "generate_coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (DOCS / "coverage.md").read_text()
    if f"for Keras {'.'.join(keras.__version__.split('.')[:2])}." not in text:
        pytest.skip("the page was written for another version of Keras")
    assert module.page() == text, "Run python docs/generate_coverage.py"
