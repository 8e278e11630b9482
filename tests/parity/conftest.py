"""Small trained runs as nnU-Net keeps them, and bundles of the same weights."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from safetensors.numpy import save

from veloxseg.bundle.format import FORMAT_VERSION, NETWORK, PIPELINE, WEIGHTS, Manifest, model_file
from veloxseg.bundle.graph import network_graph
from veloxseg.bundle.pipeline import pipeline_from_plans
from veloxseg.bundle.weights import join_folds
from veloxseg.bundle.writing import write_bundle
from veloxseg.datasets.description import read_description
from veloxseg.network.config import NetworkConfig
from veloxseg.network.plans import NETWORK_CLASS_NAME
from veloxseg.network.veloxseg import VeloxSeg

CONFIGURATION = "3d_fullres"
STEM = (2, 2, 2)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a run was trained for, in nnU-Net's words.

    Attributes:
        spacing: Of the network's grid, mm, axes as after ``transpose``.
        patch_size: A multiple of (8, 16, 16).
        labels: As in dataset.json.
        thresholds: Normalised intensities of the first channel at which the labels 1, 2, ... begin:
            what the network has learnt to tell.
    """

    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    patch_size: tuple[int, int, int] = (16, 32, 32)
    transpose: tuple[int, int, int] = (0, 1, 2)
    channels: tuple[str, ...] = ("CT",)
    schemes: tuple[str, ...] = ("ZScoreNormalization",)
    within_mask: tuple[bool, ...] = (False,)
    reader: str = "SimpleITKIO"
    labels: dict[str, Any] = field(default_factory=lambda: {"background": 0, "low": 1, "high": 2})
    regions_class_order: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] = (0.5, 1.5)
    resampling: str = "resample_data_or_seg_to_shape"
    num_folds: int = 1


def write_run(folder: Path, images: Sequence[Path], setting: Setting) -> Path:
    """Write a results folder of nnU-Net's: plans.json, dataset.json, and each fold's checkpoint.

    The networks are random but for the heads, which are fitted to tell intensities of ``images``.
    """
    config = NetworkConfig(
        patch_size=setting.patch_size,
        in_channels=(len(setting.channels),),
        num_classes=len(setting.labels) - (setting.regions_class_order is not None),
        stem_stride=STEM,
        strides=((2, 2, 2),),
        conv_channels=(8, 16),
        attention_channels=(8, 16),
        conv_depths=(1, 1),
        attention_depths=(1, 1),
        group_widths=(4, 8),
        conv_expansion=(2, 2),
        attention_expansion=(2, 2),
        big_windows=((4, 8, 8), (2, 4, 4)),
        small_windows=((2, 2, 2), (1, 1, 1)),
        num_heads=(1, 2),
        head_channels=(4, 8),
    )
    folder.mkdir(parents=True)
    dataset = {
        "channel_names": {str(i): name for i, name in enumerate(setting.channels)},
        "labels": setting.labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    if setting.regions_class_order is not None:
        dataset["regions_class_order"] = list(setting.regions_class_order)
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "plans.json").write_text(json.dumps(_plans(setting, config)))
    plans = PlansManager(str(folder / "plans.json"))
    data, _, _ = DefaultPreprocessor(verbose=False).run_case(
        list(map(str, images)), None, plans, plans.get_configuration(CONFIGURATION), dataset
    )
    for fold in range(setting.num_folds):
        network = _fitted_network(config, data, setting, seed=fold)
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": CONFIGURATION},
            "inference_allowed_mirroring_axes": (0, 1, 2),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def bundle_of_run(run: Path, path: Path) -> Path:
    """Make a bundle of all folds of a run."""
    plans = json.loads((run / "plans.json").read_text())
    pipeline = pipeline_from_plans(plans, CONFIGURATION, read_description(run))
    sizes = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
    config = NetworkConfig(num_classes=pipeline.num_classes, **sizes)
    folds = []
    for checkpoint in sorted(run.glob("fold_*/checkpoint_final.pth")):
        state = torch.load(checkpoint)["network_weights"]
        # In memory order z, y, x: safetensors writes memory as it lies.
        folds.append({name: np.ascontiguousarray(w.numpy()) for name, w in state.items()})
    files = {
        PIPELINE: pipeline.model_dump_json().encode(),
        NETWORK: json.dumps(config.to_json()).encode(),
        WEIGHTS: save(join_folds(folds)),
        model_file("float32"): network_graph(config, folds).SerializeToString(),
    }
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=run.name,
        created="2026-01-01T00:00:00+00:00",
        files={},
        versions={},
        source="a test",
        num_parameters=1,
        multiply_adds=1,
    )
    return write_bundle(path, files, manifest).path


