"""The Python blocks of the documentation run: those of a page one after the other, as a reader would type them."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
#: The pages whose blocks need nothing but what the page itself defines.
PAGES = ["basics.md", "cases.md", "export.md", "modes.md", "new_layer.md", "ranges.md", "targets.md"]


def python_blocks(page: str) -> list[str]:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)
    return [block for block in blocks if "--8<--" not in block]  # the examples have their own tests


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The model has no:UserWarning")  # an entry of a spec that is only shown
@pytest.mark.parametrize("page", PAGES)
def test_page_runs(page, tmp_path, monkeypatch, own_wrappers):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in python_blocks(page):
        exec(compile(block, page, "exec"), namespace)
