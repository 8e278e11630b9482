"""Whether a model of reduced precision segments whole cases as well as the float32 model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import Pipeline, Precision
from veloxseg.bundle.real_cases import ReadCase, read_case
from veloxseg.datasets.cases import Case
from veloxseg.errors import BundleError
from veloxseg.evaluation.metrics import dice
from veloxseg.runtime.backends.backend import Backend
from veloxseg.runtime.labelling import label_case

LARGEST_DROP = 0.002
"""By which the mean foreground Dice may be lower: 0.2 points, less than two trainings differ by."""

Mask = npt.NDArray[np.uint8 | np.uint16]
Progress = Callable[[float, int], None]
"""Called with the number of cases done and that of all."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Masks of a reduced precision against those of float32, on labelled cases.

    Attributes:
        mean_dice: Mean over labels of the mean over cases; nan if no case holds any label.
        mean_dice_float32: Of the float32 model, likewise.
        agreement: Share of voxels with the same label in both masks.
        num_cases: How many cases were segmented.
    """

    mean_dice: float
    mean_dice_float32: float
    agreement: float
    num_cases: int

    @property
    def drop(self) -> float:
        """How much Dice is lost; negative where some is won."""
        return self.mean_dice_float32 - self.mean_dice


def compare_masks(
    float32: Backend,
    reduced: Mapping[Precision, Backend],
    cases: Sequence[Case],
    pipeline: Pipeline,
    *,
    progress: Progress | None = None,
) -> dict[Precision, Comparison]:
    """Segment whole cases with every model and compare.

    Args:
        float32: The model to compare with.
        reduced: The others.
        cases: Labelled ones that training has not seen.
        pipeline: Of the bundle.
        progress: Is told how far it is.
    """
    scores = _Scores(pipeline)
    tallies = {precision: _Tally(_Scores(pipeline)) for precision in reduced}
    for number, one in enumerate(cases):
        if progress is not None:
            progress(number, len(cases))
        case = read_case(one, pipeline)
        expected = label_case(case.image, float32, pipeline).mask
        scores.add(expected, case)
        for precision, engine in reduced.items():
            mask = label_case(case.image, engine, pipeline).mask
            tally = tallies[precision]
            tally.scores.add(mask, case)
            tally.same += int(np.count_nonzero(mask == expected))
            tally.voxels += mask.size
    if progress is not None:
        progress(len(cases), len(cases))
    return {
        precision: Comparison(
            mean_dice=tally.scores.mean(),
            mean_dice_float32=scores.mean(),
            agreement=tally.same / tally.voxels,
            num_cases=len(cases),
        )
        for precision, tally in tallies.items()
    }


def require_accepted(comparisons: Mapping[Precision, Comparison]) -> None:
    """Refuse precisions that lose more than ``LARGEST_DROP``.

    Raises:
        BundleError: one does; all figures are said.
    """
    refused = [p for p, found in comparisons.items() if not found.drop <= LARGEST_DROP]
    if not refused:
        return
    figures = "; ".join(
        f"{precision}: mean Dice {found.mean_dice:.4f}, float32: {found.mean_dice_float32:.4f}"
        for precision, found in comparisons.items()
    )
    num_cases = next(iter(comparisons.values())).num_cases
    raise BundleError(
        f"{', '.join(refused)} loses too much on {num_cases} validation cases ({figures}; the same "
        f"label in {min(comparisons[p].agreement for p in refused):.4%} of the voxels). Expected a "
        f"drop of {LARGEST_DROP:g} or less. Nothing was written. Leave out "
        f"{' '.join(f'--precision {precision}' for precision in refused)}."
    )


class _Scores:
    """Dice of each label or region in each case."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._ignore = pipeline.labels.get("ignore")
        self._values = [
            value if isinstance(value, tuple) else (value,)
            for value in pipeline.foreground.values()
        ]
        self._dice: list[list[float]] = [[] for _ in self._values]

    def add(self, mask: npt.NDArray[Any], case: ReadCase) -> None:
        counted = case.labels != (-1 if self._ignore is None else self._ignore)
        for values, scores in zip(self._values, self._dice, strict=True):
            predicted = np.isin(mask, values) & counted
            scores.append(dice(predicted, np.isin(case.labels, values) & counted))

    def mean(self) -> float:
        """Mean over labels of the mean over cases; a label undefined throughout is left out."""
        defined = [[d for d in scores if not np.isnan(d)] for scores in self._dice]
        means = [np.mean(scores) for scores in defined if scores]
        return float(np.mean(means)) if means else float("nan")


@dataclass(kw_only=False)
class _Tally:
    scores: _Scores
    same: int = field(default=0)
    voxels: int = field(default=0)
