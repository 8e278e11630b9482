"""All stages from a raw dataset to a validated fold, going on where an earlier call stopped."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from veloxseg.datasets.cases import find_cases
from veloxseg.datasets.description import read_description
from veloxseg.datasets.splits import SPLITS_FILE
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import PlanError
from veloxseg.planning.files import planned_options, plans_file, read_plans
from veloxseg.planning.peer_plans import VELOXSEG, network_plans
from veloxseg.planning.plan import plan, preprocess
from veloxseg.training.launch import fold_folder, train
from veloxseg.training.readiness import check_fold
from veloxseg.training.record import check_same_plan, read_record
from veloxseg.training.runs import FINAL, has_begun
from veloxseg.training.settings import TrainingSettings


def run_stages(
    dataset: str,
    *,
    workspace: Workspace,
    console: Console,
    fold: int = 0,
    minutes: float | None = None,
    num_workers: int = 1,
) -> Path:
    """Check, plan, preprocess, train and validate; stages that are done are passed over.

    A dataset is checked and planned again when a file was added to it or its dataset.json changed;
    where its plan was made with options, that is left to the user.

    Args:
        dataset: Number or name of a dataset in ``workspace.raw``.
        workspace: nnU-Net's folders.
        console: Where progress is shown.
        fold: Which cases to validate on.
        minutes: Wall-clock budget of the training; None trains the full schedule.
        num_workers: Processes that prepare cases.

    Returns:
        The fold's results folder.

    Raises:
        PlanError: the dataset has changed since it was planned with options.
        VeloxSegError: what the stages raise.
    """
    name = workspace.dataset_name(dataset)
    settings = TrainingSettings(dataset=name, fold=fold, minutes=minutes)
    if is_planned(workspace, name):
        console.print("check, plan: done before")
    else:
        _require_no_options(workspace, name)
        with _stage(console, "check, plan"):
            plan(name, workspace=workspace, num_workers=num_workers)
    _check_fold(workspace, name, fold)
    with _stage(console, "preprocess"):
        preprocess(name, workspace=workspace, num_workers=num_workers)
    return finish_training(settings, workspace=workspace, console=console)


def finish_training(settings: TrainingSettings, *, workspace: Workspace, console: Console) -> Path:
    """Train and validate a fold, go on with it, or leave it as it is when it is done.

    Returns:
        The fold's results folder.

    Raises:
        PlanError: the fold was trained by another plan than the dataset has now.
        VeloxSegError: what training raises.
    """
    name = workspace.dataset_name(settings.dataset)
    folder = fold_folder(workspace, name, settings.fold, network=settings.network)
    check_same_plan(folder.parent, network_plans(workspace, name, settings.network))
    if (folder / FINAL).is_file() and (folder / "validation" / "summary.json").is_file():
        other = _other_budget(settings, read_record(folder), workspace)
        console.print(f"train: done before{other}", soft_wrap=True)
        return folder
    resume = has_begun(folder)
    return train(replace(settings, resume=resume), workspace=workspace, console=console)


def _require_no_options(workspace: Workspace, name: str) -> None:
    """Make sure that planning by the defaults does not undo what the user had planned."""
    file = plans_file(workspace, name)
    if file.is_file() and (options := planned_options(read_plans(workspace, name))):
        raise PlanError(
            f"{file}: made with {options}, and the dataset has changed since. `run` plans without "
            f"options. Plan again, then run: veloxseg plan {name} {options}{workspace.option}"
        )


def _check_fold(workspace: Workspace, name: str, fold: int) -> None:
    """Say before the cases are preprocessed what training would say."""
    raw, splits = workspace.raw / name, workspace.preprocessed / name / SPLITS_FILE
    cases = [case.name for case in find_cases(raw, read_description(raw))]
    check_fold(splits, fold, cases, raw=raw)


def _other_budget(
    settings: TrainingSettings, record: Mapping[str, Any], workspace: Workspace
) -> str:
    """That a budget is given to a training that is done, and was another's."""
    asked, had = settings.minutes, record.get("minutes")
    if asked is None or asked == had:
        return ""
    network = "" if settings.network == VELOXSEG else f" --network {settings.network}"
    command = f"veloxseg train {settings.dataset} {settings.fold}{network} --minutes {asked:g}"
    budget = "no budget" if had is None else f"{had:g} minutes"
    return f", with {budget}. To train it anew: {command} --overwrite{workspace.option}"


def is_planned(workspace: Workspace, name: str) -> bool:
    """Whether the plan is newer than everything in the dataset."""
    plans = plans_file(workspace, name)
    raw = workspace.raw / name
    if not plans.is_file():
        return False
    cases = find_cases(raw, read_description(raw))
    files = [file for case in cases for file in case.files]
    parts = [raw / "dataset.json", raw / "imagesTr", raw / "labelsTr", *files]
    newest = max(part.stat().st_mtime for part in parts if part.exists())
    return newest <= plans.stat().st_mtime


@contextmanager
def _stage(console: Console, title: str) -> Iterator[None]:
    console.print(f"{title} ...")
    started = monotonic()
    yield
    console.print(f"{title}: {monotonic() - started:.0f} s")
