"""Finding the files of every case by a pattern such as ``{case}/CT_*.nii.gz``."""

import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from veloxseg.errors import DatasetError

_CASE = "{case}"


def match_files(source: Path, pattern: str) -> dict[str, list[Path]]:
    """Find the files below ``source`` that match a pattern, by case.

    Args:
        source: Folder that the pattern is relative to.
        pattern: ``{case}`` stands for the case's name or a part of a file's or folder's name, the
            same wherever it occurs, as short as possible; ``*`` for any characters but ``/``.
            Hidden files are passed over.

    Returns:
        Case name -> its files, both in order of their names.

    Raises:
        DatasetError: the pattern has no ``{case}`` or leaves ``source``.
    """
    pattern = _checked(pattern)
    expression = _expression(pattern)
    by_case: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(source.glob(_glob(pattern))):
        relative = path.relative_to(source)
        hidden = any(part.startswith(".") for part in relative.parts)
        match = expression.fullmatch(relative.as_posix())
        if match is not None and not hidden and path.is_file():
            by_case[match["case"]].append(path)
    return dict(sorted(by_case.items()))


def _checked(pattern: str) -> str:
    normal = PurePosixPath(pattern)
    if _CASE not in pattern or "**" in pattern or normal.is_absolute() or ".." in normal.parts:
        raise DatasetError(
            f"The pattern '{pattern}' cannot be used. Expected a path below the source folder with "
            "{case} for the case's name and perhaps * for what varies, such as "
            "'{case}/CT_image.nii.gz' or 'images/{case}_CT*.nii.gz'."
        )
    return normal.as_posix()


def _glob(pattern: str) -> str:
    # pathlib would take [ and ? for wildcards of its own.
    literal = re.sub(r"[\[?]", lambda match: f"[{match[0]}]", pattern)
    return re.sub(r"\*+", "*", literal.replace(_CASE, "*"))


def _expression(pattern: str) -> re.Pattern[str]:
    before, *after = (re.escape(text).replace(r"\*", "[^/]*") for text in pattern.split(_CASE))
    return re.compile(f"{before}(?P<case>[^/]+?)" + "(?P=case)".join(after))