def _plans(setting: Setting, config: NetworkConfig) -> dict[str, Any]:
    def resampling(part: str, order: int) -> dict[str, Any]:
        by_splines = setting.resampling == "resample_data_or_seg_to_shape" or part == "seg"
        name = "resample_data_or_seg_to_shape" if by_splines else setting.resampling
        splines = {"order": order, "order_z": 0} if by_splines else {}
        given = {"is_seg": part == "seg", "force_separate_z": None, **splines}
        return {f"resampling_fn_{part}": name, f"resampling_fn_{part}_kwargs": given}

    architecture = config.to_json()
    del architecture["num_classes"]
    return {
        "dataset_name": "Dataset001_Test",
        "plans_name": "VeloxSegPlans",
        "image_reader_writer": setting.reader,
        "transpose_forward": list(setting.transpose),
        "transpose_backward": np.argsort(setting.transpose).tolist(),
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(index): {
                "mean": 150.0,
                "std": 80.0,
                "percentile_00_5": 10.0,
                "percentile_99_5": 290.0,
            }
            for index in range(len(setting.channels))
        },
        "configurations": {
            CONFIGURATION: {
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(setting.patch_size),
                "spacing": list(setting.spacing),
                "normalization_schemes": list(setting.schemes),
                "use_mask_for_norm": list(setting.within_mask),
                **resampling("data", 3),
                **resampling("seg", 1),
                **resampling("probabilities", 1),
                "architecture": {
                    "network_class_name": NETWORK_CLASS_NAME,
                    "arch_kwargs": architecture,
                    "_kw_requires_import": [],
                },
            }
        },
    }


def _fitted_network(
    config: NetworkConfig, data: np.ndarray, setting: Setting, *, seed: int
) -> VeloxSeg:
    """A network of random features whose last layer is fitted by least squares: no noise."""
    torch.manual_seed(seed)
    network = VeloxSeg(config).eval()
    convolution = network.head.conv
    rows, wanted = [], []
    hook = convolution.register_forward_pre_hook(lambda _, inputs: rows.append(_rows(inputs[0])))
    with torch.no_grad():
        for patch in _patches(torch.from_numpy(data), config.patch_size):
            network(patch[None])
            wanted.append(_targets(patch[0], setting))
        hook.remove()
        features, targets = torch.cat(rows).double(), torch.cat(wanted).double()
        ridge = 1e-3 * len(features) * torch.eye(features.shape[1], dtype=torch.float64)
        fit = torch.linalg.solve(features.T @ features + ridge, features.T @ targets).float()
        convolution.weight.copy_(fit[:-1].T.reshape(convolution.weight.shape))
        convolution.bias.copy_(fit[-1])
    return network


def _patches(data: torch.Tensor, size: Sequence[int]) -> list[torch.Tensor]:
    """A patch at either end and one in the middle, of a case surrounded by zeros if need be."""
    lacking = [max(0, want - have) for want, have in zip(size, data.shape[1:], strict=True)]
    z, y, x = lacking
    padded = torch.nn.functional.pad(data, (0, x, 0, y, 0, z))
    spare = [have - want for want, have in zip(size, padded.shape[1:], strict=True)]
    patches = []
    for half in range(3):
        starts = [rest * half // 2 for rest in spare]
        z, y, x = (slice(a, a + n) for a, n in zip(starts, size, strict=True))
        patches.append(padded[:, z, y, x])
    return patches


def _rows(features: torch.Tensor) -> torch.Tensor:
    """(1, C, Z, Y, X) -> (Z·Y·X, C·27 + 1): what a 3³ convolution with a bias sees."""
    padded = torch.nn.functional.pad(features[0], (1,) * 6)
    windows = padded.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)  # (C, Z, Y, X, 3, 3, 3)
    seen = windows.permute(1, 2, 3, 0, 4, 5, 6).reshape(math.prod(features.shape[2:]), -1)
    return torch.cat([seen, torch.ones(len(seen), 1)], dim=1)


def _targets(channel: torch.Tensor, setting: Setting) -> torch.Tensor:
    """Logits of ±8 by intensity, (Z·Y·X of the stem's grid, classes · cell)."""
    label = torch.bucketize(channel.contiguous(), torch.tensor(setting.thresholds))
    if setting.regions_class_order is None:
        truth = [label == value for value in range(len(setting.labels))]
    else:
        truth = [
            torch.isin(label, torch.tensor(values))
            for name, values in setting.labels.items()
            if name != "background"
        ]
    logits = 16 * torch.stack(truth).float() - 8  # (K, Z, Y, X)
    cells = (
        logits.unfold(1, STEM[0], STEM[0]).unfold(2, STEM[1], STEM[1]).unfold(3, STEM[2], STEM[2])
    )
    return cells.permute(1, 2, 3, 0, 4, 5, 6).reshape(math.prod(cells.shape[1:4]), -1)


@pytest.fixture(scope="session")
def setting():
    """Makes a :class:`Setting`; what is not told has small defaults."""
    return Setting


@pytest.fixture
def runs(tmp_path: Path):
    """Makes a run for the images of a case and a setting, and the bundle of it."""

    def make(images: Sequence[Path], setting: Setting) -> tuple[Path, Path]:
        run = write_run(tmp_path / "run", images, setting)
        return run, bundle_of_run(run, tmp_path / "run.veloxseg")

    return make
