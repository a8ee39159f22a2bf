import pytest
from quantize_jobs import write_job


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with what `write_job` writes."""
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path)
    return tmp_path
