"""The ways in which the files of a release are named, and which of them a folder has."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from veloxseg.datasets.cases import Part
from veloxseg.datasets.converters.case_writing import LABEL
from veloxseg.datasets.converters.pairing import (
    pair_by_pattern,
    raise_all,
    require_folder,
    some_entries,
)
from veloxseg.datasets.converters.patterns import match_files, patient_of
from veloxseg.errors import DatasetError

_PART = "{part}"
_PARTS: tuple[Part, Part] = ("Tr", "Ts")
_IMAGE_ENDINGS = (".nii", ".nii.gz")


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How a release names its files: data, so that a further one is a further row of a table.

    Attributes:
        name: What it is called.
        channels: Name of each channel, in order, to the pattern of its files (see
            :func:`veloxseg.datasets.converters.patterns.match_files`). ``{part}`` stands for ``Tr``
            (training) and ``Ts`` (test).
        label: Pattern of the label files.
        label_values: Every label value that may occur to the one that is written.
        cases: Regular expression that the names of cases match as a whole, for patterns that match
            other files, too.
        patient: Regular expression with a group ``patient``, searched for where the patterns have
            no ``{patient}``; the whole name if it does not match.
        ignored: Patterns of image files that are known and not wanted.
    """

    name: str
    channels: Mapping[str, str]
    label: str
    label_values: Mapping[int, int]
    cases: str = ".+"
    patient: str = "(?P<patient>.+)"
    ignored: Sequence[str] = ()

    @property
    def patterns(self) -> dict[str, str]:
        """Patterns of all parts of a case: channels in their order, and the label."""
        return {**self.channels, LABEL: self.label}

    def of_part(self, part: Part) -> "Naming":
        """The naming of the files of one part alone."""
        return replace(
            self,
            channels={name: text.replace(_PART, part) for name, text in self.channels.items()},
            label=self.label.replace(_PART, part),
            ignored=[text.replace(_PART, part) for text in self.ignored],
        )

    def patient_of(self, source: Path, paths: Mapping[str, Path], case: str) -> str:
        """The patient that a case is of.

        Args:
            source: The folder that the patterns are relative to.
            paths: The files of the case: channel name, or ``label``, to file.
            case: The case's name.
        """
        for part, path in paths.items():
            found = patient_of(source, path, self.patterns[part])
            if found is not None:
                return found
        match = re.fullmatch(self.patient, case)
        return case if match is None else match["patient"]


def recognise(source: Path, namings: Sequence[Naming]) -> Naming:
    """Find out how the files below a folder are named.

    Raises:
        DatasetError: there is no such folder, no naming fits a file, or more than one do.
    """
    require_folder(source)
    found = {naming.name: example for naming in namings if (example := _example(source, naming))}
    if not found:
        expected = "; ".join(
            f"{naming.name}: {', '.join(naming.patterns.values())}" for naming in namings
        )
        raise DatasetError(
            f"{source}: no file is named in a known way. Found there: {some_entries(source)}. "
            f"Expected one of {expected}. Name the folder that holds these, or use veloxseg "
            "convert folder, which takes any names."
        )
    if len(found) > 1:
        examples = "; ".join(f"{name}: {path.name}" for name, path in found.items())
        raise DatasetError(
            f"{source}: files are named in more than one way: {examples}. Expected one release. "
            "Separate them, and convert each under a dataset number of its own."
        )
    return next(naming for naming in namings if naming.name in found)


def find_parts(
    source: Path, naming: Naming, *, written: Path
) -> dict[Part, dict[str, dict[str, Path]]]:
    """The files of all cases, training and test cases apart.

    Where the naming does not tell them apart, cases are training cases if any has a label.

    Args:
        source: The folder that the patterns are relative to.
        naming: How its files are named.
        written: Folder that conversions write to; it may lie below ``source``.

    Returns:
        Part -> case name -> channel name, or ``label``, -> file. A part without case is left out.

    Raises:
        DatasetError: files lack their counterparts or have several, or an image file is named in
            no known way; all of one kind are reported at once.
    """
    in_parts = _PART in naming.label
    _require_known_files(source, naming, written)
    parts: dict[Part, dict[str, dict[str, Path]]] = {}
    for part in _PARTS if in_parts else _PARTS[:1]:
        named = naming.of_part(part)
        labels = _cases(source, named, named.label)
        if in_parts and not labels and not _example(source, named):
            continue
        is_test = part == "Ts" if in_parts else not labels
        patterns = named.patterns if labels or not is_test else dict(named.channels)
        files = pair_by_pattern(
            source, patterns, optional=(LABEL,) if is_test else (), cases=named.cases
        )
        parts["Ts" if is_test else "Tr"] = files
    return parts


def _example(source: Path, naming: Naming) -> Path | None:
    """A file of a channel that is named so, if there is one."""
    for part in _PARTS:
        for pattern in naming.of_part(part).channels.values():
            for paths in _cases(source, naming, pattern).values():
                return paths[0]
    return None


def _cases(source: Path, naming: Naming, pattern: str) -> dict[str, list[Path]]:
    found = match_files(source, pattern)
    return {case: paths for case, paths in found.items() if re.fullmatch(naming.cases, case)}


def _require_known_files(source: Path, naming: Naming, written: Path) -> None:
    """Refuse image files of unknown names, which would be left out without a word."""
    known: set[Path] = set()
    for part in _PARTS:
        named = naming.of_part(part)
        for pattern in (*named.patterns.values(), *named.ignored):
            for paths in match_files(source, pattern).values():
                known.update(paths)
    place, written = source.resolve(), written.resolve()
    unknown = [
        relative
        for relative in sorted(path.relative_to(source) for path in source.rglob("*"))
        if relative.name.endswith(_IMAGE_ENDINGS)
        and source / relative not in known
        and not (place / relative).is_relative_to(written)
        and not any(part.startswith(".") for part in relative.parts)
    ]
    expected = ", ".join([*naming.patterns.values(), *naming.ignored])
    raise_all(
        source,
        [
            f"{ascii(str(path))[1:-1]}: no name of {naming.name}. Expected one of {expected}. "
            "Rename the file, or move it away."
            for path in unknown
        ],
    )
