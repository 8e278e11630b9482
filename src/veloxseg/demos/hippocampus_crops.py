"""Where the hippocampi lie in MNI space, and crops of them that all look like left ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from veloxseg.errors import GeometryError
from veloxseg.volumes.volume import ORTHONORMAL_TOLERANCE, Volume

LEFT_BOX_RAS_MM = ((-43.0, -7.0), (-47.0, 3.0), (-33.0, 11.0))
"""First and last voxel centre of the left crop in MNI space: x to the right, y to the front, z up.

The left hippocampus of the template lies between -37 and -13, -42 and -3, -30 and 6 mm; around it
are some 5 mm, as around those that the model was trained on, which were left ones or mirrored. The
right crop has x mirrored.
"""

SIDES = ("left", "right")


def box_slices(ras: Volume, side: str) -> tuple[slice, slice, slice]:
    """Where the crop of a side lies in an image whose axes grow to right, front and head.

    Returns:
        Slices along z, y and x.

    Raises:
        GeometryError: the image is oblique, or the box reaches out of it.
    """
    if not np.allclose(ras.grid.matrix(), np.diag([-1, -1, 1]), rtol=0, atol=ORTHONORMAL_TOLERANCE):
        raise GeometryError(
            "The image is oblique. Expected axes along those of MNI space. Resample it there first."
        )
    x, y, z = LEFT_BOX_RAS_MM
    if side == "right":
        x = (-x[1], -x[0])
    first_xyz = (-ras.origin_xyz[0], -ras.origin_xyz[1], ras.origin_xyz[2])
    slices = []
    for axis, (low, high) in zip("zyx", (z, y, x), strict=True):
        where = "zyx".index(axis)
        start, step = first_xyz[2 - where], ras.spacing_zyx[where]
        begin = int(np.ceil((low - start) / step - 1e-3))
        end = int(np.floor((high - start) / step + 1e-3)) + 1
        if begin < 0 or end > ras.data.shape[where]:
            last = start + step * (ras.data.shape[where] - 1)
            raise GeometryError(
                f"The image reaches from {start:g} to {last:g} mm along {axis}. Expected {low:g} "
                f"to {high:g} mm in it, where the {side} hippocampus is in MNI space. Register it "
                "there first."
            )
        slices.append(slice(begin, end))
    return slices[0], slices[1], slices[2]


def cut_crop(ras: Volume, side: str) -> Volume:
    """The crop of a side; the right one is stored from right to left, as a left one looks.

    Args:
        ras: Its axes grow to right, front and head.
        side: One of ``SIDES``.

    Returns:
        A volume whose every voxel lies where it lay; only its array is mirrored.

    Raises:
        GeometryError: as :func:`box_slices`.
    """
    place = box_slices(ras, side)
    first, matrix = [part.start for part in place], ras.grid.matrix()
    if side == "right":
        first[2] = place[2].stop - 1
        matrix[:, 0] *= -1
    x, y, z = (float(position) for position in ras.grid.positions_xyz(first))
    return Volume(
        data=np.ascontiguousarray(unmirror(ras.data[place], side)),
        spacing_zyx=ras.spacing_zyx,
        origin_xyz=(x, y, z),
        direction=tuple(float(cosine) for cosine in matrix.ravel()),
    )


def unmirror(crop: NDArray[Any], side: str) -> NDArray[Any]:
    """Bring a crop's array (Z, Y, X) into the image's own sense, or the other way round; a view."""
    return crop[..., ::-1] if side == "right" else crop
