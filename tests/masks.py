"""Small masks for tests of evaluation."""

from pathlib import Path

import numpy as np

from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

SPACING = (3.0, 1.0, 0.5)
LABELS = {"background": 0, "organ": 1, "lesion": 2}


def row(*values: float) -> np.ndarray:
    """Two slices of one row of voxels."""
    return np.array(values).reshape(1, 1, -1).repeat(2, axis=0)


def write_mask(
    folder: Path,
    case: str,
    *values: float,
    spacing_zyx: tuple[float, float, float] = SPACING,
    origin_xyz: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Path:
    """Write a row of voxels as uint8, or as float32 if one is no whole number."""
    data = row(*values)
    whole = np.array_equal(data, np.rint(data))
    file = folder / f"{case}.nii.gz"
    write_volume(
        file,
        Volume(
            data=data.astype(np.uint8 if whole else np.float32),
            spacing_zyx=spacing_zyx,
            origin_xyz=origin_xyz,
        ),
    )
    return file
