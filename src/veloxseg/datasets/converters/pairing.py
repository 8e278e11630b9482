"""Pairing the files of every case by their patterns: each part of a case has its one file."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from veloxseg.datasets.converters.patterns import match_files
from veloxseg.datasets.problems import Problem, raise_problems
from veloxseg.errors import DatasetError


def pair_by_pattern(
    source: Path,
    patterns: Mapping[str, str],
    *,
    optional: Collection[str] = (),
    cases: str = ".+",
) -> dict[str, dict[str, Path]]:
    """Find the files of every case below a folder.

    Args:
        source: The folder.
        patterns: Name of a channel, or ``label``, to the pattern of its files (see
            :func:`veloxseg.datasets.converters.patterns.match_files`).
        optional: Names of those whose file a case may lack.
        cases: Regular expression that the names of cases match as a whole; others are passed over.

    Returns:
        Case name, in order, to the file of each part that the case has.

    Raises:
        DatasetError: there is no such folder, a pattern matches nothing, or a case has not one file
            for each part; all such cases are reported at once.
    """
    require_folder(source)
    found = {
        part: {
            case: paths
            for case, paths in match_files(source, pattern).items()
            if re.fullmatch(cases, case)
        }
        for part, pattern in patterns.items()
    }
    for part, by_case in found.items():
        if not by_case:
            raise DatasetError(
                f"{source}: no file for {part}, whose pattern is '{patterns[part]}'. "
                f"Found there: {some_entries(source)}. Correct the pattern."
            )
    names = sorted({case for by_case in found.values() for case in by_case})
    problems = []
    for case in names:
        for part, by_case in found.items():
            paths = by_case.get(case, [])
            if len(paths) > 1 or (not paths and part not in optional):
                names_found = ", ".join(str(path.relative_to(source)) for path in paths)
                problems.append(
                    f"Case {case}: {len(paths)} files for {part} match '{patterns[part]}'"
                    f"{': ' if paths else ''}{names_found}. Expected one. "
                    "Correct the pattern, or add or remove files."
                )
    raise_all(source, problems)
    return {
        case: {part: by_case[case][0] for part, by_case in found.items() if case in by_case}
        for case in names
    }


def raise_all(source: Path, messages: Collection[str]) -> None:
    """Raise one error that lists what is wrong below a folder; nothing, no error.

    Raises:
        DatasetError: there is a message.
    """
    raise_problems(
        str(source),
        [Problem(case=None, severity="error", message=message) for message in messages],
    )


def require_folder(source: Path) -> None:
    """Make sure that there is a source.

    Raises:
        DatasetError: the path is no folder.
    """
    if not source.is_dir():
        raise DatasetError(f"{source}: no such folder. Expected the images. Check the path.")


def some_entries(folder: Path) -> str:
    """The first names in a folder, for errors that show what is there."""
    return ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
