"""Cases without a modality, from the user's folder to Dice by subset."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import same_grid


@pytest.mark.slow  # each command's own tests are quick
def test_patients_without_pet_are_trained_on_predicted_and_counted_apart(
    patients: Path, root: Path, command, tmp_path: Path
) -> None:
    source = tmp_path / "patients"
    shutil.copytree(patients, source)
    (source / "patient_1" / "PET.nii.gz").unlink()
    command(
        "veloxseg", "convert", "folder", source, "Dataset120_Optional",
        "--channel", "CT={case}/CT.nii.gz", "--channel", "PET={case}/PET.nii.gz",
        "--optional", "PET", "--label", "{case}/lesions.nii.gz", "--reference", "CT",
        "--labels", "lesion=1",
    )  # fmt: skip
    raw = root / "nnUNet_raw" / "Dataset120_Optional"
    assert json.loads((raw / "dataset.json").read_text())["optional"] == ["PET"]
    assert not (raw / "imagesTr" / "patient_1_0001.nii.gz").exists()

    command("veloxseg", "run", "120", "--minutes", "0.05")
    bundle = tmp_path / "optional.veloxseg"
    command("veloxseg", "export", "120/0", bundle)

    masks = tmp_path / "masks"
    command("veloxseg", "predict", "-m", bundle, "-i", raw / "imagesTr", "-o", masks)
    image = read_volume(raw / "imagesTr" / "patient_1_0000.nii.gz")
    mask = read_volume(masks / "patient_1.nii.gz")
    assert same_grid(mask, image.grid)

    without = tmp_path / "without"
    command(
        "veloxseg", "predict", "-m", bundle, "-i", raw / "imagesTr", "-o", without,
        "--without", "PET",
    )  # fmt: skip
    same = read_volume(without / "patient_1.nii.gz").data
    np.testing.assert_array_equal(same, mask.data)  # it had no PET to leave out

    summary = tmp_path / "summary.json"
    command(
        "veloxseg", "evaluate", masks, raw / "labelsTr", "--images", raw / "imagesTr",
        "-o", summary,
    )  # fmt: skip
    subsets = json.loads(summary.read_text())["subsets"]
    assert {name: one["num_cases"] for name, one in subsets.items()} == {"CT": 1, "CT+PET": 4}
