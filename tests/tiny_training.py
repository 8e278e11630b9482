"""A trainer on two tiny preprocessed cases, and what watches it."""

import copy
from pathlib import Path

import numpy as np
import torch

from veloxseg.network import NetworkConfig

NAME = "Dataset123_Tiny"
CONFIG = NetworkConfig(
    patch_size=(8, 16, 16),
    in_channels=(1, 1),
    num_classes=2,
    stem_stride=(1, 2, 2),
    strides=((2, 2, 2),),
    conv_channels=(8, 8),
    attention_channels=(8, 8),
    conv_depths=(1, 1),
    attention_depths=(1, 1),
    group_widths=(4, 8),
    conv_expansion=(1, 1),
    attention_expansion=(1, 1),
    big_windows=((2, 2, 2), (2, 2, 2)),
    small_windows=((1, 1, 1), (1, 1, 1)),
    num_heads=(1, 1),
    head_channels=(4, 4),
)


def tiny_plans() -> dict:
    kwargs = CONFIG.to_json()
    del kwargs["num_classes"]
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": NAME,
        "plans_name": "VeloxSegPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [12, 20, 20],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "VeloxSegPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "tiny",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(CONFIG.patch_size),
                "median_image_size_in_voxels": [12.0, 20.0, 20.0],
                "spacing": [1.0, 1.0, 1.0],
                "normalization_schemes": ["ZScoreNormalization"] * 2,
                "use_mask_for_norm": [False, False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": resampling,
                "architecture": {
                    "network_class_name": "veloxseg.network.plans.build_network",
                    "arch_kwargs": kwargs,
                    "_kw_requires_import": [],
                },
                "batch_dice": False,
            }
        },
    }


def with_recipe(**recipe) -> dict:
    plans = tiny_plans()
    plans["configurations"]["3d_fullres"]["training"] = recipe
    return plans


def write_tiny_dataset(root: Path) -> None:
    """Two preprocessed cases of two channels; nnU-Net's variables must point into ``root``."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetNumpy

    cases = root / "nnUNet_preprocessed" / NAME / "tiny"
    cases.mkdir(parents=True)
    (cases.parent / "dataset_fingerprint.json").write_text("{}")
    random = np.random.default_rng(0)
    for identifier in ("a", "b"):
        data = random.normal(size=(2, 12, 20, 20)).astype(np.float32)
        seg = np.zeros((1, 12, 20, 20), dtype=np.int8)
        seg[:, 4:9, 6:14, 6:14] = 1
        data[:, seg[0] == 1] += 3
        places = np.argwhere(seg == 1)
        properties = {"class_locations": {1: places}, "spacing": [1.0, 1.0, 1.0]}
        nnUNetDatasetNumpy.save_case(data, seg, properties, str(cases / identifier))


def make_trainer(plans=None, *, labels=None, seed=0, **description):
    from veloxseg.training.trainer import VeloxSegTrainer

    torch.manual_seed(seed)
    np.random.seed(seed)
    plans = {**copy.deepcopy(plans or tiny_plans()), "continue_training": False}
    dataset = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": labels or {"background": 0, "lesion": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **description,
    }
    trainer = VeloxSegTrainer(plans, "3d_fullres", "all", dataset, torch.device("cpu"))
    trainer.quiet = True
    trainer.num_epochs = 2
    trainer.num_iterations_per_epoch = 3
    trainer.num_val_iterations_per_epoch = 1
    return trainer


class Recorder:
    """Keeps the losses, and stops the training as Ctrl-C does after some steps."""

    def __init__(self, stop_after=None):
        self.losses, self.epochs, self.fractions, self.stop_after = [], [], [], stop_after

    def stepped(self, *, fraction, loss):
        self.losses.append(loss)
        self.fractions.append(fraction)
        if len(self.losses) == self.stop_after:
            raise KeyboardInterrupt

    def epoch_ended(self, *, epoch, dice):
        self.epochs.append((epoch, dice))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def read(path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=False)
