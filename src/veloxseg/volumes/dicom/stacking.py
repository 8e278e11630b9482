"""Slices to a stack: their order, what is doubled or missing, and the regular grid they go to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from veloxseg.errors import GeometryError
from veloxseg.volumes.dicom.slices import COSINE_TOLERANCE, DicomSlice
from veloxseg.volumes.volume import CORNER_TOLERANCE_MM, Grid

SAME_POSITION_MM = 0.01
"""Slices whose planes are no farther apart lie at one position."""

HOLE_GAPS = 1.5
"""A gap of so many usual ones is a hole: one missing slice makes two of one."""

LARGEST_TILT_DEGREES = 45.0
"""Gantries tilt by 30 at most; beyond this, the orientation contradicts the positions."""

MOST_LAYERS = 10_000
"""Ten metres of patient in millimetres: more is a broken header, which must not fill the memory."""

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The slices of a series in the order of their positions, and a regular grid for them.

    Attributes:
        layers: The slices at each position, rising along the normal: more than one where they are
            doubled, whose pixels :func:`veloxseg.volumes.dicom.doubles.require_identical` compares.
        indices_zyx: (N, 3) where the first voxel of each layer lies on ``grid``, in its voxels.
        grid: Perpendicular and equidistant: first and last layers lie on its own, and it is wide
            enough for layers that are shifted in their plane.
        notes: What was found and done, in words; empty for a plain stack.
    """

    layers: tuple[tuple[DicomSlice, ...], ...]
    indices_zyx: npt.NDArray[np.float64]
    grid: Grid
    notes: tuple[str, ...]

    @property
    def is_regular(self) -> bool:
        """Whether every layer lies on one of the grid's own, so that nothing is interpolated."""
        if len(self.layers) != self.grid.size_zyx[0]:
            return False
        expected = np.zeros_like(self.indices_zyx)
        expected[:, 0] = np.arange(len(self.layers))
        apart_mm = np.abs(self.indices_zyx - expected) * self.grid.spacing_zyx
        return bool(apart_mm.max() <= CORNER_TOLERANCE_MM)


def stack_slices(
    slices: Sequence[DicomSlice], *, where: str, interpolate_gaps: bool = False
) -> Stack:
    """Put the slices of one series in order and find the grid that they lie on.

    Positions along the normal decide the order, never names or numbers. Gaps that vary a little
    give an equidistant grid of the mean gap, from the first slice to the last. Slices that are
    shifted in their plane (gantry tilt) give a perpendicular grid that holds all of them.

    Args:
        slices: Slices of one size, spacing and orientation, in any order.
        where: What to call the series in messages.
        interpolate_gaps: Whether missing slices may be filled by interpolation.

    Raises:
        GeometryError: fewer than two positions, an orientation that is not orthonormal, differs
            between slices or contradicts the positions, or a hole that may not be filled.
    """
    axes = slices[0].axes()
    _require_one_orientation(slices, axes, where)
    row_column_normal = np.array([one.position_xyz for one in slices]) @ axes.T
    order = np.argsort(row_column_normal[:, 2], kind="stable")
    layers = _layers(order, row_column_normal[:, 2])
    places = np.array([row_column_normal[layer[0]] for layer in layers])
    notes = _describe_doubles(layers)
    _require_stacked(places, row_column_normal, slices, where)
    count = _count_of_grid(places[:, 2], where, interpolate_gaps, notes)
    grid, indices_zyx = _grid_of(places, count, axes, slices[0])
    stack = Stack(
        layers=tuple(tuple(slices[index] for index in layer) for layer in layers),
        indices_zyx=indices_zyx,
        grid=grid,
        notes=(),
    )
    if not stack.is_regular:
        notes += _describe_irregularity(places, stack)
    return Stack(layers=stack.layers, indices_zyx=indices_zyx, grid=grid, notes=tuple(notes))


def _require_one_orientation(
    slices: Sequence[DicomSlice], axes: npt.NDArray[np.float64], where: str
) -> None:
    for one in slices[1:]:
        if not np.allclose(one.axes(), axes, rtol=0, atol=COSINE_TOLERANCE):
            raise GeometryError(
                f"{where}: Image Orientation (Patient) differs between slices: {slices[0].where} "
                f"has {_cosines(slices[0])}, {one.where} has {_cosines(one)}. Expected one for "
                "all. Export the series again, or leave the odd slices out."
            )


def _layers(order: npt.NDArray[np.intp], along_normal: npt.NDArray[np.float64]) -> list[list[int]]:
    layers: list[list[int]] = []
    for index in (int(index) for index in order):
        close = layers and along_normal[index] - along_normal[layers[-1][0]] <= SAME_POSITION_MM
        if close:
            layers[-1].append(index)
        else:
            layers.append([index])
    return layers


def _describe_doubles(layers: Sequence[Sequence[int]]) -> list[str]:
    doubled = sum(len(layer) - 1 for layer in layers)
    return [f"{doubled} doubled slices, identical, left out"] if doubled else []


