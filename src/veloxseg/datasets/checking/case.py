"""Checking one case: each file is read once, one at a time."""

from dataclasses import dataclass
from pathlib import Path

from veloxseg.datasets.cases import Case, Part
from veloxseg.datasets.checking.grids import check_grids
from veloxseg.datasets.checking.hashing import hash_voxels
from veloxseg.datasets.checking.headers import check_header, has_place
from veloxseg.datasets.checking.intensities import check_intensities
from veloxseg.datasets.checking.label_values import check_label
from veloxseg.datasets.description import DatasetDescription
from veloxseg.datasets.problems import Problem
from veloxseg.errors import ImageReadError
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import Grid, Volume

LABEL = "label"
"""What a label is called where channels are called by their names."""


@dataclass(frozen=True, kw_only=True)
class CheckedCase:
    """What was found in one case.

    Attributes:
        case: The case and its files.
        part: Training or test case.
        channels: Names of the channels that it has.
        problems: What is wrong with the case by itself.
        grid: Where its first channel that can be read lies.
        has_place: Whether that file's header says where the image lies.
        label_values: The values in the label.
        hashes: Channel name or ``label`` to the hash of the voxels; constant images and labels
            without foreground have none, since they are alike everywhere.
    """

    case: Case
    part: Part
    channels: tuple[str, ...]
    problems: tuple[Problem, ...]
    grid: Grid | None
    has_place: bool
    label_values: frozenset[int]
    hashes: dict[str, str]

    @property
    def title(self) -> str:
        """The case's name, and whether it is a test case."""
        return self.case.name if self.part == "Tr" else f"{self.case.name} (imagesTs)"


def check_case(case: Case, part: Part, description: DatasetDescription) -> CheckedCase:
    """Read all files of a case and say what is wrong with each and with them together."""
    problems: list[Problem] = []
    grids: list[tuple[str, Grid]] = []
    hashes: dict[str, str] = {}
    values: frozenset[int] = frozenset()
    present = {description.channels[index]: path for index, path in case.present.items()}
    for channel, path in present.items():
        volume = _open(case.name, channel, path, description, problems)
        if volume is None:
            continue
        grids.append((channel, volume.grid))
        wrong = list(check_intensities(case.name, channel, volume))
        problems += wrong
        if not any(problem.kind in ("not_finite", "constant") for problem in wrong):
            hashes[channel] = hash_voxels(volume)
    problems += _copied_channels(case.name, hashes)
    if case.label is not None:
        label = _open(case.name, LABEL, case.label, description, problems)
        if label is not None:
            grids.append((LABEL, label.grid))
            counts, wrong = check_label(case, label, description)
            problems += wrong
            values = frozenset(counts)
            if values - {0, description.ignore_label}:
                hashes[LABEL] = hash_voxels(label)
    problems += check_grids(case.name, grids)
    first = next((path for name, path in present.items() if grids and name == grids[0][0]), None)
    return CheckedCase(
        case=case,
        part=part,
        channels=tuple(present),
        problems=tuple(problems),
        grid=grids[0][1] if first is not None else None,
        has_place=first is None or has_place(first),
        label_values=values,
        hashes=hashes,
    )


def _open(
    case: str, part: str, path: Path, description: DatasetDescription, problems: list[Problem]
) -> Volume | None:
    try:
        volume = read_volume(path)
    except ImageReadError as error:
        problems.append(
            Problem(
                case=case,
                severity="error",
                message=f"Case {case}, {part}: {error}",
                kind="unreadable",
                part=part,
            )
        )
        return None
    problems += check_header(case, part, path, volume.grid, read_by_itk=description.read_by_itk)
    return volume


def _copied_channels(case: str, hashes: dict[str, str]) -> list[Problem]:
    problems = []
    first_with: dict[str, str] = {}
    for channel, voxels in hashes.items():
        original = first_with.setdefault(voxels, channel)
        if original != channel:
            problems.append(
                Problem(
                    case=case,
                    severity="warning",
                    message=f"Case {case}: {channel} is a copy of {original}, voxel by voxel. "
                    "Expected two images. Look whether a file was copied in place of another.",
                    kind="channel_copied",
                    part=channel,
                    numbers={"original": original},
                )
            )
    return problems
