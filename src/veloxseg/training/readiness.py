"""What must be there before a fold is trained, said before anything heavy is loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json
from veloxseg.datasets.description import FILE_NAME
from veloxseg.datasets.patients import patients_of_cases
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, PlanError, VeloxSegError
from veloxseg.planning.files import (
    CONFIGURATION,
    PLANS_NAME,
    preprocessed_folder,
    preprocessing_settings,
    read_mark,
)
from veloxseg.training.record import check_same_plan
from veloxseg.training.runs import FINAL

_NUM_FOLDS = 5


def check_preprocessed(workspace: Workspace, name: str, plans: Mapping[str, Any]) -> list[str]:
    """Check that all cases are preprocessed, and by this plan.

    Returns:
        The names of the cases.

    Raises:
        DatasetError: cases are missing: preprocessing was interrupted, or never begun.
        PlanError: they were made by other settings than the plan's.
    """
    folder = preprocessed_folder(workspace, name, plans)
    again = f"veloxseg preprocess {name}{_network_option(plans)}"
    cases = sorted(file.stem for file in folder.glob("*.pkl"))
    if not cases:
        raise DatasetError(f"{folder}: no preprocessed cases. First: {again}")
    fingerprint = read_json(folder.parent / "dataset_fingerprint.json")
    expected = len(fingerprint["spacings"])
    if len(cases) != expected:
        raise DatasetError(
            f"{folder}: {len(cases)} preprocessed cases, {expected} were planned. Preprocess them "
            f"all: {again}"
        )
    mark = read_mark(folder)
    if mark is not None and mark["settings"] != preprocessing_settings(plans):
        raise PlanError(
            f"{folder}: preprocessed with another spacing, normalisation or resampling than the "
            f"plan has now. Preprocess again: {again}"
        )
    return cases


def _network_option(plans: Mapping[str, Any]) -> str:
    """The option that names the plan's network, where it has preprocessed cases of its own."""
    plans_name: str = plans.get("plans_name", PLANS_NAME)
    identifier: str = plans["configurations"][CONFIGURATION]["data_identifier"]
    if plans_name == PLANS_NAME or not identifier.startswith(plans_name):
        return ""
    return f" --network {plans_name.removeprefix(f'{PLANS_NAME}_')}"


def check_fold(splits: Path, fold: int | str, cases: Sequence[str], *, raw: Path) -> list[str]:
    """Check that the fold can be made of the cases.

    Args:
        splits: ``splits_final.json``; without it nnU-Net makes five folds.
        fold: Its number, or "all".
        cases: All training cases.
        raw: The dataset's folder in ``nnUNet_raw``; without it nothing is known of patients.

    Returns:
        Cases that no fold has, as when they were added after the splits were made.

    Raises:
        DatasetError: there are too few cases, no such fold, the splits name other cases, or there
            are no splits, and patients with several cases.
    """
    if fold == "all":
        return []
    if not splits.is_file():
        if len(cases) < _NUM_FOLDS or int(fold) >= _NUM_FOLDS:
            raise DatasetError(
                f"Fold {fold} of {len(cases)} cases: nnU-Net makes five folds, 0 to 4, of at least "
                f"five cases. Train on every case with fold all, or write {splits}."
            )
        _check_patients(splits, cases, raw)
        return []
    folds = read_json(splits)
    if int(fold) >= len(folds):
        raise DatasetError(f"{splits}: it has the folds 0 to {len(folds) - 1}, no fold {fold}.")
    named = {case for part in ("train", "val") for case in folds[int(fold)][part]}
    if missing := sorted(named - set(cases)):
        raise DatasetError(
            f"{splits}: fold {fold} names {len(missing)} cases that are not preprocessed, such as "
            f"{', '.join(missing[:3])}. Correct it, or remove it and plan again to have new folds "
            "made."
        )
    return sorted(set(cases) - named)


def _check_patients(splits: Path, cases: Sequence[str], raw: Path) -> None:
    """Folds that nnU-Net makes itself, case by case, must part no patient's cases."""
    if not (raw / FILE_NAME).is_file():
        return  # nothing is known of patients
    num_patients = len(set(patients_of_cases(raw, cases, part="Tr").values()))
    if num_patients < len(cases):
        raise DatasetError(
            f"{splits}: not there, and nnU-Net would deal {len(cases)} cases of {num_patients} "
            "patients to folds without regard to patients. veloxseg plan makes folds of "
            f"{_NUM_FOLDS} or more patients. With fewer, train on every case with fold all, or "
            "write the file."
        )


def set_apart(splits: Path) -> list[str]:
    """Cases that a split keeps for testing, and that training on every case would see."""
    if not splits.is_file():
        return []
    return sorted({case for split in read_json(splits) for case in split.get("test", [])})


def check_unspoilt(
    folder: Path, plans: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> None:
    """Check that training into a fold's results folder loses nothing.

    Raises:
        PlanError: the run was trained by another plan.
        VeloxSegError: the fold is trained already and neither option is given, or both are.
    """
    if resume and overwrite:
        raise VeloxSegError("--resume goes on, --overwrite starts anew: give one of them.")
    check_same_plan(folder.parent, plans)
    checkpoints = sorted(folder.glob("checkpoint_*.pth"))
    if checkpoints and not resume and not overwrite:
        finished = (folder / FINAL).is_file()
        raise VeloxSegError(
            f"{folder}: trained already ({FINAL if finished else checkpoints[-1].name}). "
            f"{'Validate it again' if finished else 'Go on'} with --resume, or train it anew with "
            "--overwrite."
        )
