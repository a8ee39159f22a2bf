import keras
import pytest
from docs_scripts import DOCS, docs_script


def test_the_page_on_coverage_is_up_to_date():
    module = docs_script("generate_coverage")
    text = (DOCS / "coverage.md").read_text()
    if f"for Keras {'.'.join(keras.__version__.split('.')[:2])}." not in text:
        pytest.skip("the page was written for another version of Keras")
    assert module.page() == text, "Run python docs/generate_coverage.py"
