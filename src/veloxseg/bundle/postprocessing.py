"""What was chosen as a run's postprocessing: the record beside its folds, and whether it holds."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from veloxseg.atomic import read_json
from veloxseg.bundle.format import PostprocessingStep
from veloxseg.errors import BundleError
from veloxseg.training.runs import FINAL, Run
from veloxseg.validation import describe_faults

RECORD = "postprocessing.json"
"""In the folder of a trained configuration, beside its plans.json."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TriedStep(_Strict):
    """A step that was tried, after those used before it.

    Attributes:
        target: Label or region whose components were looked at, or ``whole foreground``.
        step: What would be done.
        dice_before: Mean Dice of the target without it.
        gain: What the step adds to it.
        standard_error: Of the gain, over the cases; None for one case.
        num_better: Cases whose Dice rises.
        num_worse: Cases whose Dice falls.
        num_removed: Components removed in all cases.
        num_removed_true: Of these, those with a voxel in the reference.
        held_out_gain: Of the best step of a target: what the choice gains in groups of cases that
            it did not see.
        used: Whether the step is one of those chosen.
        reason: Why it is not; empty if it is.
    """

    target: str
    step: PostprocessingStep
    dice_before: float
    gain: float
    standard_error: float | None
    num_better: int
    num_worse: int
    num_removed: int
    num_removed_true: int
    held_out_gain: float | None = None
    used: bool = False
    reason: str = ""


class PostprocessingRecord(_Strict):
    """How a run's postprocessing was chosen.

    Attributes:
        steps: To take, in this order; none if nothing gained enough.
        folds: Whose validation cases it was chosen on.
        num_cases: How many these are.
        checkpoints: Fold to the SHA-256 of the checkpoint that made its masks.
        groups: What was held out in turn: ``folds``, or ``cases`` of one fold dealt to groups.
        dice_before: Mean Dice of each label or region and of all, without postprocessing. A label
            that neither mask of a case has counts as 1.
        dice_after: The same with all steps.
        held_out_gain: Of the mean over all: the held-out gains of the steps used, added.
        margin: What a step had to gain at least.
        num_standard_errors: And how many of its standard errors.
        tried: Every step that was tried.
        skipped: Target to why nothing was tried.
        created: Date and time, ISO 8601, UTC.
        versions: Of the packages that made it.
    """

    steps: tuple[PostprocessingStep, ...]
    folds: tuple[int, ...]
    num_cases: int
    checkpoints: Mapping[str, str]
    groups: str
    dice_before: Mapping[str, float]
    dice_after: Mapping[str, float]
    held_out_gain: float
    margin: float
    num_standard_errors: float
    tried: tuple[TriedStep, ...]
    skipped: Mapping[str, str]
    created: str
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return self.model_dump(mode="json")


@dataclass(frozen=True, kw_only=True)
class FoundPostprocessing:
    """What a run has.

    Attributes:
        steps: To take; none where there is no record for the folds.
        note: The same in words, for the user.
    """

    steps: tuple[PostprocessingStep, ...]
    note: str


def read_record(path: Path) -> PostprocessingRecord:
    """Read what was chosen.

    Raises:
        BundleError: the file is none that this version knows.
        VeloxSegError: it is cut short.
        FileNotFoundError: there is none.
    """
    try:
        return PostprocessingRecord.model_validate(read_json(path))
    except ValidationError as error:
        raise BundleError(
            f"{path}: no record of a postprocessing ({describe_faults(error)}). Choose it again: "
            "veloxseg postprocess RUN, or remove the file."
        ) from error


def find_postprocessing(run: Run) -> FoundPostprocessing:
    """The postprocessing that was chosen for just these folds and checkpoints.

    Raises:
        BundleError: it was chosen on masks of other checkpoints, or its record cannot be read.
    """
    path = run.folder / RECORD
    if not path.is_file():
        return FoundPostprocessing(
            steps=(),
            note="none: none was chosen. Choose it by cross-validation: veloxseg postprocess RUN",
        )
    record = read_record(path)
    if record.folds != run.folds:
        return FoundPostprocessing(
            steps=(),
            note=f"none: {path} was chosen on folds {_listed(record.folds)}, exported are "
            f"{_listed(run.folds)}. Choose it for these: veloxseg postprocess RUN",
        )
    if changed := [
        fold
        for fold in run.folds
        if hash_checkpoint(run, fold) != record.checkpoints.get(str(fold))
    ]:
        raise BundleError(
            f"{path}: was chosen on masks of other checkpoints of fold {_listed(changed)} than "
            "there are now. Choose it again: veloxseg postprocess RUN, or export without: "
            "--no-postprocessing."
        )
    if not record.steps:
        return FoundPostprocessing(
            steps=(), note=f"none: no step gained enough on {record.num_cases} validation cases"
        )
    steps = "; ".join(describe_step(step) for step in record.steps)
    return FoundPostprocessing(
        steps=record.steps,
        note=f"{steps} (Dice {record.held_out_gain:+.4f} on held-out validation cases)",
    )


def hash_checkpoint(run: Run, fold: int | str) -> str:
    """SHA-256 of a fold's final checkpoint."""
    digest = hashlib.sha256()
    with (run.folder / f"fold_{fold}" / FINAL).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def describe_step(step: PostprocessingStep) -> str:
    """A step in words."""
    labels = f"label{'s' if len(step.labels) > 1 else ''} {_listed(step.labels)}"
    if step.kind == "keep_largest":
        return f"keep the largest component of {labels}"
    return f"remove components of {labels} below {step.minimum_ml:g} ml"


def _listed(values: Sequence[int | str]) -> str:
    return ", ".join(map(str, values))
