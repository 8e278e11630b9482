"""A run's postprocessing, chosen on the masks of its validation.

Targets are taken in nnU-Net's order: the whole foreground, then each label or region as
dataset.json has them; what one target's step removes is gone for the next.
Source: nnU-Net (Isensee et al., 2021), ``determine_postprocessing``.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from veloxseg import __version__
from veloxseg.atomic import write_json
from veloxseg.bundle.format import PostprocessingStep
from veloxseg.bundle.postprocessing import RECORD, PostprocessingRecord, TriedStep, hash_checkpoint
from veloxseg.datasets.workspace import Workspace
from veloxseg.evaluation.label_set import Label, foreground_names, ignored_value, members
from veloxseg.evaluation.pairing import MaskPair
from veloxseg.evaluation.postprocessing.counting import CaseCounts, CountCase, Target
from veloxseg.evaluation.postprocessing.judging import (
    MARGIN,
    NUM_STANDARD_ERRORS,
    Decision,
    choose_step,
)
from veloxseg.evaluation.postprocessing.validation_masks import find_validation_masks
from veloxseg.evaluation.spreading import spread
from veloxseg.training.runs import find_run

NUM_GROUPS = 5
"""Groups that the cases of a single fold are dealt to, in the order of their names."""

WHOLE = "whole foreground"
"""Name of the target of all labels; ``mean`` in the record is of them all, too."""

Progress = Callable[[int, int], None]


def postprocess(
    run: str | Path,
    *,
    workspace: Workspace | None = None,
    references: Path | None = None,
    num_workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Choose what to remove from a run's masks, and write it beside its folds.

    Args:
        run: A results folder (or one fold of it), or ``DATASET`` or ``DATASET/FOLD`` for the newest
            run. All finished folds are taken together, or the one that is named.
        workspace: Where a dataset's runs and references are looked up; a folder needs none.
        references: Folder of the references; None takes ``labelsTr`` of the dataset.
        num_workers: Processes at most; a few small cases are counted in this one.
        progress: Called with the number of cases counted and that of all, for each round.

    Returns:
        Its ``postprocessing.json``, which `veloxseg.bundle.postprocessing.read_record` reads.

    Raises:
        BundleError: there is no such run, it is unfinished, or its validation is.
        DatasetError: a mask has no reference, or holds a value that is no label, or two folds have
            masks of one case.
        GeometryError: a mask and its reference lie on different grids.
        ImageReadError: a mask cannot be read.
    """
    trained = find_run(run, workspace=workspace)
    pairs = find_validation_masks(trained, workspace=workspace, references=references)
    # A training that ends meanwhile must not pass for the one whose masks are judged.
    checkpoints = {f: hash_checkpoint(trained, f) for f in trained.folds if isinstance(f, int)}
    labels = trained.description.labels
    choice = choose_steps(
        pairs,
        foreground_names(labels),
        ignore_label=ignored_value(labels),
        num_workers=num_workers,
        progress=progress,
    )
    file = trained.folder / RECORD
    write_json(file, _record(choice, num_cases=len(pairs), checkpoints=checkpoints).to_json())
    return file


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen on some masks.

    Attributes:
        steps: To take, in this order.
        tried: Every step tried.
        skipped: Target to why nothing was tried.
        dice_before: Mean Dice of each label and of all (``mean``) without the steps.
        dice_after: With them.
        held_out_gain: Of the mean over all labels, the steps' added.
    """

    steps: tuple[PostprocessingStep, ...]
    tried: tuple[TriedStep, ...]
    skipped: Mapping[str, str]
    dice_before: Mapping[str, float]
    dice_after: Mapping[str, float]
    held_out_gain: float


def choose_steps(
    pairs: Sequence[MaskPair],
    names: Mapping[Label, str],
    *,
    ignore_label: int | None = None,
    num_workers: int = 1,
    progress: Progress | None = None,
) -> Choice:
    """Choose on pairs of masks; the arguments beside are those of `postprocess`.

    Args:
        pairs: Predictions and references; their folds are held out in turn.
        names: Labels and regions to their names.
        ignore_label: Reference value whose voxels count for nothing; None where there is none.
        num_workers: Processes at most.
        progress: Called after each case.
    """
    targets = targets_of(names)
    groups = _groups(pairs)

    def count(remaining: Sequence[Target]) -> list[CaseCounts]:
        work = CountCase(
            labels=tuple(names),
            targets=tuple(remaining),
            ignore_label=ignore_label,
            steps=tuple(steps),
        )
        return spread(work, pairs, num_workers=num_workers, progress=progress)

    steps: list[PostprocessingStep] = []
    decisions: list[Decision] = []
    skipped: dict[str, str] = {}
    cases = count(targets)
    before = _mean_dice(cases, names)
    counted_from = 0
    for place, target in enumerate(targets):
        if not any(case.targets[place - counted_from].lesions_ml.size for case in cases):
            skipped[target.name] = "no case's reference has any"
            continue
        decision = choose_step(
            target,
            place - counted_from,
            cases,
            groups=groups,
            label_names=list(names.values()),
        )
        decisions.append(decision)
        if decision.step is not None:
            steps.append(decision.step)
            counted_from = place + 1
            cases = count(targets[counted_from:])
    return Choice(
        steps=tuple(steps),
        tried=tuple(step for decision in decisions for step in decision.tried),
        skipped=skipped,
        dice_before=before,
        dice_after=_mean_dice(cases, names),
        held_out_gain=sum(decision.held_out_gain for decision in decisions),
    )


def targets_of(names: Mapping[Label, str]) -> list[Target]:
    """The whole foreground, then each label or region that is not the same as one before."""
    every = tuple(sorted({value for label in names for value in members(label)}))
    targets = {
        every: Target(name=WHOLE, values=every, judged=tuple(range(len(names)))),
    }
    for place, (label, name) in enumerate(names.items()):
        values = tuple(sorted(members(label)))
        targets.setdefault(values, Target(name=name, values=values, judged=(place,)))
    return list(targets.values())


def _groups(pairs: Sequence[MaskPair]) -> list[int]:
    folds = [pair.fold for pair in pairs]
    if len(set(folds)) > 1:
        return [-1 if fold is None else fold for fold in folds]
    return [place % NUM_GROUPS for place in range(len(pairs))]


def _mean_dice(cases: Sequence[CaseCounts], names: Mapping[Label, str]) -> dict[str, float]:
    mean: npt.NDArray[np.float64] = np.array([case.dice for case in cases]).mean(axis=0)
    return {"mean": float(mean.mean()), **dict(zip(names.values(), mean.tolist(), strict=True))}


def _record(
    choice: Choice, *, num_cases: int, checkpoints: Mapping[int, str]
) -> PostprocessingRecord:
    return PostprocessingRecord(
        steps=choice.steps,
        folds=tuple(checkpoints),
        num_cases=num_cases,
        checkpoints={str(fold): digest for fold, digest in checkpoints.items()},
        groups="folds" if len(checkpoints) > 1 else "cases",
        dice_before=choice.dice_before,
        dice_after=choice.dice_after,
        held_out_gain=choice.held_out_gain,
        margin=MARGIN,
        num_standard_errors=NUM_STANDARD_ERRORS,
        tried=choice.tried,
        skipped=choice.skipped,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={
            "veloxseg": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    )
