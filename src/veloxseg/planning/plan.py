"""The planning stages as functions: fingerprint and plan, then preprocessing, by nnU-Net's code."""

from pathlib import Path

from veloxseg.atomic import write_json
from veloxseg.datasets.cases import find_cases
from veloxseg.datasets.description import read_description
from veloxseg.datasets.workspace import Workspace, parse_dataset_name
from veloxseg.errors import DatasetError
from veloxseg.planning.files import CONFIGURATION, PLANS_NAME, mark_file, read_mark, read_plans
from veloxseg.planning.rules import DEFAULT_MEMORY_GB
from veloxseg.quiet import printing_to_log


def plan(
    dataset: str,
    *,
    workspace: Workspace,
    memory_gb: float = DEFAULT_MEMORY_GB,
    num_workers: int = 1,
) -> Path:
    """Extract the fingerprint and plan a VeloxSeg network.

    Args:
        dataset: Number or name of a dataset in ``workspace.raw``.
        workspace: nnU-Net's folders.
        memory_gb: Memory of a training batch of two.
        num_workers: Processes that read cases.

    Returns:
        The plans file.

    Raises:
        DatasetError: the dataset or a part of it is missing.
        PlanError: the dataset is not three-dimensional.
    """
    workspace.export()
    name = workspace.dataset_name(dataset)
    raw = _raw_folder(workspace, name)
    find_cases(raw, read_description(raw))

    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    from veloxseg.planning.planner import VeloxSegPlanner

    with printing_to_log():
        DatasetFingerprintExtractor(name, num_workers).run(overwrite_existing=True)
        VeloxSegPlanner(name, memory_gb).plan_experiment()
    return workspace.preprocessed / name / f"{PLANS_NAME}.json"


def preprocess(dataset: str, *, workspace: Workspace, num_workers: int = 1) -> Path:
    """Preprocess the training cases by the plan, with nnU-Net's preprocessor.

    A finished folder is marked with the configuration that made it, and left as it is when called
    again with the same.

    Returns:
        The folder of preprocessed cases.

    Raises:
        DatasetError: the dataset is missing.
        PlanError: there is no plan.
    """
    workspace.export()
    name = workspace.dataset_name(dataset)
    _raw_folder(workspace, name)
    plans = read_plans(workspace, name)
    configuration = plans["configurations"][CONFIGURATION]
    folder = workspace.preprocessed / name / str(configuration["data_identifier"])
    mark = {**configuration, "transpose_forward": plans["transpose_forward"]}
    if read_mark(folder) == mark:
        return folder
    mark_file(folder).unlink(missing_ok=True)

    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    with printing_to_log():
        preprocess_dataset(
            parse_dataset_name(name)[0],
            plans["plans_name"],
            configurations=[CONFIGURATION],
            num_processes=[num_workers],
        )
    write_json(mark_file(folder), mark)
    return folder


def _raw_folder(workspace: Workspace, name: str) -> Path:
    folder = workspace.raw / name
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: not there, though {name} has other files. Convert it again: "
            "veloxseg convert."
        )
    return folder
