"""A results folder of nnU-Net's with the reference network, for timing it on any PET/CT volume.

    python benchmarks/reference_run.py nnUNet_results/Dataset999_Reference
    veloxseg export nnUNet_results/Dataset999_Reference/VeloxSegTrainer__* BUNDLE

The published PET/CT sizes at 96³, seeded random weights, a grid of 3 x 2.04 x 2.04 mm (z, y, x).
"""

import argparse
import json
from pathlib import Path

import torch

from veloxseg.network.config import NetworkConfig
from veloxseg.network.plans import NETWORK_CLASS_NAME
from veloxseg.network.veloxseg import VeloxSeg

CONFIGURATION = "3d_fullres"
SPACING_ZYX = (3.0, 2.04, 2.04)
CT = {"mean": 40.0, "std": 60.0, "percentile_00_5": -150.0, "percentile_99_5": 250.0}


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="DatasetNNN_NAME, in nnUNet_results")
    dataset = parser.parse_args().dataset
    folder = dataset / f"VeloxSegTrainer__VeloxSegPlans__{CONFIGURATION}"
    (folder / "fold_0").mkdir(parents=True)
    torch.manual_seed(0)
    config = NetworkConfig(patch_size=(96, 96, 96), in_channels=(1, 1), num_classes=2)
    network = VeloxSeg(config)
    with torch.no_grad():  # both classes shall occur
        network.head.conv.bias.normal_(std=0.5)
    description = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "plans.json").write_text(json.dumps(_plans(dataset.name, config)))
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "VeloxSegTrainer",
        "init_args": {"configuration": CONFIGURATION},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    print(folder)


def _plans(name: str, config: NetworkConfig) -> dict[str, object]:
    architecture = config.to_json()
    del architecture["num_classes"]
    resampling: dict[str, object] = {}
    for part, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        given = {"is_seg": part == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        resampling[f"resampling_fn_{part}"] = "resample_data_or_seg_to_shape"
        resampling[f"resampling_fn_{part}_kwargs"] = given
    return {
        "dataset_name": name,
        "plans_name": "VeloxSegPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": CT, "1": CT},
        "configurations": {
            CONFIGURATION: {
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(config.patch_size),
                "spacing": list(SPACING_ZYX),
                "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
                "use_mask_for_norm": [False, False],
                **resampling,
                "architecture": {
                    "network_class_name": NETWORK_CLASS_NAME,
                    "arch_kwargs": architecture,
                    "_kw_requires_import": [],
                },
            }
        },
    }


if __name__ == "__main__":
    main()
