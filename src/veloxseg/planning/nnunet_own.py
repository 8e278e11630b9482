"""nnU-Net's own plan of a dataset, by its own planner."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from veloxseg.errors import PlanError
from veloxseg.planning.files import CONFIGURATION
from veloxseg.quiet import printing_to_log

_WORKERS = "nnUNet_n_proc_DA"


class _Planner(ExperimentPlanner):  # type: ignore[misc]
    """nnU-Net's planner, which leaves its plan to the caller instead of a file."""

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Make plain JSON values of the plan, as writing it would."""
        recursive_fix_for_json_export(plans)


def plan_by_nnunet(name: str, *, plans_name: str) -> dict[str, Any]:
    """The 3-D plan at full resolution that nnU-Net makes for a GPU of 8 GB, its default.

    Args:
        name: Full name of a dataset whose fingerprint is extracted.
        plans_name: How the plan is named.

    Raises:
        PlanError: the dataset is not three-dimensional.
    """
    with printing_to_log(), _planning_threads():
        plans: dict[str, Any] = _Planner(name, plans_name=plans_name).plan_experiment()
    if CONFIGURATION not in plans["configurations"]:
        raise PlanError(
            f"{name}: its median case has a single slice, so nnU-Net plans no 3-D network for it."
        )
    plans["configurations"] = {CONFIGURATION: plans["configurations"][CONFIGURATION]}
    plain: dict[str, Any] = json.loads(json.dumps(plans))  # no tuples, so that plans compare
    return plain


@contextmanager
def _planning_threads() -> Iterator[None]:
    """Let nnU-Net's planner have a thread: it takes as many as there are augmenting processes."""
    before = os.environ.get(_WORKERS)
    if before == "0":
        os.environ[_WORKERS] = "1"
    try:
        yield
    finally:
        if before is not None:
            os.environ[_WORKERS] = before
