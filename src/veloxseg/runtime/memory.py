"""How much memory a case takes, known before it starts."""

import math
from collections.abc import Sequence

from veloxseg.bundle.format import Pipeline
from veloxseg.errors import VeloxSegError
from veloxseg.runtime.resampling import resampled_shape

PROCESS_BYTES = 150e6
"""Python, NumPy, an engine and the command line; measured."""

ENGINE_BYTES_PER_VOXEL = 110.0
"""An engine's activations and its copies of a patch, a voxel of a patch that it runs at once;
measured with the reference network (stem 4), rounded up."""

_IMAGE_BYTES, _FLOAT = 4, 4
_HELD_PLANES = 24
"""Planes of logits and scores on their way to the mask."""


def estimate_bytes(
    size_zyx: Sequence[int],
    spacing_zyx: Sequence[float],
    pipeline: Pipeline,
    *,
    batch: int,
    probabilities: bool = False,
) -> float:
    """Largest memory of the whole process while it segments a case, cropped not at all.

    Args:
        size_zyx: Voxels of the image.
        spacing_zyx: Its spacing in mm.
        pipeline: Channels, patch and grid of the model.
        batch: Patches that the engine runs at once.
        probabilities: Whether they are kept.
    """
    order = pipeline.transpose
    size = [size_zyx[axis] for axis in order]
    grid = resampled_shape(size, [spacing_zyx[axis] for axis in order], pipeline.spacing)
    source, network = math.prod(size), math.prod(grid)
    channels, classes = len(pipeline.channels), pipeline.num_classes
    images = channels * source * _IMAGE_BYTES
    inputs = channels * network * _FLOAT
    resizing = 2 * source * _FLOAT if tuple(size) != grid else 0
    plane = max(grid[1] * grid[2], size[1] * size[2])
    depth = min(grid[0], pipeline.patch_size[0])
    rolling = (classes + 1) * depth * grid[1] * grid[2] * _FLOAT
    leaving = 2 * classes * min(depth, grid[0]) * grid[1] * grid[2] * _FLOAT
    leaving += classes * _HELD_PLANES * plane * _FLOAT
    result = source + (2 * classes * source if probabilities else 0)
    engine = batch * math.prod(pipeline.patch_size) * ENGINE_BYTES_PER_VOXEL
    reading = images + inputs + resizing
    running = inputs + images + rolling + leaving + result + engine
    return PROCESS_BYTES + max(reading, running)


def require_memory(estimate: float, limit_gb: float | None, *, what: str) -> None:
    """Refuse a case before it starts.

    Raises:
        VeloxSegError: the estimate is above the limit.
    """
    if limit_gb is not None and estimate > limit_gb * 1e9:
        raise VeloxSegError(
            f"{what}: needs about {estimate / 1e9:.1f} GB, --max-memory allows {limit_gb:g} GB. "
            "Allow more, crop the image, or resample it to larger voxels."
        )
