"""A run of finished folds with validation masks, as nnU-Net leaves them."""

from pathlib import Path

import numpy as np
import pytest

from mask_shapes import box, voxels
from veloxseg.atomic import write_json
from veloxseg.volumes.reading import write_mask
from veloxseg.volumes.volume import Grid

NAME = "Dataset100_Tiny"
DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "numTraining": 10,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two folds of five cases; every mask has a false speck of the organ, 2 x 1 x 1 mm large."""
    folder = tmp_path / "nnUNet_results" / NAME / "VeloxSegTrainer__VeloxSegPlans__3d_fullres"
    write_json(folder / "dataset.json", DESCRIPTION)
    write_json(folder / "plans.json", {})
    reference = box((1, 4), (1, 4), (1, 4)) + 2 * box((6, 8), (6, 8), (6, 8))
    for number in range(10):
        fold = folder / f"fold_{number // 5}"
        write(fold / "validation" / f"case_{number}.nii.gz", reference + voxels((0, 8, 9)))
        write(tmp_path / "nnUNet_raw" / NAME / "labelsTr" / f"case_{number}.nii.gz", reference)
        write_json(fold / "validation" / "summary.json", {})
        (fold / "checkpoint_final.pth").write_bytes(bytes([number // 5]))
    return folder


def write(path: Path, mask: np.ndarray) -> None:
    grid = Grid(size_zyx=mask.shape, spacing_zyx=(2.0, 1.0, 1.0), origin_xyz=(0.0, 0.0, 0.0))
    write_mask(path, mask, grid)
