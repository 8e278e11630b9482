"""The files that planning and preprocessing leave for the stages after them."""

import json
from pathlib import Path
from typing import Any

from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import PlanError

CONFIGURATION = "3d_fullres"
PLANS_NAME = "VeloxSegPlans"


def read_plans(workspace: Workspace, name: str) -> dict[str, Any]:
    """The VeloxSeg plan of a dataset.

    Raises:
        PlanError: there is none, or it cannot be read.
    """
    file = workspace.preprocessed / name / f"{PLANS_NAME}.json"
    try:
        plans: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        raise PlanError(f"{file}: no plan. Make one first: veloxseg plan {name}") from None
    except ValueError as error:
        raise PlanError(f"{file}: not a JSON file ({error}). Plan again: veloxseg plan.") from error
    return plans


def read_mark(folder: Path) -> dict[str, Any] | None:
    """What a folder of preprocessed cases was made by; None while it is not whole."""
    file = mark_file(folder)
    return json.loads(file.read_text()) if file.is_file() and folder.is_dir() else None


def mark_file(folder: Path) -> Path:
    """Where that is written: beside the folder: nnU-Net allows nothing but cases in it."""
    return folder.with_name(f"{folder.name}.made_by.json")
