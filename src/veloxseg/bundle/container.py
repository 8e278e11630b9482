"""The files of a bundle, in a folder or in a zip of it, read where they lie and never unpacked."""

import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from veloxseg.bundle.format import MANIFEST
from veloxseg.errors import BundleError

LARGEST_ZIP_BYTES = 4 << 30
"""What a zip may unpack to; a bundle is some MB."""

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_PICKLE_ENDINGS = (".pkl", ".pickle", ".pth", ".pt", ".ckpt", ".joblib")
_PICKLE_PROTOCOLS = (2, 3, 4, 5)
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError)


@dataclass(frozen=True)
class Folder:
    """A bundle's folder."""

    path: Path

    def names(self) -> set[str]:
        """Paths of all files below the folder; links to folders are not followed."""
        return {
            file.relative_to(self.path).as_posix()
            for file in self.path.rglob("*")
            if file.is_file() or file.is_symlink()
        }

    def leaves(self, name: str) -> bool:
        """Whether a file lies outside the folder, by way of a link."""
        return not (self.path / name).resolve().is_relative_to(self.path.resolve())

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading; BundleError if it is a link that leaves the folder."""
        if self.leaves(name):
            raise BundleError(
                f"{self.path}: {name} is a link to {(self.path / name).resolve()}, outside the "
                "bundle. Expected a file. Copy the bundle again with its files, not links."
            )
        with (self.path / name).open("rb") as file:
            yield file


@dataclass(frozen=True)
class Zip:
    """A zip of a bundle's files, or of its folder.

    Attributes:
        path: The zip.
        prefix: The one top folder with its ``/``, or empty.
    """

    path: Path
    prefix: str

    def names(self) -> set[str]:
        """Paths of all files below the prefix; what lies beside is none of the bundle's."""
        with _opened_zip(self.path) as archive:
            return {
                info.filename.removeprefix(self.prefix)
                for info in archive.infolist()
                if not info.is_dir() and info.filename.startswith(self.prefix)
            }

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading; BundleError if the zip is damaged there."""
        with _opened_zip(self.path) as archive, archive.open(self.prefix + name) as file:
            yield file


def open_container(path: Path) -> Folder | Zip:
    """Find where a bundle's files lie.

    Raises:
        BundleError: there is no bundle, or a zip that is damaged, unsafe or too large.
    """
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise BundleError(
                f"{path}: no {MANIFEST}. Expected a bundle, as veloxseg export makes it. "
                "Check the path."
            )
        return Folder(path)
    if not path.is_file():
        raise BundleError(f"{path}: found nothing. Expected a bundle's folder or zip.")
    with _opened_zip(path) as archive:
        infos = archive.infolist()
    _check_zip(path, infos)
    return Zip(path, _top_folder(path, [info.filename for info in infos]))


def require_safe_name(where: Path, name: str) -> None:
    """Make sure that a path means one file inside the bundle, on every system.

    Raises:
        BundleError: it does not.
    """
    parts = PurePosixPath(name).parts
    if (
        not parts
        or name != "/".join(parts)
        or {".", ".."} & set(parts)
        or name.startswith("/")
        or any(sign in name for sign in '\\:*?"<>|')
        or not name.isprintable()
    ):
        raise BundleError(
            f"{where}: the path {name!r} could leave the bundle. Expected a plain relative path, "
            "folders separated by '/'. Do not use this bundle; get it again from its author."
        )


def is_pickle(name: str, file: IO[bytes]) -> bool:
    """Whether a file is a pickle or a PyTorch checkpoint, by its ending or its content.

    Args:
        name: Its path.
        file: Its content, which can be searched; the position afterwards is anywhere.
    """
    if name.lower().endswith(_PICKLE_ENDINGS):
        return True
    start = file.read(4)
    if start[:1] == b"\x80" and len(start) > 2:
        # The third byte tells a safetensors header of 640 bytes, 80 02 00 00, from an opcode.
        return start[1] in _PICKLE_PROTOCOLS and start[2] != 0
    if start == b"PK\x03\x04":
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as inner:
                return any(part.endswith(".pkl") for part in inner.namelist())
        except _DAMAGED:
            return False
    return False


@contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _DAMAGED as error:
        raise BundleError(
            f"{path}: cut short, damaged or no zip ({error}). Expected a bundle's folder or zip. "
            "Copy it again."
        ) from error


def _check_zip(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    for info in infos:
        require_safe_name(path, info.filename.removesuffix("/"))
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BundleError(
                f"{path}: {info.filename} is a link. Expected files. Pack the bundle again."
            )
        if info.flag_bits & 1:
            raise BundleError(
                f"{path}: {info.filename} is encrypted. Expected a zip without a password."
            )
        if info.compress_type not in _COMPRESSIONS:  # some Pythons cannot unpack others
            raise BundleError(
                f"{path}: {info.filename} is packed by method {info.compress_type}. Expected "
                "Deflate, as usual zips have it. Pack the bundle again."
            )
    counts = Counter(info.filename for info in infos)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise BundleError(
            f"{path}: holds {repeated[0]} twice. Expected each file once. Pack the bundle again."
        )
    size = sum(info.file_size for info in infos)
    if size > LARGEST_ZIP_BYTES:
        raise BundleError(
            f"{path}: unpacks to {size / 2**30:.1f} GiB. Expected {LARGEST_ZIP_BYTES >> 30} GiB or "
            "less, a bundle being some MB. Do not use it."
        )


def _top_folder(path: Path, names: list[str]) -> str:
    if MANIFEST in names:
        return ""
    found = [
        name.removesuffix(MANIFEST)
        for name in names
        if name.count("/") == 1 and name.endswith(f"/{MANIFEST}")
    ]
    if len(found) != 1:
        raise BundleError(
            f"{path}: {len(found) or 'no'} {MANIFEST} at its top or in a folder there. Expected "
            "one. Zip the bundle's folder, and nothing beside it."
        )
    return found[0]
