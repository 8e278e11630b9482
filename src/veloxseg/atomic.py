"""Files that are whole: written so, and said not to be when they are not."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from veloxseg.errors import VeloxSegError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` and move it into place when the block succeeds.

    The temporary name ends as ``path`` does (libraries choose the format by it), begins with a dot
    and is removed when the block fails, so a full disk leaves either the old file or none.

    Args:
        path: Where the finished file belongs; its folder is created.

    Yields:
        The temporary path to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(4)}.partial.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON that another stage, or nnU-Net, has written.

    Raises:
        VeloxSegError: the file is cut short or no JSON.
        FileNotFoundError: there is none.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise VeloxSegError(
            f"{path}: cut short or no JSON ({error}). Remove it and run the stage that makes it."
        ) from error
