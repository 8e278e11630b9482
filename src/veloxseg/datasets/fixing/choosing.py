"""What is mended in a case, file by file, and which cases are left out."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from veloxseg.datasets.cases import Part
from veloxseg.datasets.check import CheckReport
from veloxseg.datasets.checking.case import LABEL, CheckedCase
from veloxseg.datasets.description import DatasetDescription
from veloxseg.datasets.problems import Kind, Problem

MENDED_BY_HEADER: set[Kind] = {"not_orthonormal", "refused_by_itk", "forms_disagree"}
"""Kinds of problems that go away when the grid our reader sees is written as the header."""

MENDED_BY_REFERENCE: Kind = "grids_nearly_equal"
"""The kind that goes away when the grid of the case's first channel is."""

MENDED_BY_RECASTING: set[Kind] = {"label_inexact", "label_as_float"}
"""Kinds that go away when a label is written as integers."""

_MENDABLE: set[Kind] = MENDED_BY_HEADER | MENDED_BY_RECASTING | {MENDED_BY_REFERENCE}


@dataclass(frozen=True, kw_only=True)
class FileToWrite:
    """One file of the new dataset.

    Attributes:
        name: Its path below the new dataset's folder.
        source: The file it comes from.
        is_image: Whether it is a channel, not a label.
        reference: The file whose grid it is put on; None keeps its own.
        mends: Kinds of the problems that are mended, sorted; empty: the file is taken as it is.
        done: In words, one for each of them.
    """

    name: str
    source: Path
    is_image: bool
    reference: Path | None
    mends: tuple[Kind, ...]
    done: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CaseToWrite:
    """One case of the new dataset: its name, whether it is for training, and its files."""

    name: str
    part: Part
    files: tuple[FileToWrite, ...]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A case that is not in the new dataset.

    Attributes:
        case: Its name.
        part: Training or test case; None if its files do not go together.
        reasons: The errors that cannot be mended safely.
    """

    case: str
    part: Part | None
    reasons: tuple[str, ...]


def choose_cases(
    report: CheckReport, description: DatasetDescription
) -> tuple[list[CaseToWrite], list[LeftOut]]:
    """Decide which cases are taken and what is mended in each.

    A case is taken when all its errors can be mended without a guess; warnings that can be mended
    are mended too, others stay.
    """
    taken, left_out = [], _incomplete_cases(report)
    for checked in report.cases:
        unsafe = [
            problem.message
            for problem in checked.problems
            if problem.severity == "error" and problem.kind not in _MENDABLE
        ]
        if unsafe:
            left_out.append(
                LeftOut(case=checked.case.name, part=checked.part, reasons=tuple(unsafe))
            )
        else:
            taken.append(_choose_files(checked, description))
    return taken, left_out


def _incomplete_cases(report: CheckReport) -> list[LeftOut]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for problem in report.problems:
        if problem.kind == "pairing" and problem.case is not None:
            reasons[problem.case].append(problem.message)
    return [
        LeftOut(case=case, part=None, reasons=tuple(messages))
        for case, messages in sorted(reasons.items())
    ]


def _choose_files(checked: CheckedCase, description: DatasetDescription) -> CaseToWrite:
    case, part = checked.case, checked.part
    by_part: dict[str, list[Problem]] = defaultdict(list)
    for problem in checked.problems:
        if problem.part is not None and problem.kind in _MENDABLE:
            by_part[problem.part].append(problem)
    reference_channel, reference = next(
        (description.channels[index], path) for index, path in case.present.items()
    )
    names = {
        description.channels[index]: (
            f"images{part}/{case.name}_{index:04d}{description.file_ending}",
            path,
        )
        for index, path in case.present.items()
    }
    if case.label is not None:
        names[LABEL] = (f"labels{part}/{case.name}{description.file_ending}", case.label)
    files = tuple(
        _choose_file(
            name,
            source,
            by_part.get(which, []),
            is_image=which != LABEL,
            reference=reference,
            reference_channel=reference_channel,
        )
        for which, (name, source) in names.items()
    )
    return CaseToWrite(name=case.name, part=part, files=files)


def _choose_file(
    name: str,
    source: Path,
    problems: Sequence[Problem],
    *,
    is_image: bool,
    reference: Path,
    reference_channel: str,
) -> FileToWrite:
    mends = {problem.kind: problem.numbers for problem in problems}
    return FileToWrite(
        name=name,
        source=source,
        is_image=is_image,
        reference=reference if MENDED_BY_REFERENCE in mends else None,
        mends=tuple(sorted(mends)),
        done=tuple(_in_words(kind, mends[kind], reference_channel) for kind in sorted(mends)),
    )


def _in_words(kind: Kind, numbers: Mapping[str, object], reference_channel: str) -> str:
    if kind == "not_orthonormal":
        return (
            "axes made perpendicular by the nearest rotation, from which they departed by "
            f"{numbers['departure']:.2g}"
        )
    if kind == "refused_by_itk":
        return "header written anew, since ITK refused it"
    if kind == "forms_disagree":
        return (
            "qform and sform written alike, where ITK puts the image; a corner lay "
            f"{numbers['corner_voxels']:.3g} voxels away by the {numbers['form']}"
        )
    if kind == MENDED_BY_REFERENCE:
        return (
            f"header of {reference_channel} taken over; a corner lay "
            f"{numbers['corner_voxels']:.2g} voxels away"
        )
    if kind == "label_inexact":
        return f"recast to integers, which were missed by {numbers['departure']:.2g}"
    return "recast from floats to integers"
