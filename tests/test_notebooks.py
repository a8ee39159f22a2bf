"""The notebooks run from their first cell to their last, and hold what they show."""

import copy
import re
import tomllib
from pathlib import Path

import pytest
from docs_scripts import DOCS, docs_script

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
run_notebooks = docs_script("run_notebooks")

ROOT = DOCS.parent
#: Each with what its prose says, checked after its last cell.
NOTEBOOKS = {
    "post_training_quantization": """
        assert accuracies["float"] > 0.8
        assert accuracies["INT8"] > accuracies["float"] - 0.01
        assert runtime_report(file).integer_share == 1
    """,
    "quantization_aware_training": """
        assert accuracies["float"] > 0.75
        assert accuracies["fine-tuned"] > accuracies["calibrated"]
        assert agreements["fine-tuned"] > agreements["calibrated"] + 0.01
        assert abs(in_runtime - accuracies["fine-tuned"]) < 0.005
        assert file.stat().st_size < float_file.stat().st_size
        assert runtime_report(file).integer_share == 1
    """,
    "accuracy_debugging": """
        assert accuracies["float"] > 0.8
        assert abs(accuracies["broken, float"] - accuracies["float"]) < 0.001
        assert max(accuracies["broken, INT8"], accuracies["dark calibration, INT8"]) < accuracies["float"] - 0.2
        assert min(accuracies["equalized, INT8"], accuracies["calibrated anew, INT8"]) > accuracies["float"] - 0.01
        assert (report.worst[0].layer, report.worst[0].kind.value) == ("body", "scaled_channels")
        assert alone.ranked()[0].layer == "mix"
        assert wrong_input.worst[0].kind.value == "input"
    """,
    "old_toolkit": """
        assert operators.count("Conv") == 3 and operators.count("QuantizeLinear") > 0
        found = describe(quantize_model(model, custom_qdq_cases=[LinearBranch()]))["add"]
        assert [quantizer.what for quantizer in found.quantizers] == ["input 1"]
    """,
}
COLAB = "https://colab.research.google.com/github"


def read(name: str):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def kinds(cell) -> list[tuple[str, ...]]:
    """What the outputs of a cell are, without their contents."""
    return [(output.output_type, output.get("name", ""), *sorted(output.get("data", {}))) for output in cell.outputs]


def test_every_notebook_is_tested():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_without_a_warning_and_shows_what_it_did(name):
    committed = read(name)
    fresh = copy.deepcopy(committed)
    claims = "\n".join(line.strip() for line in NOTEBOOKS[name].splitlines())
    fresh.cells.append(nbformat.v4.new_code_cell(claims))
    fresh = run_notebooks.run(fresh)
    for cell, before in zip(run_notebooks.code_cells(fresh), run_notebooks.code_cells(committed), strict=False):
        assert not [output.text for output in cell.outputs if output.get("name") == "stderr"], cell.source
        assert kinds(cell) == kinds(before), f"Run python docs/run_notebooks.py notebooks/{name}.ipynb"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_begins_with_the_installation(name):
    first, *others = run_notebooks.code_cells(read(name))
    assert re.fullmatch(r'%pip install -q "tensorflow-quantization\[[a-z,]+\]"', first.source)
    assert first.metadata.tags == [run_notebooks.INSTALL]
    assert not [cell.source for cell in others if "tags" in cell.metadata or "%pip" in cell.source]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_of_one_run_without_faults(name):
    cells = run_notebooks.code_cells(read(name))[1:]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) > 4
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_small_and_names_no_machine(name):
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    assert len(text) < 300_000
    assert not re.findall(r"/(?:tmp|home|root|work|usr)/\w+", text)
    assert "\\r" not in text  # a progress bar as it looks at its end


def test_the_badge_in_the_readme_opens_the_notebooks():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # Colab asks for the repository as long as the project names none.
    repository = project.get("urls", {}).get("Repository", "").removeprefix("https://github.com")
    folder = f"{COLAB}{repository}/blob/main/notebooks/" if repository else COLAB
    assert re.findall(r"\[!\[Open in Colab\]\([^)]+\)\]\(([^)]+)\)", Path(ROOT / "README.md").read_text()) == [folder]
