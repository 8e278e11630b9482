"""Whether a step gains enough on a target, and which one most.

A step is chosen on the cases that it is judged by, so that some step nearly always seems to gain.
Four things guard against that. It must gain more than ``MARGIN`` and more than
``NUM_STANDARD_ERRORS`` of its standard errors; no label's mean Dice may fall; and the choice,
made without one group of cases and then tried on it, must gain over all groups.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import PostprocessingStep
from veloxseg.bundle.postprocessing import TriedStep
from veloxseg.evaluation.postprocessing.candidates import candidate_steps
from veloxseg.evaluation.postprocessing.counting import CaseCounts, Target

MARGIN = 0.001
"""Mean Dice that a step must gain: a tenth of a point."""

NUM_STANDARD_ERRORS = 1.645
"""A gain of chance alone is above it once in twenty times. Where some cases gain alike and the
others nothing, it takes three of them."""

MIN_CASES = 5
"""Of fewer cases nothing is chosen."""

_EXACT = 1e-12
"""Differences of Dice below are rounding."""

_Differences = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was found for a target.

    Attributes:
        tried: Every candidate; the best one says whether it is used.
        step: The one used; None if none is.
        held_out_gain: Of the mean over all labels, in cases that the choice did not see.
    """

    tried: tuple[TriedStep, ...] = ()
    step: PostprocessingStep | None = None
    held_out_gain: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    """A step and what it does: (cases, labels) differences of Dice."""

    step: PostprocessingStep
    differences: _Differences
    judged: tuple[int, ...]

    @property
    def target_differences(self) -> _Differences:
        """(cases) differences of the target's Dice."""
        mean: _Differences = self.differences[:, list(self.judged)].mean(axis=1)
        return mean

    def of_cases(self, chosen: npt.NDArray[np.bool_]) -> "_Candidate":
        return _Candidate(step=self.step, differences=self.differences[chosen], judged=self.judged)


def choose_step(
    target: Target,
    place: int,
    cases: Sequence[CaseCounts],
    *,
    groups: Sequence[int],
    label_names: Sequence[str],
) -> Decision:
    """Try every candidate on a target.

    Args:
        target: Whose components.
        place: Of the target in the cases' counts.
        cases: All of them, with what was used before.
        groups: Each case's group, one of which is held out at a time.
        label_names: Of the labels that Dice is about.
    """
    before = np.array([case.dice for case in cases])
    candidates = [
        _Candidate(
            step=step,
            differences=np.array([case.dice_after(place, step) for case in cases]) - before,
            judged=target.judged,
        )
        for step in candidate_steps(target, place, cases)
    ]
    best = _best(candidates)
    reason, held_out = _objection(best, label_names), None
    if not reason and len(cases) < MIN_CASES:
        reason = f"fewer than {MIN_CASES} cases"
    if not reason:
        held_out = _held_out(candidates, np.asarray(groups))
        if held_out[:, list(target.judged)].mean() <= _EXACT:
            reason = "gains nothing on held-out cases"
    tried = [
        _tried(
            candidate,
            target,
            cases,
            place=place,
            dice_before=float(before[:, list(target.judged)].mean()),
            reason=reason if candidate is best else _lesser(candidate, label_names),
            used=candidate is best and not reason,
            held_out=held_out if candidate is best else None,
        )
        for candidate in candidates
    ]
    if reason or held_out is None:
        return Decision(tried=tuple(tried))
    return Decision(tried=tuple(tried), step=best.step, held_out_gain=float(held_out.mean()))


def _best(candidates: Sequence[_Candidate]) -> _Candidate:
    """The largest gain of those that lower no label; of equal ones the first, which removes least.

    If all lower one, the largest gain.
    """
    harmless = [one for one in candidates if not _lowered(one)]
    best, *others = harmless or candidates
    for candidate in others:
        if candidate.target_differences.mean() > best.target_differences.mean() + _EXACT:
            best = candidate
    return best


def _lowered(candidate: _Candidate) -> list[int]:
    """Labels whose mean Dice falls."""
    return [int(label) for label in np.flatnonzero(candidate.differences.mean(axis=0) < -_EXACT)]


def _objection(candidate: _Candidate, label_names: Sequence[str]) -> str:
    """Why a step is not to be used on these cases; empty if it is."""
    differences = candidate.target_differences
    gain = differences.mean()
    if gain <= _EXACT:
        return "gains nothing"
    if lowered := _lowered(candidate):
        return f"lowers {', '.join(label_names[label] for label in lowered)}"
    if gain <= MARGIN:
        return f"gains no more than {MARGIN:g}"
    if gain <= NUM_STANDARD_ERRORS * _standard_error(differences):
        return f"gain within {NUM_STANDARD_ERRORS:.2g} standard errors"
    return ""


def _lesser(candidate: _Candidate, label_names: Sequence[str]) -> str:
    return _objection(candidate, label_names) or "another gains as much or more"


def _standard_error(differences: _Differences) -> float:
    """Of the mean; infinite for one case, which tells nothing of others."""
    if len(differences) < 2:
        return math.inf
    return float(differences.std(ddof=1) / np.sqrt(len(differences)))


def _held_out(candidates: Sequence[_Candidate], groups: npt.NDArray[np.int64]) -> _Differences:
    """(cases, labels) differences where each group's step is chosen by the same rules without it.

    Where nothing is chosen, they are 0.
    """
    differences = np.zeros_like(candidates[0].differences)
    for group in np.unique(groups):
        seen = groups != group
        there = [candidate.of_cases(seen) for candidate in candidates]
        best = _best(there)
        if not _objection(best, [str(place) for place in range(differences.shape[1])]):
            whole = candidates[there.index(best)]
            differences[~seen] = whole.differences[~seen]
    return differences


def _tried(
    candidate: _Candidate,
    target: Target,
    cases: Sequence[CaseCounts],
    *,
    place: int,
    dice_before: float,
    reason: str,
    used: bool,
    held_out: _Differences | None,
) -> TriedStep:
    differences = candidate.target_differences
    error = _standard_error(differences)
    removed = [~case.kept(place, candidate.step) for case in cases]
    true = [case.targets[place].is_true for case in cases]
    return TriedStep(
        target=target.name,
        step=candidate.step,
        dice_before=dice_before,
        gain=float(differences.mean()),
        standard_error=None if math.isinf(error) else error,
        num_better=int((differences > _EXACT).sum()),
        num_worse=int((differences < -_EXACT).sum()),
        num_removed=sum(int(one.sum()) for one in removed),
        num_removed_true=sum(
            int((one & hit).sum()) for one, hit in zip(removed, true, strict=True)
        ),
        held_out_gain=None if held_out is None else float(held_out[:, list(target.judged)].mean()),
        used=used,
        reason=reason,
    )
