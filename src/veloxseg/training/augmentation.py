"""The published augmentation, as transforms of nnU-Net's loaders."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

AXIAL_ROTATION = math.radians(15)
"""Largest rotation of the published augmentation, applied to half of the patches."""


def rotated_extent(patch_size: Sequence[int], *, axial_axis: int) -> tuple[int, int, int]:
    """Extent that holds the patch however it is rotated about the axial axis.

    Args:
        patch_size: (Z, Y, X) in voxels.
        axial_axis: Axis that is rotated about, whose extent stays.
    """
    a, b = (axis for axis in range(3) if axis != axial_axis)
    sine, cosine = math.sin(AXIAL_ROTATION), math.cos(AXIAL_ROTATION)
    extent = list(patch_size)
    extent[a] = math.ceil(patch_size[a] * cosine + patch_size[b] * sine)
    extent[b] = math.ceil(patch_size[b] * cosine + patch_size[a] * sine)
    z, y, x = extent
    return (z, y, x)


def rotation_transforms(
    patch_size: Sequence[int], validation_transforms: BasicTransform, *, axial_axis: int
) -> BasicTransform:
    """Rotate half of the patches by up to 15 degrees about the axial axis, and nothing else.

    Args:
        patch_size: (Z, Y, X) of the network, cut from the larger patches that are loaded.
        validation_transforms: nnU-Net's, which prepare the targets.
        axial_axis: Axis of the patch about which to rotate.

    Source: VeloxSeg (ICLR 2026), its training.
    """

    def angle(image: Any = None, dim: int = 0) -> float:
        return float(np.random.uniform(-1, 1) * AXIAL_ROTATION) if dim == axial_axis else 0.0

    rotation = SpatialTransform(
        list(patch_size),
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=0,
        p_rotation=0.5,
        rotation=angle,
        p_scaling=0,
        bg_style_seg_sampling=False,
        border_mode_seg="constant",
        padding_value_seg=-1,
    )
    return ComposeTransforms([rotation, validation_transforms])
