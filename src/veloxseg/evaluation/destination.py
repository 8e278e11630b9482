"""Where results are to be written, looked at before the work begins."""

from pathlib import Path

from veloxseg.errors import VeloxSegError


def require_file(path: Path, *, like: str) -> None:
    """Make sure that a file can take a path: no folder has it.

    Args:
        path: To be written.
        like: A name for the file, for the message.

    Raises:
        VeloxSegError: it is a folder.
    """
    if path.is_dir():
        raise VeloxSegError(
            f"{path}: is a folder. Expected the file to write, such as {path / like}."
        )
