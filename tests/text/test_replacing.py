"""Files are moved to their places together, or nothing is changed."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from tensorflow_quantization.text.replacing import check_writable, replacing_all


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


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appeared_in_the_meantime_is_not_replaced(tmp_path, monkeypatch, links):
    def no_link(*paths):
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    paths = [tmp_path / "new" / "one.txt", tmp_path / "two.txt"]
    text = r"two\.txt exists: it was written in the meantime, and is not replaced\. No file was written or changed\."
    with pytest.raises(FileExistsError, match=text), replacing_all(paths, replace=False) as written:
        for path in written:
            path.write_text("ours")
        paths[1].write_text("precious")
    assert contents(tmp_path) == {"two.txt": "precious"} and os.listdir(tmp_path) == ["two.txt"]
    paths[1].unlink()
    with replacing_all(paths, replace=False) as written:
        for path in written:
            path.write_text("ours")
    assert contents(tmp_path) == {"new/one.txt": "ours", "two.txt": "ours"}
    assert sorted(os.listdir(tmp_path)) == ["new", "two.txt"]


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    for name in ("there", "dangling"):
        (tmp_path / "store").mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").symlink_to(Path("store", name))
    (tmp_path / "store" / "there").write_text("old")
    paths = [tmp_path / f"{name}.txt" for name in ("there", "dangling")]
    with replacing_all(paths) as written:
        assert [path.name for path in written] == ["there.txt", "dangling.txt"]  # writers look at the ending
        for path in written:
            path.write_text("new")
    assert all(path.is_symlink() and path.read_text() == "new" for path in paths)
    assert sorted(os.listdir(tmp_path)) == ["dangling.txt", "store", "there.txt"]
    assert sorted(os.listdir(tmp_path / "store")) == ["dangling", "there"]


def test_a_link_into_a_folder_that_is_missing_is_refused(tmp_path):
    (tmp_path / "model.onnx").symlink_to(tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(FileNotFoundError, match=r"The directory .*nowhere does not exist; create it first\."):
        check_writable(tmp_path / "model.onnx", "model.onnx")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch, number):
    write_all(tmp_path, "old")
    before = contents(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    paths = [tmp_path / "one.txt", tmp_path / "inner" / "other.txt"]
    text = rf"^{paths[1]} cannot be written: the disk is full, {tmp_path}/inner has room for 3 MB\. No file was written"
    with pytest.raises(OSError, match=text) as raised, replacing_all(paths) as written:
        for path in written:
            path.write_bytes(bytes(1_000_000))
        raise OSError(number, "No space left on device")
    assert raised.value.errno == errno.ENOSPC
    assert contents(tmp_path) == before