def _require_stacked(
    places: npt.NDArray[np.float64],
    all_places: npt.NDArray[np.float64],
    slices: Sequence[DicomSlice],
    where: str,
) -> None:
    """Positions must advance along the normal, not within the plane."""
    spread = np.ptp(all_places, axis=0)
    sideways = float(np.hypot(spread[0], spread[1]))
    if sideways > spread[2] * np.tan(np.radians(LARGEST_TILT_DEGREES)) + SAME_POSITION_MM:
        raise GeometryError(
            f"{where}: Image Orientation (Patient) {_cosines(slices[0])} contradicts the "
            f"positions, which advance {sideways:.4g} mm within the image plane and "
            f"{spread[2]:.4g} mm across it. Expected slices stacked along their normal. "
            "The orientation tag is wrong: export the series again from the original."
        )
    if len(places) < 2:
        raise GeometryError(
            f"{where}: {len(slices)} slices at one position. Expected a stack of two or more. "
            "Leave the series out by a rule."
        )


def _count_of_grid(
    along_normal: npt.NDArray[np.float64],
    where: str,
    interpolate_gaps: bool,
    notes: list[str],
) -> int:
    """Number of equidistant layers from the first to the last position."""
    gaps = np.diff(along_normal)
    usual = float(np.median(gaps))
    holes = np.flatnonzero(gaps > HOLE_GAPS * usual)
    if holes.size == 0:
        return len(along_normal)
    missing = int(sum(max(1, round(gaps[hole] / usual) - 1) for hole in holes))
    found = "; ".join(
        f"{gaps[hole]:.4g} mm after position {along_normal[hole]:.6g} mm" for hole in holes[:_SHOWN]
    )
    text = (
        f"{holes.size} gaps between slices are far wider than the usual {usual:.4g} mm ({found}"
        f"{'; ...' if holes.size > _SHOWN else ''})"
    )
    if not interpolate_gaps:
        raise GeometryError(
            f"{where}: {text}: about {missing} slices are missing. Expected none. "
            "Find the missing files, or accept interpolated slices: --interpolate-gaps."
        )
    count = round(float(along_normal[-1] - along_normal[0]) / usual) + 1
    if count > MOST_LAYERS:
        raise GeometryError(
            f"{where}: {text}, which would make {count} slices. Expected {MOST_LAYERS} at most. "
            "A position is wrong: export the series again."
        )
    notes.append(f"{text}; about {missing} missing slices interpolated")
    return count


def _grid_of(
    places: npt.NDArray[np.float64], count: int, axes: npt.NDArray[np.float64], first: DicomSlice
) -> tuple[Grid, npt.NDArray[np.float64]]:
    """The grid, and the (N, 3) z, y, x indices of the layers' first voxels on it."""
    spacing_xyz = np.array(
        [
            first.spacing_yx[1],
            first.spacing_yx[0],
            (places[-1, 2] - places[0, 2]) / (count - 1),
        ]
    )
    size_xyz = np.array([first.size_yx[1], first.size_yx[0], count])
    start = places[0].copy()
    # Rounding moves slices by micrometres, a tilted gantry by whole voxels: only that widens.
    drift = (places - places[0])[:, :2]
    if np.abs(drift).max() > CORNER_TOLERANCE_MM:
        before = np.floor((drift.min(axis=0) + CORNER_TOLERANCE_MM) / spacing_xyz[:2])
        after = np.ceil((drift.max(axis=0) - CORNER_TOLERANCE_MM) / spacing_xyz[:2])
        start[:2] += before * spacing_xyz[:2]
        size_xyz[:2] += (after - before).astype(int)
    origin = start @ axes
    grid = Grid(
        size_zyx=(int(size_xyz[2]), int(size_xyz[1]), int(size_xyz[0])),
        spacing_zyx=(float(spacing_xyz[2]), float(spacing_xyz[1]), float(spacing_xyz[0])),
        origin_xyz=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(cosine) for cosine in axes.T.flat),
    )
    indices: npt.NDArray[np.float64] = ((places - start) / spacing_xyz)[:, ::-1]
    return grid, indices


def _describe_irregularity(places: npt.NDArray[np.float64], stack: Stack) -> list[str]:
    gaps = np.diff(places[:, 2])
    sideways = np.abs((places - places[0])[:, :2]).max()
    notes = []
    step = stack.grid.spacing_zyx[0]
    apart = np.abs(stack.indices_zyx[:, 0] - np.rint(stack.indices_zyx[:, 0])).max() * step
    if apart > CORNER_TOLERANCE_MM:
        notes.append(
            f"gaps of {gaps.min():.4g} to {gaps.max():.4g} mm resampled to {step:.5g} mm, "
            f"each slice from its own position (at most {apart:.3g} mm off)"
        )
    if sideways > CORNER_TOLERANCE_MM:
        notes.append(
            f"slices shifted in their plane by up to {sideways:.4g} mm (gantry tilt) put on a "
            "perpendicular grid"
        )
    return notes


def _cosines(one: DicomSlice) -> str:
    return ", ".join(f"{cosine:.4g}" for cosine in one.orientation)
