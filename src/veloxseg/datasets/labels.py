"""The values of a label image."""

from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.errors import DatasetError

INTEGER_TOLERANCE = 1e-3
"""How far a label stored as float may be from an integer: 0.99999997 is 1, 0.5 is none."""


LARGEST = 2.0**53
"""Of floats from here on, not every integer is one."""


def integer_labels(data: npt.NDArray[Any], *, where: str) -> npt.NDArray[np.int64]:
    """Labels as integers.

    Args:
        data: (Z, Y, X) label values as stored, perhaps as floats.
        where: What to call the image in the error.

    Returns:
        (Z, Y, X) the same values as int64.

    Raises:
        DatasetError: a value is not within ``INTEGER_TOLERANCE`` of an integer, too large to be
            one, or not finite.
    """
    if data.dtype.kind in "iub":
        return data.astype(np.int64)
    rounded = np.rint(data)
    # Not "greater than": NaN and infinity must fail as well.
    with np.errstate(invalid="ignore"):
        fractional = ~((np.abs(data - rounded) <= INTEGER_TOLERANCE) & (np.abs(data) < LARGEST))
    if fractional.any():
        raise DatasetError(
            f"{where}: {int(fractional.sum())} voxels hold values such as "
            f"{float(data[fractional][0]):g}. Expected integers. "
            "Was it resampled with interpolation? Export it again as a label image."
        )
    integers: npt.NDArray[np.int64] = rounded.astype(np.int64)
    return integers
