"""Five small cases of a box in noise: raw, planned and preprocessed, as a training finds them."""

from pathlib import Path

import numpy as np
import pytest

from veloxseg.atomic import read_json, write_json
from veloxseg.datasets.workspace import Workspace
from veloxseg.planning.files import CONFIGURATION, plans_file, preprocessing_settings, write_mark
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

NAME = "Dataset123_Small"
SHAPE = (12, 18, 16)
DESCRIPTION = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 5,
    "file_ending": ".nii.gz",
}


def planned_workspace(root: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace of nnU-Net's folders below ``root``, made without nnU-Net's pools of processes.

    nnU-Net's variables are set to it, and to one process for everything, for one test.
    """
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "restored after the test")
    for name in ("nnUNet_n_proc_DA", "nnUNet_def_n_proc"):
        monkeypatch.setenv(name, "1")
    workspace = Workspace.resolve(root)
    workspace.export()
    _write_raw(workspace.raw / NAME)
    _write_fingerprint(workspace.preprocessed / NAME)
    from veloxseg.planning.planner import VeloxSegPlanner

    VeloxSegPlanner(NAME).plan_experiment()
    _write_preprocessed(workspace)
    return workspace


def _case(seed):
    image = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:9, 6:13, 5:12] = 1
    image[mask == 1] += 3
    return image, mask


def _volume(data):
    return Volume(data=data, spacing_zyx=(1.0, 1.0, 1.0))


def _write_raw(folder):
    for number in range(5):
        image, mask = _case(number)
        write_volume(folder / f"imagesTr/case_{number}_0000.nii.gz", _volume(image))
        write_volume(folder / f"labelsTr/case_{number}.nii.gz", _volume(mask))
    write_json(folder / "dataset.json", DESCRIPTION)


def _write_fingerprint(folder):
    names = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")
    write_json(
        folder / "dataset_fingerprint.json",
        {
            "spacings": [[1.0, 1.0, 1.0]] * 5,
            "shapes_after_crop": [list(SHAPE)] * 5,
            "foreground_intensity_properties_per_channel": {"0": dict.fromkeys(names, 1.0)},
            "median_relative_size_after_cropping": 1.0,
        },
    )


def _write_preprocessed(workspace):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetNumpy

    plans = read_json(plans_file(workspace, NAME))
    base = workspace.preprocessed / NAME
    folder = base / plans["configurations"][CONFIGURATION]["data_identifier"]
    folder.mkdir()
    grid = {"spacing": (1.0,) * 3, "origin": (0.0,) * 3, "direction": (1.0, 0, 0, 0, 1, 0, 0, 0, 1)}
    for number in range(5):
        image, mask = _case(number)
        properties = {
            "class_locations": {1: np.argwhere(mask[None] == 1)},
            "spacing": [1.0, 1.0, 1.0],
            "sitk_stuff": grid,
            "shape_before_cropping": SHAPE,
            "bbox_used_for_cropping": [[0, extent] for extent in SHAPE],
            "shape_after_cropping_and_before_resampling": SHAPE,
        }
        seg = mask[None].astype(np.int8)
        nnUNetDatasetNumpy.save_case(image[None], seg, properties, str(folder / f"case_{number}"))
        write_volume(base / f"gt_segmentations/case_{number}.nii.gz", _volume(mask))
    write_mark(folder, {"settings": preprocessing_settings(plans), "files": {}})
