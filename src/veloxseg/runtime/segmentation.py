"""What a model says of a case."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.atomic import atomic_path
from veloxseg.errors import VeloxSegError
from veloxseg.volumes.reading import write_mask
from veloxseg.volumes.volume import Grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """A mask on the grid of the image it was made from.

    Attributes:
        mask: (Z, Y, X) labels, uint8 or uint16; 0 is background.
        grid: Where its voxels lie.
        labels: Name to value, of a region to its values.
        probabilities: (K, Z, Y, X) float16: of each class, background first, or of each region;
            None unless they were asked for.
        timings: Seconds of each stage: ``read``, ``preprocess``, ``network``, ``postprocess``.
        num_tiles: Patches that the network was run on.
        source: The image file whose header a saved mask takes over; None for arrays.
    """

    mask: npt.NDArray[np.uint8 | np.uint16]
    grid: Grid
    labels: dict[str, int | tuple[int, ...]]
    probabilities: npt.NDArray[np.float16] | None = None
    timings: dict[str, float]
    num_tiles: int
    source: Path | None = None

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels in mm along each array axis."""
        return self.grid.spacing_zyx

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume in ml of each label or region."""
        return label_volumes_ml(self.mask, self.grid, self.labels)

    def save(self, path: Path) -> None:
        """Write the mask whole or not at all; the name's ending chooses the format.

        A NIfTI mask of a NIfTI image takes over its header's geometry to the bit.

        Raises:
            OSError: it cannot be written.
        """
        write_mask(Path(path), self.mask, self.grid, like=self.source)

    def save_probabilities(self, path: Path) -> None:
        """Write the probabilities as NumPy's ``.npz``: (K, Z, Y, X) under ``probabilities``.

        Raises:
            VeloxSegError: there are none.
            OSError: they cannot be written.
        """
        if self.probabilities is None:
            raise VeloxSegError("No probabilities were kept. Ask for them: probabilities=True.")
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, probabilities=self.probabilities)


def label_volumes_ml(
    mask: npt.NDArray[Any], grid: Grid, labels: dict[str, int | tuple[int, ...]]
) -> dict[str, float]:
    """Volume in ml of each label or region of a mask, in the order of ``labels``."""
    voxel_ml = float(np.prod(grid.spacing_zyx)) / 1000
    counts = _counts(mask)
    return {
        name: voxel_ml * sum(int(counts[v]) for v in _values(value) if v < len(counts))
        for name, value in labels.items()
    }


def _values(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _counts(mask: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """How many voxels have each value; plane by plane, as counting makes eight bytes of each."""
    counts = np.zeros(int(mask.max()) + 1, np.int64)
    for plane in mask:
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    return counts
