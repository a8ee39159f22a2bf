"""The list of TFMOT's tests names tests that exist, and the page shows it."""

import ast
import pathlib

import tfmot_upstream

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parents[1] / "docs/tfmot.md"


def test_each_test_of_the_list_exists():
    existing = {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    named = {name for group in tfmot_upstream.COUNTED.values() for test in group for name in test.ours}
    assert named <= existing


def test_each_test_that_does_not_pass_has_a_reason():
    for group in tfmot_upstream.COUNTED.values():
        for test in group:
            assert bool(test.why) is (test.passes < test.cases), test.name


def test_nine_of_ten_pass():
    passing, tests, passing_cases, cases = tfmot_upstream.figures()
    assert passing >= 0.9 * tests and passing_cases >= 0.9 * cases


def test_the_page_has_the_list_and_the_figures():
    page = PAGE.read_text()
    assert tfmot_upstream.table() in page, "Run python tests/tfmot_upstream.py and paste its table"
    assert "{} of {} tests, {} of {} cases".format(*tfmot_upstream.figures()) in page
    assert all(f"| {name} | {why} |" in page for name, why in tfmot_upstream.NOT_COUNTED.items())
