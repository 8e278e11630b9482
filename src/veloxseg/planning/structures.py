"""How large the labelled structures are: the fingerprint's missing number."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from veloxseg.volumes.orientation import to_ras
from veloxseg.volumes.reading import read_volume
from veloxseg.workers import results_of

TURNING_READER = "NibabelIOWithReorient"
"""nnU-Net's reader that turns images: a dataset's axes are then those of RAS."""


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


@dataclass(frozen=True, kw_only=True)
class StructureSizes:
    """How large a dataset's labelled components are: what the fingerprint holds of them.

    Attributes:
        num_components: Over all cases and labels, specks of one voxel left out.
        percentile_10_mm: Extents that a tenth of the components fall below, per axis (Z, Y, X);
            infinity where there are no components.
        median_mm: Median extents likewise.
    """

    num_components: int
    percentile_10_mm: tuple[float, float, float]
    median_mm: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; infinity, which JSON has no word for, is null."""
        return {
            "num_components": self.num_components,
            "percentile_10_mm": [v if isfinite(v) else None for v in self.percentile_10_mm],
            "median_mm": [v if isfinite(v) else None for v in self.median_mm],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "StructureSizes":
        """What :meth:`to_json` gave."""
        return cls(
            num_components=content["num_components"],
            percentile_10_mm=_triple(content["percentile_10_mm"]),
            median_mm=_triple(content["median_mm"]),
        )


@dataclass(frozen=True, kw_only=True)
class _LabelReader:
    """Component extents of one label file; picklable, for processes."""

    values: tuple[int, ...]
    turned: bool

    def __call__(self, path: Path) -> NDArray[np.float64]:
        volume = read_volume(path)
        if self.turned:
            volume = to_ras(volume)
        data = np.rint(volume.data).astype(np.int64)
        return component_extents_mm(data, self.values, volume.spacing_zyx)


def measure_structures(
    labels: Sequence[Path], values: Sequence[int], *, turned: bool = False, num_workers: int = 1
) -> StructureSizes:
    """Measure the components of every label file of a dataset.

    Args:
        labels: The files.
        values: Labels to look at.
        turned: Whether images are turned to RAS when they are read, as by ``TURNING_READER``.
        num_workers: Processes that read files.
    """
    read = _LabelReader(values=tuple(values), turned=turned)
    extents = results_of(read, labels, num_workers=num_workers)
    every = np.concatenate([np.empty((0, 3)), *extents])
    if not len(every):
        nothing = (inf, inf, inf)
        return StructureSizes(num_components=0, percentile_10_mm=nothing, median_mm=nothing)
    return StructureSizes(
        num_components=len(every),
        percentile_10_mm=_triple(np.percentile(every, 10, axis=0)),
        median_mm=_triple(np.percentile(every, 50, axis=0)),
    )


def _triple(values: Iterable[float | None]) -> tuple[float, float, float]:
    z, y, x = (inf if value is None else float(value) for value in values)
    return (z, y, x)
