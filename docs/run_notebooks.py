"""Runs notebooks with the package of this checkout, and writes what their cells show into them.

    python docs/run_notebooks.py notebooks/*.ipynb

Run it after a change to a notebook or to what its cells show. The tests run every notebook and compare.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "examples"))

from fashion_mnist import DEBIAN  # noqa: E402

#: The tag of the cell that installs the package: it is not run here.
INSTALL = "install"
#: What TensorFlow's libraries write to stderr while they load, whatever the log level.
_START_UP = re.compile(r"^(?:WARNING: All log messages before absl|[IWE]0000 ).*\n", re.MULTILINE)


def run(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Returns the notebook, run from its first cell to its last in a kernel and a folder of its own.

    A progress bar is kept as it looks at its end, and TensorFlow's start-up notes are left out.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises an exception.
    """
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=None,
            resources={"metadata": {"path": folder}},
            skip_cells_with_tag=INSTALL,
            coalesce_streams=True,
            record_timing=False,
            store_widget_state=False,
            extra_arguments=["--log-level=ERROR"],  # not that a local kernel talks over TCP
        )
        client.execute(env=_environment(Path(folder)))
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.get("name") == "stderr":
                output.text = _START_UP.sub("", output.text)
        cell.outputs = [output for output in cell.outputs if output.get("text") != ""]
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Returns the cells of a notebook that hold code, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def update(path: Path) -> None:
    """Writes what the cells of a notebook show into it."""
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    notebook = run(notebook)
    # Nothing of the machine, so that only changes of the notebook change the file.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


def _environment(folder: Path) -> dict[str, str]:
    """For the kernel: this checkout, few start-up notes, and Fashion-MNIST without a network where it is installed."""
    names = {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if DEBIAN.is_dir():
        names["KERAS_HOME"] = str(folder / ".keras")  # where `keras.datasets` looks before it downloads
        (folder / ".keras" / "datasets").mkdir(parents=True)
        (folder / ".keras" / "datasets" / "fashion-mnist").symlink_to(DEBIAN)
    return {**os.environ, **names}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        update(Path(name))
