"""Going through a whole dataset before hours are spent on it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from veloxseg.datasets.cases import Case, Part, pair_files
from veloxseg.datasets.checking.case import CheckedCase, check_case
from veloxseg.datasets.checking.consistency import check_consistency
from veloxseg.datasets.checking.duplicates import check_duplicates, same_images
from veloxseg.datasets.checking.folds import check_splits, check_test_cases
from veloxseg.datasets.checking.label_values import unseen_values
from veloxseg.datasets.description import DatasetDescription, read_description
from veloxseg.datasets.patients import patients_of_cases
from veloxseg.datasets.problems import Problem, raise_problems
from veloxseg.errors import DatasetError, VeloxSegError
from veloxseg.workers import results_of

__all__ = ["CheckReport", "Problem", "check_dataset"]

_NUM_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What was found in a dataset.

    Attributes:
        folder: The dataset's folder.
        num_cases: Number of cases whose files were opened: training and test together.
        problems: What is wrong; errors and warnings in the order of the cases.
        subsets: Where channels are optional: the channels that a case has, such as ``CT + PET``, to
            the number of such cases; else empty.
        cases: What was found in each case whose files are there.
    """

    folder: Path
    num_cases: int
    problems: list[Problem]
    subsets: dict[str, int]
    cases: tuple[CheckedCase, ...]

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
        """The report as JSON values; docs/checking.md names the keys and the kinds."""
        return {
            "folder": str(self.folder),
            "num_cases": self.num_cases,
            "num_errors": len(self.errors),
            "num_warnings": len(self.warnings),
            "subsets": self.subsets,
            "problems": [asdict(problem) for problem in self.problems],
        }


@dataclass(frozen=True, kw_only=True)
class _CheckOne:
    """Checks one case; of a module's own, so that processes can be sent it."""

    description: DatasetDescription

    def __call__(self, case_of_part: tuple[Case, Part]) -> CheckedCase:
        return check_case(*case_of_part, self.description)


def check_dataset(
    folder: Path,
    *,
    splits: Path | None = None,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Open every file of a dataset in nnU-Net's raw format and say what is wrong.

    Each file is read once, and one image is in memory at a time in each process. docs/checking.md
    lists what is looked for, with the tolerances. Test cases are checked likewise where there are
    any.

    Args:
        folder: ``DatasetNNN_Name`` with its dataset.json.
        splits: nnU-Net's splits_final.json of the dataset, if it is there: no patient may be on two
            sides of a fold.
        num_workers: Processes that read cases; a script that asks for several must begin below
            ``if __name__ == "__main__"``.
        progress: Called after each case with the number done and the number of all.

    Raises:
        DatasetError: a process was killed.
    """
    try:
        description = read_description(folder)
    except DatasetError as error:
        return _only(
            folder, Problem(case=None, severity="error", message=str(error), kind="description")
        )
    has_test_images = any((folder / "imagesTs").glob("[!.]*"))
    test_images_alone = has_test_images and not (folder / "imagesTr").exists()
    cases, problems = ([], []) if test_images_alone else pair_files(folder, description)
    if not problems:  # while files are missing the number is bound to be wrong
        problems += _check_number(cases, description)
        problems += _check_folds(cases)
    test_cases: list[Case] = []
    if has_test_images:
        test_cases, test_problems = pair_files(folder, description, part="Ts")
        problems += test_problems
    work: list[tuple[Case, Part]] = [(case, "Tr") for case in cases]
    work += [(case, "Ts") for case in test_cases]
    checked = results_of(
        _CheckOne(description=description), work, num_workers=num_workers, progress=progress
    )
    problems += [problem for one in checked for problem in one.problems]
    problems += check_consistency(checked, description)
    problems += check_duplicates(checked)
    problems += _check_patients(folder, splits, checked)
    if cases and not any(problem.severity == "error" for problem in problems):
        seen = {value for one in checked for value in one.label_values}
        problems += unseen_values(seen, description)
    return CheckReport(
        folder=folder,
        num_cases=len(checked),
        problems=problems,
        subsets=_count_subsets(checked, description),
        cases=tuple(checked),
    )


def _only(folder: Path, problem: Problem) -> CheckReport:
    return CheckReport(folder=folder, num_cases=0, problems=[problem], subsets={}, cases=())


def _check_number(cases: Sequence[Case], description: DatasetDescription) -> Iterator[Problem]:
    if len(cases) != description.num_training:
        yield Problem(
            case=None,
            severity="error",
            message=f"dataset.json: numTraining is {description.num_training}, but there are "
            f"{len(cases)} cases. Set it to {len(cases)} (veloxseg check --fix does), or find the "
            "missing cases.",
            kind="num_training",
            numbers={"found": len(cases), "num_training": description.num_training},
        )


def _check_folds(cases: Sequence[Case]) -> Iterator[Problem]:
    if 0 < len(cases) < _NUM_FOLDS:
        yield Problem(
            case=None,
            severity="warning",
            message=f"imagesTr: {len(cases)} training case{'s' if len(cases) > 1 else ''}. "
            f"Expected {_NUM_FOLDS} or more, one for each of nnU-Net's folds. Train fold all, or "
            "write splits_final.json to the dataset's folder in nnUNet_preprocessed.",
            kind="few_cases",
            numbers={"found": len(cases), "folds": _NUM_FOLDS},
        )


def _check_patients(
    folder: Path, splits: Path | None, checked: Sequence[CheckedCase]
) -> Iterator[Problem]:
    training = [one for one in checked if one.part == "Tr"]
    names = [one.case.name for one in training]
    test_names = [one.case.name for one in checked if one.part == "Ts"]
    try:
        patients = patients_of_cases(folder, names, part="Tr")
        test_patients = patients_of_cases(folder, test_names, part="Ts")
    except VeloxSegError as error:
        yield Problem(case=None, severity="error", message=str(error), kind="patients")
        return
    yield from check_test_cases(patients, test_patients)
    if splits is not None and splits.is_file():
        groups = [[names[index] for index in holders] for _, holders in same_images(training)]
        yield from check_splits(splits, patients, same_images=groups)


def _count_subsets(
    checked: Sequence[CheckedCase], description: DatasetDescription
) -> dict[str, int]:
    if not description.optional:
        return {}
    return dict(Counter(" + ".join(one.channels) for one in checked).most_common())
