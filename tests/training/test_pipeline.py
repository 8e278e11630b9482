"""What a run of all stages refuses before it begins, and what it leaves to the user."""

import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from planned_dataset import NAME, planned_workspace
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, PlanError, VeloxSegError
from veloxseg.planning.files import planned_options, plans_file, read_plans
from veloxseg.planning.plan import _in_words
from veloxseg.planning.target import DEFAULT_TARGET, parse_target
from veloxseg.training.pipeline import run_stages

QUIET = Console(quiet=True)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return planned_workspace(tmp_path / "my scans", monkeypatch)


def _plan_with(workspace: Workspace, options: str) -> None:
    from veloxseg.planning.planner import VeloxSegPlanner

    planner = VeloxSegPlanner(NAME)
    planner.options = options
    planner.plan_experiment()


def _change_dataset(workspace: Workspace) -> None:
    later = plans_file(workspace, NAME).stat().st_mtime + 10
    os.utime(workspace.raw / NAME / "dataset.json", (later, later))


def test_a_plan_made_with_options_is_not_replaced_by_the_default_one(workspace: Workspace) -> None:
    options = _in_words(parse_target("24gb"), "L", "off", None, None)
    assert options == "--target 24gb --size L --teachers off"
    _plan_with(workspace, options)
    before = plans_file(workspace, NAME).read_bytes()
    _change_dataset(workspace)
    with pytest.raises(PlanError, match=rf"{options} --root '.*my scans'$"):
        run_stages(NAME, workspace=workspace, console=QUIET)
    assert plans_file(workspace, NAME).read_bytes() == before
    assert planned_options(read_plans(workspace, NAME)) == options


def test_the_default_plan_has_no_options_to_lose(workspace: Workspace) -> None:
    assert _in_words(DEFAULT_TARGET, "B", None, None, None) == ""
    assert planned_options(read_plans(workspace, NAME)) == ""


def test_bad_options_are_refused_before_any_stage(workspace: Workspace) -> None:
    _change_dataset(workspace)
    with pytest.raises(VeloxSegError, match="--minutes is -5"):
        run_stages(NAME, workspace=workspace, console=QUIET, minutes=-5)


def test_a_fold_that_there_is_not_is_refused_before_preprocessing(workspace: Workspace) -> None:
    cases = workspace.preprocessed / NAME / "VeloxSegPlans_3d_fullres"
    shutil.rmtree(cases)
    with pytest.raises(DatasetError, match="Fold 7 of 5 cases"):
        run_stages(NAME, workspace=workspace, console=QUIET, fold=7)
    assert not cases.exists()
