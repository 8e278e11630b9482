"""Cases unlike the rest of the dataset: in spacing, extent, or the sense of their axes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from veloxseg.datasets.checking.case import CheckedCase
from veloxseg.datasets.description import DatasetDescription
from veloxseg.datasets.problems import Kind, Problem
from veloxseg.shortening import name_cases
from veloxseg.volumes.orientation import turn_to_ras
from veloxseg.volumes.volume import Grid

FEWEST_CASES = 5
"""Of fewer it cannot be said which is the odd one."""

SPACING_FACTOR = 1.5
"""A spacing that differs less from the median is never an outlier."""

EXTENT_FACTOR = 3.0
"""An extent in mm that differs less from the median is never an outlier: fields of view vary."""

OUTLYING_DEVIATIONS = 5.0
"""Distance from the median, of logarithms, in robust standard deviations (1.4826 MAD)."""

_AXES = ("feet to head", "back to front", "left to right")


def check_consistency(
    cases: Sequence[CheckedCase], description: DatasetDescription
) -> Iterator[Problem]:
    """Warn of cases whose grid is unlike that of the others.

    A spacing or an extent is an outlier when it differs from the dataset's median, along one of the
    patient's axes, by more than a factor and by more than ``OUTLYING_DEVIATIONS``.
    """
    placed = [(checked, checked.grid) for checked in cases if checked.grid is not None]
    yield from _outliers(
        placed,
        _spacing_along_patient,
        kind="spacing_outlier",
        factor=SPACING_FACTOR,
        what="spacing",
        advice="Compare the header with the scan's report.",
    )
    yield from _outliers(
        placed,
        _extent_along_patient,
        kind="extent_outlier",
        factor=EXTENT_FACTOR,
        what="extent",
        advice="Look whether slices are missing or the spacing is wrong.",
    )
    if description.overwrite_image_reader_writer != "NibabelIOWithReorient":
        yield from _odd_orientations(placed)
    yield from _without_place(cases)


def orientation(grid: Grid) -> str:
    """Where x, y and z grow to, in three letters: ``LPS`` is to left, posterior, superior."""
    turn = turn_to_ras(grid)
    letters = {}
    for turned, (stored, is_reversed) in enumerate(
        zip(turn.axes_zyx, turn.reversed_zyx, strict=True)
    ):
        letters[stored] = ("SI", "AP", "RL")[turned][is_reversed]
    return "".join(letters[stored] for stored in (2, 1, 0))


def _spacing_along_patient(grid: Grid) -> list[float]:
    return [grid.spacing_zyx[axis] for axis in turn_to_ras(grid).axes_zyx]


def _extent_along_patient(grid: Grid) -> list[float]:
    return [grid.spacing_zyx[axis] * grid.size_zyx[axis] for axis in turn_to_ras(grid).axes_zyx]


def _outliers(
    placed: Sequence[tuple[CheckedCase, Grid]],
    measure: Callable[[Grid], list[float]],
    *,
    kind: Kind,
    factor: float,
    what: str,
    advice: str,
) -> Iterator[Problem]:
    if len(placed) < FEWEST_CASES:
        return
    lengths_mm = np.array([measure(grid) for _, grid in placed])  # (cases, 3)
    median_mm = np.median(lengths_mm, axis=0)
    away = np.abs(np.log(lengths_mm / median_mm))
    deviation = 1.4826 * np.median(away, axis=0)
    outlying = (away > np.log(factor)) & (away > OUTLYING_DEVIATIONS * deviation)
    for (checked, _), lengths, is_out in zip(placed, lengths_mm, outlying, strict=True):
        axes = np.flatnonzero(is_out)
        if axes.size:
            axis = int(axes[0])
            yield Problem(
                case=checked.case.name,
                severity="warning",
                message=f"Case {checked.title}: its {what} from {_AXES[axis]} is "
                f"{lengths[axis]:.4g} mm; the median of the dataset is {median_mm[axis]:.4g} mm. "
                f"Expected one nearer to it. {advice}",
                kind=kind,
                numbers={
                    f"{what}_zyx_mm": lengths.round(6).tolist(),
                    f"median_{what}_zyx_mm": median_mm.round(6).tolist(),
                },
            )


def _odd_orientations(placed: Sequence[tuple[CheckedCase, Grid]]) -> Iterator[Problem]:
    by_orientation: dict[str, list[str]] = defaultdict(list)
    for checked, grid in placed:
        by_orientation[orientation(grid)].append(checked.title)
    if len(by_orientation) < 2:
        return
    counts = Counter({letters: len(names) for letters, names in by_orientation.items()})
    usual = min(counts, key=lambda letters: (-counts[letters], letters))
    for letters, names in sorted(by_orientation.items()):
        if letters != usual:
            yield Problem(
                case=None,
                severity="warning",
                message=f"{name_cases(names, capital=True)}: the axes run to {letters} (x, y, z), "
                f"in {counts[usual]} others to {usual}. Expected one orientation: nnU-Net reads "
                "voxels as they are stored, so that these are flipped or turned to it. Set "
                '"overwrite_image_reader_writer": "NibabelIOWithReorient" in dataset.json, or '
                "look whether their headers are right.",
                kind="orientation_differs",
                numbers={"orientation": letters, "usual": usual, "cases": names},
            )


def _without_place(cases: Sequence[CheckedCase]) -> Iterator[Problem]:
    names = [checked.title for checked in cases if not checked.has_place]
    if names:
        yield Problem(
            case=None,
            severity="warning",
            message=f"{name_cases(names, capital=True)}: the NIfTI header has neither qform nor "
            "sform (both codes are 0). Expected the image's place and orientation; left and right "
            "cannot be told. Convert from the source again, if it is at hand.",
            kind="no_place",
            numbers={"cases": names},
        )
