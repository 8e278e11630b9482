"""Whether the images of a case lie on one grid, and if not, whether it is rounding."""

from collections.abc import Iterator, Sequence

import numpy as np

from veloxseg.datasets.problems import Problem, describe_two_grids
from veloxseg.volumes.volume import Grid, corner_distance_mm, describe_difference, same_grid

NEARLY_EQUAL_VOXELS = 0.25
"""How far, in voxels, a corner may lie from where it should for a header to be taken over.

A quarter of a voxel is below what a contour can show and above what other programs round.
"""


def check_grids(case: str, grids: Sequence[tuple[str, Grid]]) -> Iterator[Problem]:
    """Say which images of a case do not lie on the grid of the first.

    Args:
        case: The case's name.
        grids: Channel name or ``label`` with its grid.
    """
    for name, grid in grids[1:]:
        reference_name, reference = grids[0]
        if same_grid(reference, grid):
            continue
        if nearly_equal(reference, grid):
            apart = corners_apart_voxels(reference, grid)
            yield Problem(
                case=case,
                severity="error",
                message=f"Case {case}: {describe_difference(reference_name, reference, name, grid)}"
                f". All images of a case must share one grid. They miss it by {apart:.2g} voxels, "
                f"which may be rounding. Take the header of {reference_name} over: "
                "veloxseg check --fix",
                kind="grids_nearly_equal",
                part=name,
                numbers={"corner_voxels": apart},
            )
            continue
        same_size = reference.size_zyx == grid.size_zyx
        yield Problem(
            case=case,
            severity="error",
            message=describe_two_grids(case, reference_name, reference, name, grid),
            kind="grids_differ",
            part=name,
            numbers={"corner_mm": corner_distance_mm(reference, grid)} if same_size else {},
        )


def nearly_equal(reference: Grid, grid: Grid) -> bool:
    """Whether two grids of one size differ by ``NEARLY_EQUAL_VOXELS`` at most at every corner."""
    return (
        reference.size_zyx == grid.size_zyx
        and corners_apart_voxels(reference, grid) <= NEARLY_EQUAL_VOXELS
    )


def corners_apart_voxels(a: Grid, b: Grid) -> float:
    """Largest distance between the outer corners of two grids of one size, in voxels of ``a``.

    The outer corners are those of the corner voxels, so that an axis of a single voxel counts too.
    """
    ends = np.stack(np.meshgrid(*[(0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    corners_zyx = ends * np.array(a.size_zyx) - 0.5
    apart = a.positions_xyz(corners_zyx) - b.positions_xyz(corners_zyx)
    return float(np.linalg.norm(apart, axis=1).max() / min(a.spacing_zyx))
