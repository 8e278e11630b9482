"""How large the labelled structures are: the fingerprint's missing number."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from veloxseg.volumes.reading import read_volume


def component_extents_mm(
    label: NDArray[np.integer], values: Iterable[int], spacing_zyx: Sequence[float]
) -> NDArray[np.float64]:
    """Extents of the connected components of each label.

    Args:
        label: (Z, Y, X)
        values: Labels to look at; each is taken apart on its own.
        spacing_zyx: mm.

    Returns:
        (components, 3): bounding boxes in mm, (Z, Y, X). Specks of one voxel are left out.
    """
    extents = []
    boxes = ndimage.find_objects(label)
    for value in values:
        if value > len(boxes) or boxes[value - 1] is None:
            continue
        cropped = label[boxes[value - 1]] == value
        components, _ = ndimage.label(cropped, structure=np.ones((3, 3, 3)))
        for box in ndimage.find_objects(components):
            voxels = [axis.stop - axis.start for axis in box]
            if max(voxels) > 1:
                extents.append([v * s for v, s in zip(voxels, spacing_zyx, strict=True)])
    return np.asarray(extents, dtype=float).reshape(-1, 3)


def smallest_structure_mm(
    labels: Sequence[Path], values: Sequence[int]
) -> tuple[float, float, float]:
    """What must be seen: the 10th percentile of component extents over a dataset, mm (Z, Y, X).

    Returns:
        Infinity on every axis when nothing is labelled.
    """
    extents = [np.empty((0, 3))]
    for path in labels:
        volume = read_volume(path)
        data = np.rint(volume.data).astype(np.int64)
        extents.append(component_extents_mm(data, values, volume.spacing_zyx))
    every = np.concatenate(extents)
    if not len(every):
        return (float("inf"),) * 3
    z, y, x = (float(v) for v in np.percentile(every, 10, axis=0))
    return (z, y, x)
