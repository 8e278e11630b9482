"""Going through a whole dataset before hours are spent on it."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from veloxseg.datasets.cases import Case, pair_files
from veloxseg.datasets.description import DatasetDescription, read_description
from veloxseg.datasets.labels import integer_labels
from veloxseg.datasets.problems import Problem, describe_two_grids, raise_problems
from veloxseg.errors import DatasetError, ImageReadError
from veloxseg.volumes.reading import read_volume, require_itk_header
from veloxseg.volumes.volume import Grid, Volume, same_grid

__all__ = ["CheckReport", "Problem", "check_dataset"]

_NUM_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What was found in a dataset.

    Attributes:
        folder: The dataset's folder.
        num_cases: Number of cases whose files were opened: training and test together.
        problems: What is wrong; errors and warnings in the order of the cases.
    """

    folder: Path
    num_cases: int
    problems: list[Problem]

    @property
    def errors(self) -> list[Problem]:
        """The problems that forbid training."""
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """The problems to have a look at."""
        return [problem for problem in self.problems if problem.severity == "warning"]

    def raise_for_errors(self) -> None:
        """Raise the errors, if there is one.

        Raises:
            DatasetError: lists the first twenty errors and counts the rest.
        """
        raise_problems(str(self.folder), self.errors)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values: folder, num_cases, problems."""
        return {
            "folder": str(self.folder),
            "num_cases": self.num_cases,
            "problems": [asdict(problem) for problem in self.problems],
        }


def check_dataset(
    folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Open every file of a dataset in nnU-Net's raw format and say what is wrong.

    Errors: files without counterpart, unreadable to us or to nnU-Net, or not 3-D, channels and
    label on different grids, NaN or infinite voxels, label values that are no integers or not in
    dataset.json, a wrong numTraining. Warnings: fewer training cases than folds, a constant
    channel, a label without foreground, a label value that no case has. Test cases are checked
    likewise where there are any.

    Args:
        folder: ``DatasetNNN_Name`` with its dataset.json.
        progress: Called after each case with the number done and the number of all.
    """
    try:
        description = read_description(folder)
    except DatasetError as error:
        return CheckReport(folder=folder, num_cases=0, problems=[_error(None, str(error))])
    cases, problems = pair_files(folder, description)
    if not problems:  # while files are missing the number is bound to be wrong
        problems += _check_number(cases, description)
        problems += _check_folds(cases)
    test_cases: list[Case] = []
    if any((folder / "imagesTs").glob("[!.]*")):
        test_cases, test_problems = pair_files(folder, description, part="Ts")
        problems += test_problems
    seen: set[int] = set()
    num_cases = len(cases) + len(test_cases)
    for done, case in enumerate((*cases, *test_cases), start=1):
        values, wrong = _check_case(case, description)
        seen |= values
        problems += wrong
        if progress is not None:
            progress(done, num_cases)
    if cases and not any(problem.severity == "error" for problem in problems):
        problems += _unseen_labels(seen, description)
    return CheckReport(folder=folder, num_cases=num_cases, problems=problems)


def _check_number(cases: list[Case], description: DatasetDescription) -> Iterator[Problem]:
    if len(cases) != description.num_training:
        yield _error(
            None,
            f"dataset.json: numTraining is {description.num_training}, but there are {len(cases)} "
            f"cases. Set it to {len(cases)}, or find the missing cases.",
        )


def _check_folds(cases: list[Case]) -> Iterator[Problem]:
    if 0 < len(cases) < _NUM_FOLDS:
        yield _warning(
            None,
            f"imagesTr: {len(cases)} training case{'s' if len(cases) > 1 else ''}. Expected "
            f"{_NUM_FOLDS} or more, one for each of nnU-Net's folds. Train fold all, or write "
            "splits_final.json to the dataset's folder in nnUNet_preprocessed.",
        )


def _check_case(case: Case, description: DatasetDescription) -> tuple[set[int], list[Problem]]:
    """Values of the label, and what is wrong with the case."""
    problems: list[Problem] = []
    grids: list[tuple[str, Grid]] = []
    for index, path in case.present.items():
        channel = description.channels[index]
        volume = _open(case.name, channel, path, description, problems)
        if volume is not None:
            grids.append((channel, volume.grid))
            problems += _check_voxels(case.name, channel, volume)
    values: set[int] = set()
    if case.label is not None:
        label = _open(case.name, "label", case.label, description, problems)
        if label is not None:
            grids.append(("label", label.grid))
            values, wrong = _check_label(case, label, description)
            problems += wrong
    problems += _check_grids(case.name, grids)
    return values, problems


def _open(
    case: str, part: str, path: Path, description: DatasetDescription, problems: list[Problem]
) -> Volume | None:
    try:
        volume = read_volume(path)
        if description.read_by_itk:
            require_itk_header(path)
        return volume
    except ImageReadError as error:
        problems.append(_error(case, f"Case {case}, {part}: {error}"))
        return None


def _check_voxels(case: str, channel: str, volume: Volume) -> Iterator[Problem]:
    not_finite = volume.data.size - int(np.isfinite(volume.data).sum())
    if not_finite:
        yield _error(
            case,
            f"Case {case}: {channel} has {not_finite} voxels that are NaN or infinite. "
            "Expected finite values. Replace them in the file, as by the background's value.",
        )
    elif volume.data.min() == volume.data.max():
        yield _warning(
            case,
            f"Case {case}: every voxel of {channel} is {volume.data.flat[0]:g}. Expected an image. "
            "Look whether its export went wrong.",
        )


def _check_grids(case: str, grids: list[tuple[str, Grid]]) -> Iterator[Problem]:
    for name, grid in grids[1:]:
        reference_name, reference = grids[0]
        if not same_grid(reference, grid):
            yield _error(case, describe_two_grids(case, reference_name, reference, name, grid))


def _check_label(
    case: Case, label: Volume, description: DatasetDescription
) -> tuple[set[int], list[Problem]]:
    try:
        data = integer_labels(label.data, where=f"Case {case.name}: the label {case.label}")
    except DatasetError as error:
        return set(), [_error(case.name, str(error))]
    values = {int(value) for value in np.unique(data)}
    unknown = sorted(values - set(description.label_values))
    if unknown:
        return values, [
            _error(
                case.name,
                f"Case {case.name}: the label has values {unknown}, which dataset.json does not "
                f"name; it has {list(description.label_values)}. "
                "Name them there or correct the label.",
            )
        ]
    if not values - {0, description.ignore_label}:
        return values, [
            _warning(
                case.name,
                f"Case {case.name}: the label {case.label} has no foreground. Expected some voxel "
                f"of {_foreground(description)}. Fine if this patient has nothing to segment.",
            )
        ]
    return values, []


def _unseen_labels(seen: set[int], description: DatasetDescription) -> Iterator[Problem]:
    unseen = sorted(set(description.label_values) - seen - {0, description.ignore_label})
    if unseen:
        yield _warning(
            None,
            f"dataset.json: no case has a voxel of the label values {unseen} "
            f"({_foreground(description)}). A network cannot learn them. Remove them there, "
            "or look whether the label files were renumbered.",
        )


def _foreground(description: DatasetDescription) -> str:
    return ", ".join(
        f"{name} = {list(value) if isinstance(value, tuple) else value}"
        for name, value in description.labels.items()
        if name not in ("background", "ignore")
    )


def _error(case: str | None, message: str) -> Problem:
    return Problem(case=case, severity="error", message=message)


def _warning(case: str | None, message: str) -> Problem:
    return Problem(case=case, severity="warning", message=message)
