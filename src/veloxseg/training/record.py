"""What a run was made of, so that it can be made again."""

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json, write_json
from veloxseg.errors import PlanError
from veloxseg.planning.files import DECISIONS_KEY

_PACKAGES = ("veloxseg", "torch", "nnunetv2", "numpy", "batchgeneratorsv2")


def plan_hash(plans: Mapping[str, Any]) -> str:
    """SHA-256 of a plan's content, whatever the order of its keys and the reasons it gives."""
    configurations = {
        name: {key: value for key, value in configuration.items() if key != DECISIONS_KEY}
        for name, configuration in plans.get("configurations", {}).items()
    }
    content = {**plans, "configurations": configurations}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_same_plan(run: Path, plans: Mapping[str, Any]) -> None:
    """Refuse to mix plans in one results folder.

    Args:
        run: ``TRAINER__PLANS__CONFIGURATION``, the folder above the folds.
        plans: The plan to train by.

    Raises:
        PlanError: a fold was trained there by another plan.
    """
    file = run / "plans.json"
    if not file.is_file() or not any(run.glob("fold_*/checkpoint_*.pth")):
        return
    found, wanted = plan_hash(read_json(file)), plan_hash(plans)
    if found != wanted:
        raise PlanError(
            f"{run}: its folds were trained by another plan ({found[:12]}) than the dataset has "
            f"now ({wanted[:12]}). Move that folder away, or restore its plans.json as the plan."
        )


def read_record(folder: Path) -> dict[str, Any]:
    """What ``write_record`` left; nothing where a run has no record, as nnU-Net's own have none."""
    file = folder / "run.json"
    record: dict[str, Any] = read_json(file) if file.is_file() else {}
    return record


def add_to_record(folder: Path, figures: Mapping[str, Any]) -> None:
    """Put what is known now into ``run.json``, beside what it says already."""
    write_json(folder / "run.json", read_record(folder) | dict(figures))


def write_record(folder: Path, *, plans: Mapping[str, Any], **settings: Any) -> None:
    """Write ``run.json``: settings, versions, plan hash, machine, all sessions' commands."""
    before = read_record(folder) if settings.get("resume") else {}
    earlier = [*before.get("earlier_commands", []), before["command"]] if before else []
    write_json(
        folder / "run.json",
        {
            **settings,
            "plan_sha256": plan_hash(plans),
            "command": sys.argv,
            "earlier_commands": earlier,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": {name: version(name) for name in _PACKAGES},
        },
    )
