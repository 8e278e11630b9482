"""Finding the files of every case by a pattern such as ``{case}/CT_*.nii.gz``."""

import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from veloxseg.errors import DatasetError

_CASE = "{case}"
_PATIENT = "{patient}"
_PLACEHOLDER = re.compile(r"\{case\}|\{patient\}")


def match_files(source: Path, pattern: str) -> dict[str, list[Path]]:
    """Find the files below ``source`` that match a pattern, by case.

    Args:
        source: Folder that the pattern is relative to.
        pattern: ``{case}`` stands for the case's name or a part of a file's or folder's name, the
            same wherever it occurs, as short as possible; ``*`` for any characters but ``/``.
            ``{patient}`` is like ``{case}``, for whom several cases may be taken of; a case is then
            named ``PATIENT_CASE``. Hidden files are passed over.

    Returns:
        Case name -> its files, both in order of their names.

    Raises:
        DatasetError: the pattern has no ``{case}`` or leaves ``source``, or a name holds characters
            that cannot be read.
    """
    pattern = _checked(pattern)
    expression = _expression(pattern)
    by_case: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(source.glob(_glob(pattern))):
        relative = path.relative_to(source)
        hidden = any(part.startswith(".") for part in relative.parts)
        match = expression.fullmatch(relative.as_posix())
        if match is not None and not hidden and path.is_file():
            by_case[_case_name(path, match)].append(path)
    return dict(sorted(by_case.items()))


def patient_of(source: Path, path: Path, pattern: str) -> str | None:
    """The patient in the name of a file that :func:`match_files` has found by the pattern.

    Returns:
        What ``{patient}`` stands for; None where the pattern has no such part.
    """
    match = _expression(_checked(pattern)).fullmatch(path.relative_to(source).as_posix())
    return None if match is None else match.groupdict().get("patient")


def _case_name(path: Path, match: re.Match[str]) -> str:
    found = match.groupdict()
    name = "_".join(found[key] for key in ("patient", "case") if key in found)
    if not name.isprintable():
        raise DatasetError(
            f"{str(path)!a}: the case's name {name!a} cannot be read. Expected printable "
            "characters, in UTF-8. Rename the file or folder."
        )
    return name


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
    return re.sub(r"\*+", "*", _PLACEHOLDER.sub("*", literal))


def _expression(pattern: str) -> re.Pattern[str]:
    parts: list[str] = []
    seen: set[str] = set()
    for text in re.split(r"(\{case\}|\{patient\})", pattern):
        if text in (_CASE, _PATIENT):
            name = text[1:-1]
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)")
            seen.add(name)
        else:
            parts.append(re.escape(text).replace(r"\*", "[^/]*"))
    return re.compile("".join(parts))
