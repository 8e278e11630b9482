"""Where results are to be written, looked at before the work begins."""

import os
from pathlib import Path

from veloxseg.errors import VeloxSegError


def require_file(path: Path, *, like: str) -> None:
    """Make sure that a file can take a path: no folder has it, and its own can be written to.

    Args:
        path: To be written.
        like: A name for the file, for the message.

    Raises:
        VeloxSegError: it is a folder, or lies where nothing can be written.
    """
    if path.is_dir():
        raise VeloxSegError(
            f"{path}: is a folder. Expected the file to write, such as {path / like}."
        )
    folder = next(one for one in path.absolute().parents if one.exists())
    if not folder.is_dir():
        raise VeloxSegError(f"{path}: {folder} is a file. Expected a folder to write into.")
    if not os.access(folder, os.W_OK):
        raise VeloxSegError(
            f"{path}: nothing can be written to {folder}. Expected a folder of yours, such as the "
            f"working folder: {like}"
        )
