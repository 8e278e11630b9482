"""A small network as a bundle, for tests of everything that runs bundles."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save

from veloxseg.bundle.format import (
    FORMAT_VERSION,
    NETWORK,
    PIPELINE,
    WEIGHTS,
    Manifest,
    Normalisation,
    Pipeline,
)
from veloxseg.bundle.graph import network_graph
from veloxseg.bundle.weights import join_folds
from veloxseg.bundle.writing import write_bundle
from veloxseg.network.config import NetworkConfig
from veloxseg.network.veloxseg import VeloxSeg

SIZES: dict[str, Any] = {
    "patch_size": (16, 16, 16),
    "in_channels": (1, 1),
    "num_classes": 3,
    "stem_stride": (2, 2, 2),
    "strides": ((2, 2, 2),),
    "conv_channels": (8, 16),
    "attention_channels": (8, 16),
    "conv_depths": (1, 1),
    "attention_depths": (1, 1),
    "group_widths": (4, 8),
    "conv_expansion": (2, 2),
    "attention_expansion": (2, 2),
    "big_windows": ((2, 2, 2), (2, 2, 2)),
    "small_windows": ((1, 1, 1), (1, 1, 1)),
    "num_heads": (1, 2),
    "head_channels": (4, 4),
}


def small_network(seed: int = 0, **changes: Any) -> VeloxSeg:
    """A network of random weights whose logits differ enough to tell classes apart."""
    torch.manual_seed(seed)
    network = VeloxSeg(NetworkConfig(**SIZES | changes)).eval()
    with torch.no_grad():
        network.head.conv.bias.normal_(std=0.5)
    return network


def write_small_bundle(path: Path, *, network: VeloxSeg | None = None, **changes: Any) -> Path:
    """Write a bundle of a small network; ``changes`` go to its pipeline."""
    network = network or small_network()
    config = network.config
    weights = {name: value.contiguous().numpy() for name, value in network.state_dict().items()}
    fields: dict[str, Any] = {
        "channels": ("CT", "PET"),
        "labels": {"background": 0, "liver": 1, "lesion": 2},
        "spacing": (3.0, 2.0, 2.0),
        "normalisation": (
            Normalisation(scheme="ct", mean=0.0, std=100.0, lower=-200.0, upper=200.0),
            Normalisation(scheme="z_score"),
        ),
        "patch_size": config.patch_size,
    }
    files = {
        PIPELINE: Pipeline(**fields | changes).model_dump_json().encode(),
        "model.onnx": network_graph(config, [weights]).SerializeToString(),
        WEIGHTS: save(join_folds([weights])),
        NETWORK: json.dumps(config.to_json()).encode(),
    }
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=path.name.split(".")[0],
        created="2026-01-01T00:00:00Z",
        files={},
        versions={},
        source="random weights",
        num_parameters=1000,
        multiply_adds=10**7,
    )
    write_bundle(path, files, manifest)
    return path
