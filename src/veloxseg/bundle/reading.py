"""A bundle from disk: every file verified, nothing unpacked, no pickle touched."""

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from veloxseg.bundle.container import Folder, Zip, is_pickle, open_container, require_safe_name
from veloxseg.bundle.format import (
    FORMAT_VERSION,
    MANIFEST,
    PIPELINE,
    Manifest,
    Pipeline,
    Precision,
    model_file,
)
from veloxseg.errors import BundleError

_LARGEST_JSON_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle whose files were all what its manifest says when it was opened.

    Attributes:
        path: Its folder or zip.
        manifest: Where it comes from.
        pipeline: How images become patches and logits a mask.
    """

    path: Path
    manifest: Manifest
    pipeline: Pipeline
    _container: Folder | Zip = field(repr=False)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that it has a model of, float32 first."""
        every: tuple[Precision, ...] = get_args(Precision)
        return tuple(one for one in every if model_file(one) in self.manifest.files)

    def read(self, name: str) -> bytes:
        """The content of a file, verified once more.

        Args:
            name: Its path inside the bundle, as the manifest has it.

        Raises:
            BundleError: the bundle has no such file, or it has changed since.
        """
        if name not in self.manifest.files:
            raise BundleError(
                f"{self.path}: no {name}. It holds {', '.join(sorted(self.manifest.files))}."
            )
        content = _read(self._container, name)
        found = hashlib.sha256(content).hexdigest()
        _require_hash(self.path, name, found=found, expected=self.manifest.files[name])
        return content

    def require_model(self) -> None:
        """Check that there is something to predict with.

        Raises:
            BundleError: the bundle has no model of any precision.
        """
        if not self.precisions:
            raise BundleError(
                f"{self.path}: no ONNX model. Expected {model_file('float32')}. Export the bundle "
                "again."
            )

    def read_model(self, precision: Precision = "float32") -> bytes:
        """The ONNX model of a precision.

        Raises:
            BundleError: the bundle has none, or it has changed since.
        """
        self._require_precision(precision)
        return self.read(model_file(precision))

    def model_hash(self, precision: Precision = "float32") -> str:
        """SHA-256 of the model of a precision, by which to keep what is derived from it.

        Raises:
            BundleError: the bundle has none.
        """
        self._require_precision(precision)
        return self.manifest.files[model_file(precision)]

    def _require_precision(self, precision: Precision) -> None:
        self.require_model()
        if precision not in self.precisions:
            raise BundleError(
                f"{self.path}: no {precision} model. It holds {', '.join(self.precisions)}. "
                f"Choose one of them, or export it: veloxseg export ... --precision {precision}"
            )


def open_bundle(path: Path) -> Bundle:
    """Open a bundle and verify every file that its manifest lists.

    Files that it does not list are left alone, but a pickle among them refuses the bundle.

    Args:
        path: Its folder, or a zip of the folder or of the files in it.

    Raises:
        BundleError: there is none, a file is missing, changed, a pickle or outside of it, its JSON
            is not what this version knows, or it was made by a newer version.
    """
    container = open_container(path)
    manifest = _parse_manifest(path, _read_json(container, MANIFEST))
    names = container.names()
    for name in manifest.files:
        require_safe_name(path, name)
    if missing := sorted(set(manifest.files) - names):
        raise BundleError(
            f"{path}: {', '.join(missing)} missing. Expected every file that {MANIFEST} lists. "
            "Copy the bundle again, whole."
        )
    if PIPELINE not in manifest.files:
        raise BundleError(f"{path}: {MANIFEST} lists no {PIPELINE}. Export the bundle again.")
    _refuse_pickles(container, manifest, names)
    for name, expected in manifest.files.items():
        _require_hash(path, name, found=_hash(container, name), expected=expected)
    pipeline = _validate(Pipeline, f"{path}: {PIPELINE}", _read_json(container, PIPELINE))
    return Bundle(path=path, manifest=manifest, pipeline=pipeline, _container=container)


def _parse_manifest(path: Path, content: Any) -> Manifest:
    found = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise BundleError(
            f"{path}: a bundle of format {found}. This version reads {FORMAT_VERSION} and older. "
            "Upgrade: pip install --upgrade veloxseg"
        )
    manifest = _validate(Manifest, f"{path}: {MANIFEST}", content)
    if manifest.format_version < 1:
        raise BundleError(
            f"{path}: a bundle of format {found}. Expected 1 to {FORMAT_VERSION}. "
            "Export the bundle again."
        )
    return manifest


def _refuse_pickles(container: Folder | Zip, manifest: Manifest, names: set[str]) -> None:
    for name in sorted(names):
        is_listed = name in manifest.files
        if not is_listed and isinstance(container, Folder) and container.leaves(name):
            suspicious = is_pickle(name, io.BytesIO())  # not opened: it is none of the bundle's
        else:
            with container.open(name) as file:
                suspicious = is_pickle(name, file)
        if suspicious:
            raise BundleError(
                f"{container.path}: {name} is a pickle, which could run code and is never loaded. "
                "Expected safetensors and ONNX. Remove it, or export the bundle again."
            )


def _hash(container: Folder | Zip, name: str) -> str:
    digest = hashlib.sha256()
    with container.open(name) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _require_hash(path: Path, name: str, *, found: str, expected: str) -> None:
    if found != expected:
        raise BundleError(
            f"{path}: {name} has SHA-256 {found}, {MANIFEST} says {expected}: it was changed or "
            "damaged. Copy the bundle again, or export it again."
        )


def _read(container: Folder | Zip, name: str) -> bytes:
    with container.open(name) as file:  # in pieces: a zip may lie about sizes
        return b"".join(iter(lambda: file.read(_CHUNK_BYTES), b""))


def _read_json(container: Folder | Zip, name: str) -> Any:
    with container.open(name) as file:
        content = file.read(_LARGEST_JSON_BYTES)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{container.path}: {name} is cut short or no JSON ({error}). Copy the bundle again."
        ) from error


def _validate(kind: type[_Model], where: str, content: Any) -> _Model:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'content'}: {one['msg']}" for one in error.errors()
        )
        raise BundleError(
            f"{where} is not what this version knows ({found}). Export the bundle again, or "
            "upgrade: pip install --upgrade veloxseg"
        ) from error
