"""Bundles to disk, whole or not at all."""

import hashlib
import json
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from veloxseg.atomic import atomic_path
from veloxseg.bundle.container import Folder, require_safe_name
from veloxseg.bundle.format import MANIFEST, Manifest, Precision, Verification, model_file
from veloxseg.bundle.reading import Bundle, open_bundle
from veloxseg.errors import BundleError

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same bundle is the same zip


def write_bundle(
    path: Path, files: Mapping[str, bytes], manifest: Manifest, *, overwrite: bool = False
) -> Bundle:
    """Write a bundle and verify it before it gets its name.

    A process killed meanwhile leaves at most a temporary whose name begins with a dot.

    Args:
        path: The folder to make, or the zip if it ends in ``.zip``.
        files: Path inside the bundle to content, ``pipeline.json`` among them.
        manifest: What to write beside them; its ``files`` are filled in here.
        overwrite: Replace a bundle that is there, at the very end.

    Returns:
        The bundle as it reads.

    Raises:
        BundleError: something is there already, or the files make no bundle.
        OSError: the disk is full or not to be written to; nothing is left, the old bundle stays.
    """
    return _write(path, files, manifest, overwrite=overwrite, unlisted={})


def add_model(
    path: Path, precision: Precision, model: bytes, *, verification: Verification
) -> Bundle:
    """Add the model of a precision to a bundle, or replace it; the bundle is rewritten whole.

    Args:
        path: The bundle's folder or zip.
        precision: Of the model.
        model: The ONNX file.
        verification: How it was compared with the trained network.

    Returns:
        The new bundle.

    Raises:
        BundleError: there is no sound bundle.
        OSError: the disk is full or not to be written to; the bundle stays as it was.
    """
    bundle = open_bundle(path)
    name = model_file(precision)
    files = {other: bundle.read(other) for other in bundle.manifest.files}
    verifications = {**bundle.manifest.verification, name: verification}
    return _write(
        path,
        {**files, name: model},
        bundle.manifest.model_copy(update={"verification": verifications}),
        overwrite=True,
        unlisted=_unlisted_files(path, {*files, name}),
    )


def _write(
    path: Path,
    files: Mapping[str, bytes],
    manifest: Manifest,
    *,
    overwrite: bool,
    unlisted: Mapping[str, Path],
) -> Bundle:
    for name in files:
        require_safe_name(path, name)
    if MANIFEST in files:
        raise BundleError(f"{path}: {MANIFEST} is written from the manifest. Leave it out.")
    _require_free(path, overwrite=overwrite)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    listing = manifest.model_copy(update={"files": hashes}).model_dump(mode="json")
    every = {MANIFEST: (json.dumps(listing, indent=2) + "\n").encode(), **files}
    if path.suffix == ".zip":
        with atomic_path(path) as temporary:
            _write_zip(temporary, every, top=path.stem)
            open_bundle(temporary)
    else:
        with atomic_folder(path) as temporary:
            for name, content in every.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_bytes(content)
            for name, source in unlisted.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, temporary / name, follow_symlinks=False)
            open_bundle(temporary)
    return open_bundle(path)


def _require_free(path: Path, *, overwrite: bool) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise BundleError(f"{path}: exists already. Choose another name, or say to overwrite it.")
    is_bundle = (path / MANIFEST).is_file() if path.is_dir() else zipfile.is_zipfile(path)
    if path.is_symlink() or not is_bundle or path.is_dir() == (path.suffix == ".zip"):
        raise BundleError(
            f"{path}: exists and is no bundle of that kind, so it is not overwritten. "
            "Choose another name."
        )


def _unlisted_files(path: Path, listed: set[str]) -> dict[str, Path]:
    """What a user has laid into a bundle's folder, such as notes."""
    if not path.is_dir():
        return {}
    return {name: path / name for name in Folder(path).names() - {*listed, MANIFEST}}


def _write_zip(path: Path, files: Mapping[str, bytes], *, top: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(f"{top}/{name}", _ZIP_TIME)
            info.external_attr = 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` and put it in its place when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    temporary = path.with_name(f".{mark}.partial.{path.name}")
    replaced = path.with_name(f".{mark}.replaced.{path.name}")
    temporary.mkdir()
    try:
        yield temporary
        if not path.exists():
            temporary.rename(path)
            return
        path.rename(replaced)  # no system exchanges two folders at once portably
        try:
            temporary.rename(path)
        except BaseException:
            replaced.rename(path)
            raise
        if replaced.is_symlink():
            replaced.unlink()
        else:
            shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
