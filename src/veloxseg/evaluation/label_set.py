"""Which labels an evaluation is about: named by a dataset, by the user, or found in the masks."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.datasets.description import FILE_NAME, DatasetDescription, read_description
from veloxseg.datasets.labels import integer_labels
from veloxseg.errors import DatasetError
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import Volume

Label = int | tuple[int, ...]
"""A label's value, or a region's values; as JSON keys ``1`` and ``(1, 2)``, as nnU-Net has them."""

_SHOWN = 5
_LARGEST_COUNTED = 4095  # labels are few and small, and counting them is faster than sorting


def find_description(folders: Iterable[Path]) -> DatasetDescription | None:
    """The dataset.json of the first of ``folders`` that has one.

    Raises:
        DatasetError: it is no legal one.
    """
    for folder in folders:
        if (folder / FILE_NAME).is_file():
            return read_description(folder)
    return None


def ignored_value(labels: Mapping[str, int | Sequence[int]]) -> int | None:
    """The value of the label that is called ``ignore``; None where there is none.

    Raises:
        DatasetError: it is a region.
    """
    value = labels.get("ignore")
    if value is None or isinstance(value, int):
        return value
    raise DatasetError(f"The label 'ignore' is {value}. Expected one whole number.")


def foreground_names(labels: Mapping[str, int | Sequence[int]]) -> dict[Label, str]:
    """Name of each label or region but the background and what is ignored.

    Raises:
        DatasetError: none is left, or two have one value, or are one region.
    """
    names: dict[Label, str] = {}
    for name, value in labels.items():
        values = [value] if isinstance(value, int) else list(value)
        if name == "ignore" or not any(values):
            continue
        label = value if isinstance(value, int) else tuple(values)
        if label in names:
            raise DatasetError(
                f"The labels {names[label]} and {name} are both {label}. Expected a value or "
                "region of its own for each. Correct dataset.json, or name the labels: "
                "--labels NAME=VALUE."
            )
        names[label] = name
    if not names:
        raise DatasetError(
            "There is no label but the background. Name at least one to evaluate: "
            "--labels NAME=VALUE."
        )
    return names


def names_of_values(values: set[int]) -> dict[str, int]:
    """Names for the positive ones of values that no dataset.json names: ``label 1``, ...

    Raises:
        DatasetError: there are none.
    """
    values = {value for value in values if value > 0}
    if not values:
        raise DatasetError(
            "All masks are empty, and there is no dataset.json to name labels. Name them: "
            "--labels NAME=VALUE."
        )
    return {f"label {value}": value for value in sorted(values)}


def read_mask(case: str, file: Path) -> Volume:
    """Read a mask (Z, Y, X); whole numbers stored as floats become integers of few bytes.

    Raises:
        DatasetError: a voxel holds no whole number, such as NaN.
        ImageReadError: the file is no whole image.
    """
    mask = read_volume(file)
    if mask.data.dtype.kind != "f":
        return mask
    labels = integer_labels(mask.data, where=f"Case {case}: {file}")
    return Volume.on_grid(_in_few_bytes(labels), mask.grid)


def _in_few_bytes(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.integer]:
    lowest, highest = int(labels.min()), int(labels.max())
    for dtype in (np.uint8, np.int16, np.int32):
        if np.iinfo(dtype).min <= lowest and highest <= np.iinfo(dtype).max:
            return labels.astype(dtype)
    return labels


def values_in(data: npt.NDArray[Any]) -> set[int]:
    """All values of a mask of integers (Z, Y, X), slice by slice: a large one takes memory."""
    largest = int(data.max())
    if int(data.min()) < 0 or largest > _LARGEST_COUNTED:
        return {int(value) for part in data for value in np.unique(part)}
    seen = np.zeros(largest + 1, np.bool_)
    for part in data:
        seen |= np.bincount(part.ravel().astype(np.intp, copy=False), minlength=largest + 1) > 0
    return {int(value) for value in np.flatnonzero(seen)}


def members(label: Label) -> list[int]:
    """The values that belong to a label or a region."""
    return [label] if isinstance(label, int) else list(label)


def mask_of(data: npt.NDArray[Any], label: Label) -> npt.NDArray[np.bool_]:
    """Where a mask (Z, Y, X) holds a label, or one of a region's values."""
    mask: npt.NDArray[np.bool_] = (
        data == label if isinstance(label, int) else np.isin(data, members(label))
    )
    return mask


def require_known(case: str, file: Path, data: npt.NDArray[Any], known: set[int]) -> None:
    """Make sure that a mask holds no value but the known ones.

    Raises:
        DatasetError: it does.
    """
    if strangers := sorted(values_in(data) - known):
        raise DatasetError(
            f"Case {case}: {file} holds {', '.join(map(str, strangers[:_SHOWN]))}. Expected only "
            f"{', '.join(map(str, sorted(known)))}. Correct the mask, or name all "
            "its labels: --labels NAME=VALUE."
        )
