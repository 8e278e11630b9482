"""Labelled cases for the exporter: read, preprocessed, and patches cut from them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.atomic import read_json
from veloxseg.bundle.format import Pipeline
from veloxseg.datasets.cases import Case, pair_files
from veloxseg.datasets.description import DatasetDescription
from veloxseg.datasets.labels import integer_labels
from veloxseg.runtime.preprocessing import Preprocessed, preprocess_volumes
from veloxseg.volumes.orientation import to_ras
from veloxseg.volumes.reading import read_volume

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RealCases:
    """The cases of a run's dataset, as far as they are still there.

    Attributes:
        training: Cases that no exported fold was validated on, and that no split keeps for testing.
        validation: Cases that exported folds were validated on.
    """

    training: tuple[Case, ...] = ()
    validation: tuple[Case, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadCase:
    """A case in the network's range, and what is right for it.

    Attributes:
        image: On the network's grid.
        labels: (Z, Y, X) as annotated, on the image's grid, turned as the pipeline turns images.
    """

    image: Preprocessed
    labels: Labels


def find_real_cases(
    dataset: Path,
    description: DatasetDescription,
    folds: Sequence[Path],
    *,
    apart: Collection[str] = (),
) -> RealCases:
    """Find the labelled cases that a run was trained and validated on.

    Args:
        dataset: Its folder in ``nnUNet_raw``; it may be gone.
        description: Of the dataset.
        folds: The folders of the exported folds; their ``validation`` names the cases.
        apart: Cases that are kept for testing.
    """
    cases, _ = pair_files(dataset, description)
    validated = {
        Path(case["reference_file"]).name.removesuffix(description.file_ending)
        for fold in folds
        for case in read_validation(fold).get("metric_per_case", [])
    }
    return RealCases(
        training=tuple(case for case in cases if case.name not in {*validated, *apart}),
        validation=tuple(case for case in cases if case.name in validated),
    )


def read_validation(fold: Path) -> dict[str, Any]:
    """Content of a fold's ``validation/summary.json``; nothing where there is none."""
    file = fold / "validation" / "summary.json"
    summary: dict[str, Any] = read_json(file) if file.is_file() else {}
    return summary


def read_case(case: Case, pipeline: Pipeline) -> ReadCase:
    """Read a labelled case and preprocess it.

    Raises:
        ImageReadError: a file cannot be read.
        DatasetError: the labels are no integers.
    """
    assert case.label is not None
    images = [None if path is None else read_volume(path) for path in case.images]
    image = preprocess_volumes(images, pipeline)
    annotation = read_volume(case.label)
    if pipeline.orientation == "ras":
        annotation = to_ras(annotation)
    return ReadCase(image=image, labels=integer_labels(annotation.data, where=str(case.label)))


def real_patches(cases: Sequence[Case], pipeline: Pipeline, *, number: int) -> list[Array]:
    """Patches (C, Z, Y, X) of preprocessed cases, the same each time.

    Two of three have a foreground voxel in their middle, the others lie anywhere.

    Args:
        cases: To take them from, evenly; without any there are no patches.
        pipeline: How cases are preprocessed, and how large a patch is.
        number: How many patches.
    """
    if not cases:
        return []
    generator = np.random.default_rng(0)
    order = generator.permutation(len(cases))[:number]
    patches = []
    for place, index in enumerate(order):
        case = read_case(cases[index], pipeline)
        for position in range(place, number, len(order)):
            centre = _centre(case, pipeline, generator, on_foreground=position % 3 != 2)
            patches.append(_cut(case.image.data, centre, pipeline.patch_size))
    return patches


def _centre(
    case: ReadCase, pipeline: Pipeline, generator: np.random.Generator, *, on_foreground: bool
) -> list[int]:
    """A voxel of the network's grid."""
    placement = case.image.placement
    inside = case.labels.transpose(pipeline.transpose)[placement.box_slices]
    foreground = np.flatnonzero((inside != 0) & (inside != pipeline.labels.get("ignore", -1)))
    if not on_foreground or foreground.size == 0:
        return [int(generator.integers(size)) for size in placement.network_shape]
    voxel = np.unravel_index(generator.choice(foreground), inside.shape)
    return [
        int(v * n / b) for v, n, b in zip(voxel, placement.network_shape, inside.shape, strict=True)
    ]


def _cut(data: Array, centre: Sequence[int], patch_size: Sequence[int]) -> Array:
    """A patch around a voxel, shifted into the image, or with zeros around an image too short."""
    patch = np.zeros((len(data), *patch_size), np.float32)
    inside, within = [slice(None)], [slice(None)]
    for i, size, extent in zip(centre, patch_size, data.shape[1:], strict=True):
        start = min(max(i - size // 2, 0), max(extent - size, 0))
        margin = max(size - extent, 0) // 2
        within.append(slice(start, start + min(size, extent)))
        inside.append(slice(margin, margin + min(size, extent)))
    patch[tuple(inside)] = data[tuple(within)]
    return patch
