"""Models that are known by a name: those in the package and those that the user has added."""

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path

from veloxseg.bundle.format import MANIFEST
from veloxseg.errors import BundleError

ENDING = ".veloxseg"
"""Of a model's folder; before it stands the model's name."""

ZIP_ENDING = ".zip"
"""Of a model that is one file."""

_SEPARATORS = {"/", os.sep}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A bundle that has a name on this machine.

    Attributes:
        name: What ``-m`` takes.
        path: Its folder or zip.
        origin: ``shipped`` inside the package, or ``installed`` by the user.
    """

    name: str
    path: Path
    origin: Literal["shipped", "installed"]


def shipped_folder() -> Path:
    """Where the package keeps its own models."""
    return Path(__file__).resolve().parents[1] / "shipped"


def installed_folder() -> Path:
    """Where the user's models are kept; ``VELOXSEG_MODELS`` names another folder."""
    chosen = os.environ.get("VELOXSEG_MODELS")
    return Path(chosen) if chosen else user_data_path("veloxseg", appauthor=False) / "models"


def known_models() -> dict[str, KnownModel]:
    """All models by name, in its order; an installed one stands before a shipped one."""
    models: dict[str, KnownModel] = {}
    folders: dict[Literal["shipped", "installed"], Path] = {
        "shipped": shipped_folder(),
        "installed": installed_folder(),
    }
    for origin, folder in folders.items():
        for name, path in _bundles(folder).items():
            models[name] = KnownModel(name=name, path=path, origin=origin)
    return dict(sorted(models.items()))


def find_model(name: str) -> KnownModel:
    """The model of that name.

    Raises:
        BundleError: there is none; the nearest name and all known ones are told.
    """
    models = known_models()
    if name not in models:
        raise BundleError(f"{name}: no model of that name. {_known(name, list(models))}")
    return models[name]


def resolve_model(model: Path | str) -> Path:
    """The bundle that a user means by a path or by a model's name.

    Args:
        model: A path, which wins where something lies there, or a name of :func:`known_models`.
            Words with a separator, as ``./NAME``, are no name.

    Returns:
        The bundle's path; one with folders in it is returned as it is, whether it exists or not.

    Raises:
        BundleError: it is one word, nothing lies there, and no model has that name.
    """
    path = Path(model)
    is_word = not any(separator in str(model) for separator in _SEPARATORS)
    if path.exists() or path.is_symlink() or not is_word:
        return path
    models = known_models()
    if path.name in models:
        return models[path.name].path
    raise BundleError(
        f"{model}: no bundle lies there, and no model has that name. "
        f"{_known(path.name, list(models))}"
    )


def is_name(text: str) -> bool:
    """Whether a model may be called so: letters, digits, ``-`` and ``_``, 64 at most."""
    return _NAME.fullmatch(text) is not None


def _bundles(folder: Path) -> dict[str, Path]:
    """Bundles in a folder by name; a folder comes before a zip of the same name."""
    try:
        zips = [path for path in folder.glob(f"*{ZIP_ENDING}") if path.is_file()]
        folders = [path for path in folder.glob(f"*{ENDING}") if _has_manifest(path)]
    except PermissionError:  # a service may run without a home of its own
        return {}
    return {path.stem: path for path in (*zips, *folders) if is_name(path.stem)}


def _has_manifest(path: Path) -> bool:
    try:
        return (path / MANIFEST).is_file()
    except PermissionError:  # another user's: it is not to hide those beside it
        return False


def _known(name: str, names: list[str]) -> str:
    add = "Add one: veloxseg models add FILE_OR_URL"
    if not names:
        return f"None is known here. {add}"
    nearest = get_close_matches(name.lower().removesuffix(ENDING), names, n=1)
    guess = f"Did you mean {nearest[0]}? " if nearest else ""
    return f"{guess}Known: {', '.join(names)}. {add}"
