"""Whether what is trained on is kept apart from what is judged on, patient by patient."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from veloxseg.datasets.problems import Kind, Problem, Severity
from veloxseg.shortening import name_cases, shorten


class _Fold(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    train: list[str]
    val: list[str]
    test: list[str] = []


_FOLDS = TypeAdapter(list[_Fold])


def check_splits(
    path: Path,
    patients: Mapping[str, str],
    *,
    same_images: Sequence[Sequence[str]] = (),
) -> Iterator[Problem]:
    """Say what is wrong with a splits file.

    Errors: it cannot be read, names a case that is not there, has an empty side, or has a case, a
    patient or the same image on two sides of one fold. A warning: cases that no fold judges.

    Args:
        path: nnU-Net's splits_final.json.
        patients: Training case -> patient.
        same_images: Groups of training cases whose images are the same.
    """
    try:
        folds = _FOLDS.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        yield _problem(
            path,
            "splits_unreadable",
            f"{place + ': ' if place else ''}{first['msg']}. "
            'Expected a list of {"train": [...], "val": [...]}. Correct or remove it.',
        )
        return
    for number, fold in enumerate(folds):
        sides = {"train": set(fold.train), "val": set(fold.val), "test": set(fold.test)}
        yield from _check_names(path, number, sides, patients)
        yield from _check_overlap(path, number, sides)
        yield from _check_patients(path, number, sides, patients)
        yield from _check_same_images(path, number, sides, same_images)
    judged = {case for fold in folds for case in (*fold.val, *fold.test)}
    forgotten = sorted(set(patients) - judged)
    if forgotten and len(folds) > 1:
        yield _problem(
            path,
            "splits_forget_case",
            f"{name_cases(forgotten)} {'are' if len(forgotten) > 1 else 'is'} in no fold's val. "
            "Expected each case to be judged once. Add them, or make the splits again.",
            severity="warning",
            cases=forgotten,
        )


def check_test_cases(training: Mapping[str, str], test: Mapping[str, str]) -> Iterator[Problem]:
    """Warn of patients who are among the training and the test cases.

    Args:
        training: Training case -> patient.
        test: Test case -> patient. One that is named as its case is, is not known to be a patient:
            training and test cases may both be numbered from 1.
    """
    known = {case: patient for case, patient in test.items() if patient != case}
    for patient in sorted(set(known.values()) & set(training.values())):
        trained = sorted(case for case, name in training.items() if name == patient)
        judged = sorted(case for case, name in known.items() if name == patient)
        yield Problem(
            case=None,
            severity="warning",
            message=f"imagesTs: the patient {patient} of {name_cases(judged)} is in imagesTr too, "
            f"as {name_cases(trained)}. Expected other patients: a network knows those it was "
            "trained on. Move the cases of a patient to one side.",
            kind="train_test_patient",
            numbers={"patient": patient, "training": trained, "test": judged},
        )


def _check_names(
    path: Path, number: int, sides: Mapping[str, set[str]], patients: Mapping[str, str]
) -> Iterator[Problem]:
    unknown = sorted(set().union(*sides.values()) - set(patients))
    if unknown:
        yield _problem(
            path,
            "splits_unknown_case",
            f"fold {number} names {name_cases(unknown)}, not among the {len(patients)} complete "
            "training cases. Add them to the dataset, or make the splits again.",
            fold=number,
            cases=unknown,
        )
    for side in ("train", "val"):
        if not sides[side]:
            yield _problem(
                path,
                "splits_empty",
                f"fold {number} has no case in {side}. Expected some. Make the splits again.",
                fold=number,
                side=side,
            )


def _check_overlap(path: Path, number: int, sides: Mapping[str, set[str]]) -> Iterator[Problem]:
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = sorted(sides[first] & sides[second])
        if both:
            yield _problem(
                path,
                "splits_case_twice",
                f"fold {number} has {name_cases(both)} in {first} and in {second}. Expected each "
                "case in one of them. Remove it from one.",
                fold=number,
                sides=[first, second],
                cases=both,
            )


def _check_patients(
    path: Path, number: int, sides: Mapping[str, set[str]], patients: Mapping[str, str]
) -> Iterator[Problem]:
    by_patient: dict[str, set[str]] = defaultdict(set)
    for case, patient in patients.items():
        by_patient[patient].add(case)
    leaks = {
        patient: spread
        for patient, cases in sorted(by_patient.items())
        if (spread := _spread(cases, sides))
    }
    if leaks:
        patient, spread = next(iter(leaks.items()))
        more = f", and {len(leaks) - 1} more patients likewise" if len(leaks) > 1 else ""
        yield _problem(
            path,
            "splits_leak_patient",
            f"fold {number} has the patient {patient} on two sides: {_describe(spread)}{more}. "
            "Expected all cases of a patient on one: a network knows the patients it was trained "
            "on. Make the splits patient by patient.",
            fold=number,
            patients=leaks,
        )


def _check_same_images(
    path: Path,
    number: int,
    sides: Mapping[str, set[str]],
    same_images: Sequence[Sequence[str]],
) -> Iterator[Problem]:
    for group in same_images:
        spread = _spread(set(group), sides)
        if spread:
            yield _problem(
                path,
                "splits_leak_duplicate",
                f"fold {number} has the same image on two sides: {_describe(spread)}. Expected it "
                "on one. Remove the duplicate, or put both on one side.",
                fold=number,
                cases=spread,
            )


def _spread(cases: set[str], sides: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """Side -> the cases on it, if different ones are on two sides or more; else nothing."""
    spread = {side: sorted(cases & names) for side, names in sides.items() if cases & names}
    different = len({case for names in spread.values() for case in names}) > 1
    return spread if len(spread) > 1 and different else {}


def _describe(spread: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{shorten(cases)} in {side}" for side, cases in spread.items())


def _problem(
    path: Path, kind: Kind, text: str, *, severity: Severity = "error", **numbers: Any
) -> Problem:
    return Problem(
        case=None, severity=severity, message=f"{path}: {text}", kind=kind, numbers=numbers
    )
