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


@pytest.mark.slow  # that nnU-Net finds the trainer is seen where it predicts
def test_nnunet_preprocesses_and_trains_a_veloxseg_plan(
    trained: Path, command: Command, nnunet_path: str, tmp_path: Path
) -> None:
    (tmp_path / "short.py").write_text(_SHORT)
    both = os.pathsep.join([nnunet_path, str(tmp_path)])
    command("veloxseg", "plan", "100")
    command(
        "nnUNetv2_preprocess", "-d", 100, "-plans_name", "VeloxSegPlans", "-c", "3d_fullres",
        "-np", 1,
    )  # fmt: skip
    command(
        "nnUNetv2_train", 100, "3d_fullres", 2, "-p", "VeloxSegPlans",
        "-tr", "VeloxSegTrainerShort", "-device", "cpu", nnUNet_extTrainer=both,
    )  # fmt: skip
    fold = trained.parents[1] / "VeloxSegTrainerShort__VeloxSegPlans__3d_fullres" / "fold_2"
    assert (fold / "checkpoint_final.pth").is_file()
    assert (fold / "validation" / "summary.json").is_file()


@pytest.mark.slow
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


def test_nnunet_predicts_and_evaluates_as_ours_does(
    trained: Path, root: Path, command: Command, nnunet_path: str, tmp_path: Path
) -> None:
    raw = root / "nnUNet_raw" / "Dataset100_Tiny"
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    command(
        "nnUNetv2_predict", "-i", raw / "imagesTr", "-o", theirs, "-d", 100, "-c", "3d_fullres",
        "-f", 0, "-p", "VeloxSegPlans", "-tr", "VeloxSegTrainer", "-device", "cpu", "-npp", 1,
        "-nps", 1, "--disable_tta", nnUNet_extTrainer=nnunet_path,
    )  # fmt: skip
    command(
        "nnUNetv2_evaluate_folder", raw / "labelsTr", theirs, "-djfile", raw / "dataset.json",
        "-pfile", trained.parent / "plans.json", "-np", 1,
    )  # fmt: skip
    command(
        "veloxseg", "predict", "-m", trained / "Dataset100_Tiny.veloxseg", "-i", raw / "imagesTr",
        "-o", ours,
    )  # fmt: skip
    command("veloxseg", "evaluate", ours, raw / "labelsTr", "-o", ours / "summary.json")

    names = [path.name for path in raw.glob("labelsTr/*.nii.gz")]
    assert len(names) == 5
    their_masks, our_masks = (
        np.concatenate([read_volume(folder / name).data.ravel() for name in names])
        for folder in (theirs, ours)
    )
    assert 0 < their_masks.sum() < their_masks.size
    # A voxel whose logits tie to rounding may fall either way.
    assert np.mean(their_masks != our_masks) < 1e-3
    their_dice, our_dice = (
        json.loads((folder / "summary.json").read_text())["foreground_mean"]["Dice"]
        for folder in (theirs, ours)
    )
    assert our_dice == pytest.approx(their_dice, abs=0.01)
