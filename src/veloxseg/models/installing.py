"""Adding models to those that are known by name, and removing them."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from veloxseg.bundle.container import open_container
from veloxseg.bundle.format import MANIFEST
from veloxseg.bundle.reading import Bundle, open_bundle
from veloxseg.bundle.writing import atomic_folder
from veloxseg.errors import BundleError
from veloxseg.models.downloading import download, is_url
from veloxseg.models.finding import (
    ENDING,
    ZIP_ENDING,
    KnownModel,
    find_model,
    installed_folder,
    is_name,
    known_models,
)

_SHA256 = re.compile(r"[0-9a-f]{64}")


def install_model(
    source: Path | str,
    *,
    name: str | None = None,
    sha256: str | None = None,
    replace: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> KnownModel:
    """Keep a bundle in the user's folder, to be used by name.

    Every file is verified before the model gets its name; files that the bundle's manifest does
    not list are left behind. The same bundle again changes nothing.

    Args:
        source: A bundle's folder or zip, or the ``http(s)://`` address of a zip.
        name: Of the model here; None takes the source's file name without its ending.
        sha256: What the zip must hash to; of a folder, its ``manifest.json``.
        replace: Let it stand in place of another model of that name.
        progress: Of a download: told (bytes done, bytes in all).

    Raises:
        BundleError: it is no sound bundle or one without a model, cannot be downloaded, has another
            hash or no legal name, another model has that name, or the user's folder is not to be
            written to. What was installed before stays as it was.
        OSError: the disk is full.
    """
    text = str(source)
    name = _checked_name(text, name)
    expected = None if sha256 is None else _checked_hash(sha256)
    if not is_url(text):
        if "://" in text and not Path(source).exists():
            raise BundleError(f"{text}: expected a file, a folder, or http:// or https://.")
        return _install(Path(source), name, expected, replace=replace)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=_writable_folder()) as place:
        file = download(text, Path(place) / "bundle.zip", progress=progress)
        try:
            return _install(file, name, expected, replace=replace)
        except BundleError as error:  # the user knows the address, not where its file lay
            raise BundleError(str(error).replace(str(file), text)) from error


def remove_model(name: str) -> Path:
    """Delete an installed model.

    Returns:
        The folder or zip that is gone.

    Raises:
        BundleError: there is no such model, or it belongs to the package.
        OSError: it cannot be deleted.
    """
    model = find_model(name)
    if model.origin == "shipped":
        raise BundleError(
            f"{name}: comes with veloxseg, which keeps it. Only models that were added can be "
            "removed."
        )
    _remove(model.path)
    return model.path


def bundle_hash(path: Path) -> str:
    """SHA-256 of a bundle's ``manifest.json``, which holds those of all its other files.

    Raises:
        BundleError: there is no bundle.
    """
    return hashlib.sha256(_read_manifest(path)).hexdigest()


def _install(path: Path, name: str, sha256: str | None, *, replace: bool) -> KnownModel:
    if sha256 is not None:
        _require_hash(path, sha256)
    bundle = open_bundle(path)
    bundle.require_model()
    model = KnownModel(name=name, path=installed_folder() / f"{name}{ENDING}", origin="installed")
    known = known_models().get(name)
    is_same = known is not None and _manifest_hash(known.path) == bundle_hash(path)
    if known is not None and is_same and _is_sound(known.path):
        return known
    if known is not None and not is_same and not replace:
        raise _taken(path, known)
    if known is None and model.path.exists():
        raise BundleError(
            f"{model.path}: exists and is no bundle. Remove it, or choose another name: --name."
        )
    _writable_folder()
    before = None if known is None else _manifest_hash(known.path)
    with atomic_folder(model.path) as temporary:
        _copy(bundle, temporary)
        now = known_models().get(name)  # another process may have been faster
        mine = (before, bundle_hash(path))
        if now is not None and not replace and _manifest_hash(now.path) not in mine:
            raise _taken(path, now)
    if known is not None and known.origin == "installed" and known.path != model.path:
        _remove(known.path)  # a zip: it would be back when this one is removed
    return model


def _taken(path: Path, known: KnownModel) -> BundleError:
    return BundleError(
        f"{path}: another model is called {known.name} ({known.origin}, {known.path}). Choose "
        "another name with --name, or let this one stand in its place with --replace."
    )


def _writable_folder() -> Path:
    folder = installed_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "not to be written to"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise BundleError(
            f"{folder}: {reason}. Expected a folder to keep models in. Make it one that you may "
            "write to, or let the environment variable VELOXSEG_MODELS name another."
        )
    return folder


def _remove(path: Path) -> None:
    if path.is_file() or path.is_symlink():  # of a link the link, not what it leads to
        path.unlink()
        return
    doomed = path.with_name(f".removed.{path.name}")  # gone at once, or not at all
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _manifest_hash(path: Path) -> str | None:
    """None of what can no longer be read, which another may replace."""
    try:
        return bundle_hash(path)
    except (BundleError, OSError):
        return None


def _is_sound(path: Path) -> bool:
    try:
        open_bundle(path)
    except (BundleError, OSError):
        return False
    return True


def _copy(bundle: Bundle, folder: Path) -> None:
    (folder / MANIFEST).write_bytes(_read_manifest(bundle.path))
    for file in bundle.manifest.files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(bundle.read(file))
    open_bundle(folder)


def _read_manifest(path: Path) -> bytes:
    with open_container(path).open(MANIFEST) as file:
        return file.read()


def _checked_name(source: str, name: str | None) -> str:
    if name is not None:
        if not is_name(name):
            raise BundleError(
                f"--name {name}: expected letters, digits, - and _, a letter or digit first, 64 at "
                "most."
            )
        return name
    try:
        last = unquote(urlsplit(source).path) if is_url(source) else _own_name(Path(source))
    except ValueError as error:
        raise BundleError(f"{source}: no web address ({error}). Check the address.") from error
    found = Path(last).name.removesuffix(ZIP_ENDING).removesuffix(ENDING)
    if not is_name(found):
        raise BundleError(
            f"{source}: gives no name to call the model by ({found!r}). Expected letters, digits, "
            "- and _, 64 at most. Give one: --name NAME."
        )
    return found


def _own_name(path: Path) -> str:
    """A path's last name, as a link has it too; of ``.`` and ``..`` what they lead to."""
    return path.name if path.name.strip(".") else path.resolve().name


def _checked_hash(text: str) -> str:
    if not _SHA256.fullmatch(text.lower()):
        raise BundleError(f"--sha256 {text}: expected 64 hexadecimal digits.")
    return text.lower()


def _require_hash(path: Path, expected: str) -> None:
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        found, what = digest.hexdigest(), str(path)
    else:
        found, what = bundle_hash(path), f"{path}: {MANIFEST}"
    if found != expected:
        raise BundleError(
            f"{what} has SHA-256 {found}, --sha256 says {expected}: it is another file, or "
            "damaged. Do not use it; get it again from its author."
        )
