"""nnU-Net's rules for the stages of its U-Nets, for a patch that is given."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veloxseg.network.config import Axes

_MIN_EXTENT = 4
_BASE_FEATURES, _MAX_FEATURES = 32, 320
_PLAIN_CONVS = 2
_RESIDUAL_BLOCKS = (1, 3, 4, 6)  # and six in every further stage
_RESIDUAL_DECODER_CONVS = 1


@dataclass(frozen=True, kw_only=True)
class UNetStages:
    """Stages of a U-Net.

    Attributes:
        arguments: Of the U-Net's constructor, plain JSON values: how many stages, their features,
            kernels, strides and blocks.
        patch_size: What it is for, in voxels.
    """

    arguments: Mapping[str, Any]
    patch_size: Axes

    @property
    def multiple(self) -> Axes:
        """What each axis of its input must be a multiple of, (z, y, x)."""
        return self._cells()[-1]

    @property
    def head_strides(self) -> tuple[Axes, ...]:
        """Voxels in a cell of each head whose cells tile the patch, from fine to coarse."""
        heads = self._cells()[:-1] or self._cells()  # the deepest stage has no head
        return tuple(
            cell
            for cell in heads
            if all(p % c == 0 for p, c in zip(self.patch_size, cell, strict=True))
        )

    @property
    def head_weights(self) -> tuple[float, ...]:
        """As nnU-Net has them: halved from head to head; the coarsest one counts for nothing."""
        weights = [2.0**-level for level in range(len(self.head_strides))]
        return (*weights[:-1], 0.0) if len(weights) > 1 else (1.0,)

    def _cells(self) -> list[Axes]:
        """Voxels in a cell of each stage."""
        cells: list[Axes] = []
        for stride in self.arguments["strides"]:
            before = cells[-1] if cells else (1, 1, 1)
            cells.append(_axes(b * s for b, s in zip(before, stride, strict=True)))
        return cells


def plan_unet(patch_size: Axes, spacing: Sequence[float], *, residual: bool) -> UNetStages:
    """Stages for a patch, by nnU-Net's own functions and numbers.

    Args:
        patch_size: In voxels; the network's input is filled up to whole multiples.
        spacing: mm, axes as the patch's.
        residual: Blocks of the residual encoder instead of the plain one's.

    Source: nnU-Net 2, its experiment planners of both encoders.
    """
    from nnunetv2.experiment_planning.experiment_planners.network_topology import (
        get_pool_and_conv_props,
    )

    _, strides, kernels, _, _ = get_pool_and_conv_props(
        list(spacing), list(patch_size), _MIN_EXTENT, 999999
    )
    stages = len(strides)
    arguments: dict[str, Any] = {
        "n_stages": stages,
        "features_per_stage": [min(_MAX_FEATURES, _BASE_FEATURES * 2**i) for i in range(stages)],
        "kernel_sizes": [list(kernel) for kernel in kernels],
        "strides": [list(stride) for stride in strides],
    }
    if residual:
        blocks = [*_RESIDUAL_BLOCKS, *[_RESIDUAL_BLOCKS[-1]] * stages][:stages]
        arguments["n_blocks_per_stage"] = blocks
        arguments["n_conv_per_stage_decoder"] = [_RESIDUAL_DECODER_CONVS] * (stages - 1)
    else:
        arguments["n_conv_per_stage"] = [_PLAIN_CONVS] * stages
        arguments["n_conv_per_stage_decoder"] = [_PLAIN_CONVS] * (stages - 1)
    return UNetStages(arguments=arguments, patch_size=patch_size)


def _axes(values: Iterable[int]) -> Axes:
    z, y, x = (int(value) for value in values)
    return (z, y, x)
