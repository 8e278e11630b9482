"""The planning stages as functions: fingerprint and plan, then preprocessing, by nnU-Net's code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from veloxseg.datasets.cases import find_cases
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.description import DatasetDescription, read_description
from veloxseg.datasets.workspace import Workspace, parse_dataset_name
from veloxseg.errors import DatasetError
from veloxseg.planning.files import (
    CONFIGURATION,
    PLANS_NAME,
    file_states,
    preprocessed_folder,
    preprocessing_settings,
    read_mark,
    read_plans,
    remove_mark,
    write_mark,
)
from veloxseg.planning.rules import DEFAULT_MEMORY_GB
from veloxseg.quiet import printing_to_log


def plan(
    dataset: str,
    *,
    workspace: Workspace,
    memory_gb: float = DEFAULT_MEMORY_GB,
    num_workers: int = 1,
) -> Path:
    """Check the dataset, extract its fingerprint and plan a VeloxSeg network.

    Args:
        dataset: Number or name of a dataset in ``workspace.raw``.
        workspace: nnU-Net's folders.
        memory_gb: Memory of a training batch of two.
        num_workers: Processes that read cases.

    Returns:
        The plans file.

    Raises:
        DatasetError: the dataset is missing, or something is wrong with it.
        PlanError: the dataset is not three-dimensional.
    """
    workspace.export()
    name = workspace.dataset_name(dataset)
    raw = _raw_folder(workspace, name)
    check_dataset(raw).raise_for_errors()

    from veloxseg.planning.planner import VeloxSegPlanner

    with printing_to_log():
        _fingerprint_extractor(read_description(raw))(name, num_workers).run(
            overwrite_existing=True
        )
        VeloxSegPlanner(name, memory_gb).plan_experiment()
    return workspace.preprocessed / name / f"{PLANS_NAME}.json"


def preprocess(dataset: str, *, workspace: Workspace, num_workers: int = 1) -> Path:
    """Preprocess the training cases by the plan, with nnU-Net's preprocessor.

    A finished folder is marked with what made it: the settings in the plan and the state of every
    source file. It is left as it is as long as they are the same.

    Returns:
        The folder of preprocessed cases.

    Raises:
        DatasetError: the dataset is missing.
        PlanError: there is no plan.
    """
    workspace.export()
    name = workspace.dataset_name(dataset)
    raw = _raw_folder(workspace, name)
    plans = read_plans(workspace, name)
    folder = preprocessed_folder(workspace, name, plans)
    description = read_description(raw)
    cases = find_cases(raw, description)
    mark = {
        "settings": preprocessing_settings(plans),
        "files": file_states(f for case in cases for f in case.files),
    }
    if read_mark(folder) == mark:
        return folder
    remove_mark(folder)
    with printing_to_log():
        if description.optional:
            from veloxseg.planning.optional_preprocessing import preprocess_optional

            preprocess_optional(name, plans, workspace=workspace, num_workers=num_workers)
        else:
            _preprocess_complete(name, plans, num_workers)
    write_mark(folder, mark)
    return folder


def _fingerprint_extractor(description: DatasetDescription) -> Any:
    """nnU-Net's class, or ours where cases may lack channels."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    from veloxseg.planning.optional_fingerprint import OptionalFingerprintExtractor

    return OptionalFingerprintExtractor if description.optional else DatasetFingerprintExtractor


def _preprocess_complete(name: str, plans: Mapping[str, Any], num_workers: int) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    preprocess_dataset(
        parse_dataset_name(name)[0],
        plans["plans_name"],
        configurations=[CONFIGURATION],
        num_processes=[num_workers],
    )


def _raw_folder(workspace: Workspace, name: str) -> Path:
    folder = workspace.raw / name
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: not there, though {name} has other files. Convert it again: "
            "veloxseg convert."
        )
    return folder
