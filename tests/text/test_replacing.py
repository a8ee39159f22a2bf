"""Files are moved to their places together, or nothing is changed."""

import os

import pytest

from tensorflow_quantization.text.replacing import replacing_all


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_all(folder, text):
    with replacing_all([folder / "one.txt", folder / "inner" / "deep" / "two.txt"]) as written:
        for path in written:
            path.write_text(text)
        (written[0].parent / "one.txt.data").write_text(text)


def test_all_files_and_missing_folders_are_there_at_the_end(tmp_path):
    write_all(tmp_path, "old")
    write_all(tmp_path, "new")
    names = ("one.txt", "one.txt.data", "inner/deep/two.txt")
    assert contents(tmp_path) == dict.fromkeys(names, "new")
    assert sorted(os.listdir(tmp_path)) == ["inner", "one.txt", "one.txt.data"]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_while_files_move_undoes_all(tmp_path, monkeypatch, links, there, error):
    if there:
        write_all(tmp_path, "old")
    before = contents(tmp_path)
    replace = os.replace

    def no_link(*paths):
        raise OSError("no links here")

    def fail_at_the_last(source, target):
        if os.path.basename(target) == "two.txt" and os.path.basename(source) == "two.txt":
            raise error
        replace(source, target)

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "replace", fail_at_the_last)
    with pytest.raises(error):
        write_all(tmp_path, "new")
    assert contents(tmp_path) == before
    assert there or not os.listdir(tmp_path)
