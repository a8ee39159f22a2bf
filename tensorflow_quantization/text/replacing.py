"""`replacing`: files are written beside and renamed, so that there is never half a file; `check_writable` before."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

#: No space, or none left for this user.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class FullDiskError(OSError):
    """A file is not written, because the disk is full; `errno` is ENOSPC."""

    errno = errno.ENOSPC


def check_writable(path: Path, example: str) -> None:
    """Raises an error if no file can be written at `path`.

    Args:
        path: the file to write.
        example: a file name for the message, if `path` is a directory.

    Raises:
        IsADirectoryError, FileNotFoundError, PermissionError: no file can be written there.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the name of a file in it, {path / example}.")
    folder = (_without_links(path) if path.is_symlink() else path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"The directory {folder} does not exist; create it first.")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise PermissionError(f"{path} cannot be written: no permission.")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path in a temporary directory next to `path`; at the end its files move next to `path`.

    After an error or an interrupt, an existing file is unchanged, and the temporary directory is removed.
    """
    with replacing_all([path]) as (temporary,):
        yield temporary


@contextlib.contextmanager
def replacing_all(paths: Sequence[Path], replace: bool = True) -> Iterator[list[Path]]:
    """Yields a path in a temporary directory near each of `paths`; at the end the files of all move to their places.

    Directories that are missing are made then. A symbolic link stays, and the file that it points to is replaced. After
    an error or an interrupt, also while files move, all existing files are unchanged, and nothing new is left.

    Args:
        paths: of the files.
        replace: whether files that exist at the end are replaced.

    Raises:
        FullDiskError: the disk is full; the message names the file, and how much room there is.
        FileExistsError: without `replace`, a file exists.
    """
    places = [_without_links(path) for path in paths]
    with contextlib.ExitStack() as stack:
        written = []
        for path, place in zip(paths, places, strict=True):
            # On the same file system, where a move is a renaming.
            near = next(folder for folder in place.parents if folder.is_dir())
            directory = stack.enter_context(tempfile.TemporaryDirectory(dir=near, prefix=f".{path.name}."))
            written.append(Path(directory) / path.name)
        with _full_disk_named(dict(zip(written, paths, strict=True))):
            yield written
        moves = []
        for temporary, place in zip(written, places, strict=True):
            # The file of weights first: the model file must not exist without it.
            files = sorted(temporary.parent.iterdir(), key=lambda file: file == temporary)
            moves += [(file, place if file == temporary else place.parent / file.name) for file in files]
        with _undone_on_failure() as undo:
            for file, place in moves:
                for folder in reversed([folder for folder in place.parents if not folder.exists()]):
                    undo.callback(_remove_folder, folder)
                    folder.mkdir(exist_ok=True)
                (_move if replace else _add)(file, place, undo)


def _without_links(path: Path) -> Path:
    """Returns the absolute path of the file that a path leads to, which may be missing."""
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def _full_disk_named(paths: Mapping[Path, Path]) -> Iterator[None]:
    """A context that says which file a disk is too full for; given the path of the user for each temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        begun = [file for file in paths if any(file.parent.iterdir())]
        last = max(begun, key=lambda file: file.parent.stat().st_mtime_ns, default=next(iter(paths)))
        # What is written already, on this disk, is removed.
        folders = {f.parent for f in paths if f.parent.stat().st_dev == last.parent.stat().st_dev}
        used = sum(file.stat().st_size for folder in folders for file in folder.rglob("*"))
        room = (used + shutil.disk_usage(last.parent).free) / 1e6
        raise FullDiskError(
            f"{paths[last]} cannot be written: the disk is full, {last.parent.parent} has room for {room:.3g} MB. No "
            "file was written or changed."
        ) from error


@contextlib.contextmanager
def _undone_on_failure() -> Iterator[contextlib.ExitStack]:
    """Yields a stack of what to do, the last first, only if the context ends with an error or an interrupt."""
    with contextlib.ExitStack() as undo:
        yield undo
        undo.pop_all()


def _move(file: Path, place: Path, undo: contextlib.ExitStack) -> None:
    before = file.with_name(f"{file.name}.before") if place.exists() else None
    undo.callback(_put_back, before, place)
    if before is not None:
        try:
            os.link(place, before)  # so that there is a file at `place` at any time
        except OSError:  # a file system without links
            os.replace(place, before)
    os.replace(file, place)


def _add(file: Path, place: Path, undo: contextlib.ExitStack) -> None:
    """Moves a file to a place where none is, also if another program writes there at the same time."""
    undo.callback(_remove_added, file, place)
    try:
        try:
            os.link(file, place)  # the file in the temporary directory is removed with it
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            os.close(os.open(place, os.O_CREAT | os.O_EXCL))
            undo.callback(place.unlink, missing_ok=True)
            os.replace(file, place)
    except FileExistsError as error:
        raise FileExistsError(
            f"{place} exists: it was written in the meantime, and is not replaced. No file was written or changed."
        ) from error


def _remove_added(file: Path, place: Path) -> None:
    if file.exists() and place.exists() and place.samefile(file):  # else another program wrote it
        place.unlink()


def _put_back(before: Path | None, place: Path) -> None:
    if before is None:
        place.unlink(missing_ok=True)
    elif before.exists():  # else nothing was changed yet
        os.replace(before, place)


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process may have written into it
        folder.rmdir()
