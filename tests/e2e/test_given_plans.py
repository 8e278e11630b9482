"""Published configurations and presets, from files to a mask."""

import json
from pathlib import Path

import numpy as np
import pytest

from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import same_grid

MODEL = {
    "input_size": [32, 32, 16],
    "in_ch": [1, 1],
    "n_classes": 2,
    "patch_size": 2,
    "base_ch": 8,
    "attn_base_ch": 8,
    "conv_depths": [1, 1, 1],
    "depths": [1, 1, 1],
    "min_dim_group": [4, 8, 8],
    "conv_expansion_factor": [1, 1, 1],
    "ffn_expansion_ratio": [1, 1, 1],
    "min_big_window_sizes": [[4, 4, 2]] * 3,
    "min_small_window_sizes": [[1, 1, 1]] * 3,
    "scale_factors": [[2, 2, 2]] * 2,
    "num_heads": [1, 1, 1],
    "min_dim_head": [4, 4, 4],
}
TRAINING = {
    "patch_size": {"AutoPETII": [32, 32, 16]},
    "spacing": {"AutoPETII": [8.0, 8.0, 8.0]},
    "batch_size": 1,
    "deep_Loss_weight": [1.0, 0.5, 0.25],
    "RC_Loss_weight": 0.5,
    "Feature_Loss_weight": 2.0,
    "train_rate": 0.6,
    "val_rate": 0.2,
    "epochs": 300,
    "optimizer": {"type": "AdamW", "lr": 2.5e-4, "weight_decay": 0.01},
    "warmup_scheduler": {"type": "LinearLR", "total_iters": 10},
    "train_scheduler": {"type": "CosineAnnealingLR", "T_max": 290, "eta_min": 6e-6},
    "save_interval": 10,
}


@pytest.fixture(scope="module")
def raw(patients: Path, root: Path, command) -> Path:
    command(
        "veloxseg", "convert", "folder", patients, "Dataset110_Given",
        "--channel", "CT={case}/CT.nii.gz", "--channel", "PET={case}/PET.nii.gz",
        "--label", "{case}/lesions.nii.gz", "--reference", "CT", "--labels", "lesion=1",
    )  # fmt: skip
    return root / "nnUNet_raw" / "Dataset110_Given"


@pytest.fixture(scope="module")
def planned(raw: Path, command, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is said where the dataset gets the published plan."""
    folder = tmp_path_factory.mktemp("published")
    return command("veloxseg", "plan", "110", "--published", *published_files(folder)).stdout


def published_files(folder: Path, **changes: object) -> list[Path]:
    files = [folder / "model.json", folder / "training.json"]
    for file, content in zip(files, (MODEL, TRAINING | changes), strict=True):
        file.write_text(json.dumps(content))
    return files


def test_published_configurations_are_a_plan(planned: str, root: Path) -> None:
    assert "save_interval" in planned  # what cannot be honoured is named, asked or not
    assert "not honoured" in planned
    assert "Plan (x, y, z)" in planned
    preprocessed = root / "nnUNet_preprocessed" / "Dataset110_Given"
    plans = json.loads((preprocessed / "VeloxSegPlans.json").read_text())
    assert plans["transpose_forward"] == [2, 1, 0]
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["patch_size"] == [32, 32, 16]
    assert configuration["batch_size"] == 2
    assert configuration["training"]["learning_rate"] == 2.5e-4
    assert configuration["training"]["augmentation"] == "rotation"
    (split,) = json.loads((preprocessed / "splits_final.json").read_text())
    assert [len(split[part]) for part in ("train", "val", "test")] == [3, 1, 1]


@pytest.mark.slow  # tests/training, tests/bundle and tests/runtime have its stages one by one
def test_a_published_plan_is_trained_exported_and_predicted_with(
    planned: str, raw: Path, root: Path, command, tmp_path: Path
) -> None:
    command("veloxseg", "preprocess", "110")
    command("veloxseg", "train", "110", "0", "--minutes", "0.05")
    bundle = tmp_path / "published.veloxseg"
    command("veloxseg", "export", "110/0", bundle)
    pipeline = json.loads((bundle / "pipeline.json").read_text())
    assert pipeline["overlap"] == 0.25
    assert pipeline["mirror_axes"] == []  # training mirrored nothing
    splits = root / "nnUNet_preprocessed" / "Dataset110_Given" / "splits_final.json"
    (split,) = json.loads(splits.read_text())
    (case,) = split["test"]
    images = [raw / "imagesTr" / f"{case}_000{channel}.nii.gz" for channel in (0, 1)]
    mask = tmp_path / "mask.nii.gz"
    command("veloxseg", "predict", "-m", bundle, "-i", images[0], "-i", images[1], "-o", mask)
    found, image = read_volume(mask), read_volume(images[0])
    assert same_grid(found, image.grid)
    assert set(np.unique(found.data)) <= {0, 1}
    said = command("veloxseg", "train", "110", "1", "--minutes", "0.05", code=2).stderr
    assert "no fold 1" in said


def test_other_splits_than_the_ones_there_are_refused_and_kept(
    planned: str, root: Path, command, tmp_path: Path
) -> None:
    preprocessed = root / "nnUNet_preprocessed" / "Dataset110_Given"
    files = [preprocessed / name for name in ("splits_final.json", "VeloxSegPlans.json")]
    before = [file.read_text() for file in files]
    others = published_files(tmp_path, train_rate=0.8)
    said = command("veloxseg", "plan", "110", "--published", *others, code=2).stderr
    assert "holds other splits already" in said
    assert [file.read_text() for file in files] == before
    said = command("veloxseg", "plan", "110", "--preset", "msd01", code=2).stderr
    assert "channels" in said
    assert [file.read_text() for file in files] == before


def test_what_a_given_plan_leaves_no_choice_of_is_refused(raw: Path, command) -> None:
    said = command("veloxseg", "plan", "110", "--preset", "autopet2", "--size", "S", code=2).stderr
    assert "--size S" in said
    said = command("veloxseg", "plan", "110", "--published-dataset", "HECKTOR", code=2).stderr
    assert "belongs to --published" in said


@pytest.mark.slow  # what a preset fixes is tested in tests/planning
def test_a_preset_fixes_network_spacing_and_training(raw: Path, root: Path, command) -> None:
    said = command(
        "veloxseg", "plan", "110", "--preset", "autopet2", "--target", "2gb", "--explain"
    ).stdout
    assert "Preset autopet2" in said
    assert "target 2gb" in said  # which cannot make it smaller, and that is said
    assert "Plan (z, y, x)" in said
    plans = json.loads(
        (root / "nnUNet_preprocessed" / "Dataset110_Given" / "VeloxSegPlans.json").read_text()
    )
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["patch_size"] == [96, 96, 96]
    assert configuration["spacing"] == pytest.approx([3.0, 2.0364, 2.0364], abs=1e-3)
    assert configuration["batch_size"] == 4
    assert configuration["overlap"] == 0.25
