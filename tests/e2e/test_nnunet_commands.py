"""nnU-Net's own commands, unchanged, on a VeloxSeg plan and with VeloxSeg's trainer."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from veloxseg.volumes.reading import read_volume

Command = Callable[..., subprocess.CompletedProcess[str]]

# Two steps of training: the default is nnU-Net's 250 an epoch, for 300 epochs.
_SHORT = """
from veloxseg.training.trainer import VeloxSegTrainer

class VeloxSegTrainerShort(VeloxSegTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
"""


@pytest.fixture(scope="module")
def nnunet_path(command: Command) -> str:
    """What `veloxseg info --nnunet-path` prints, to put into ``nnUNet_extTrainer``."""
    printed = command("veloxseg", "info", "--nnunet-path").stdout
    assert Path(printed.strip(), "veloxseg_trainer.py").is_file()
    return printed.strip()


def test_nnunet_preprocesses_trains_predicts_and_evaluates_a_veloxseg_plan(
    trained: Path, root: Path, command: Command, nnunet_path: str, tmp_path: Path
) -> None:
    name = "Dataset100_Tiny"
    raw = root / "nnUNet_raw" / name
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "short.py").write_text(_SHORT)
    both = os.pathsep.join([nnunet_path, str(tmp_path / "trainers")])
    plan = ("-p", "VeloxSegPlans", "-tr", "VeloxSegTrainerShort")
    command("veloxseg", "plan", "100")
    command(
        "nnUNetv2_preprocess", "-d", 100, "-plans_name", "VeloxSegPlans", "-c", "3d_fullres",
        "-np", 1,
    )  # fmt: skip
    command("nnUNetv2_train", 100, "3d_fullres", 2, *plan, "-device", "cpu", nnUNet_extTrainer=both)
    fold = trained.parents[1] / "VeloxSegTrainerShort__VeloxSegPlans__3d_fullres" / "fold_2"
    assert (fold / "checkpoint_final.pth").is_file()
    assert (fold / "validation" / "summary.json").is_file()
    masks = tmp_path / "masks"
    command(
        "nnUNetv2_predict", "-i", raw / "imagesTr", "-o", masks, "-d", 100, "-c", "3d_fullres",
        "-f", 2, *plan, "-device", "cpu", "-npp", 1, "-nps", 1, nnUNet_extTrainer=both,
    )  # fmt: skip
    command(
        "nnUNetv2_evaluate_folder", raw / "labelsTr", masks, "-djfile", raw / "dataset.json",
        "-pfile", fold.parent / "plans.json", "-np", 1,
    )  # fmt: skip
    assert len(json.loads((masks / "summary.json").read_text())["metric_per_case"]) == 5


def test_nnunet_train_finds_veloxseg_trainer_by_its_name(
    trained: Path, command: Command, nnunet_path: str
) -> None:
    summary = trained / "validation" / "summary.json"
    before = summary.stat().st_mtime
    command(
        "nnUNetv2_train", 100, "3d_fullres", 0, "-p", "VeloxSegPlans", "-tr", "VeloxSegTrainer",
        "-device", "cpu", "--val", nnUNet_extTrainer=nnunet_path,
    )  # fmt: skip
    assert summary.stat().st_mtime > before


def test_nnunet_predict_gives_the_masks_that_ours_gives(
    trained: Path, root: Path, command: Command, nnunet_path: str, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for channel in ("0000", "0001"):
        name = f"patient_0_{channel}.nii.gz"
        (images / name).symlink_to(root / "nnUNet_raw" / "Dataset100_Tiny" / "imagesTr" / name)
    command(
        "nnUNetv2_predict", "-i", images, "-o", tmp_path / "theirs", "-d", 100, "-c", "3d_fullres",
        "-f", 0, "-p", "VeloxSegPlans", "-tr", "VeloxSegTrainer", "-device", "cpu", "-npp", 1,
        "-nps", 1, "--disable_tta", nnUNet_extTrainer=nnunet_path,
    )  # fmt: skip
    command(
        "veloxseg", "predict", "-m", trained, "-i", images, "-o", tmp_path / "ours",
        "--device", "cpu",
    )  # fmt: skip
    theirs, ours = (
        read_volume(tmp_path / who / "patient_0.nii.gz").data for who in ("theirs", "ours")
    )
    assert 0 < theirs.sum() < theirs.size
    # A voxel whose logits tie to rounding may fall either way.
    assert np.mean(theirs != ours) < 1e-3
