"""Giving label values the numbers that nnU-Net wants: consecutive from 0."""

from collections.abc import Mapping

import numpy as np

from veloxseg.datasets.labels import integer_labels
from veloxseg.errors import DatasetError
from veloxseg.volumes.volume import Volume


def renumber(case: str, label: Volume, values: Mapping[int, int]) -> tuple[Volume, dict[str, int]]:
    """Replace the values of a label.

    Args:
        case: The case's name, for errors.
        label: (Z, Y, X) label values as stored, perhaps as floats.
        values: Every value that may occur to the one that replaces it, 0 to 255.

    Returns:
        The uint8 label, and those of ``values`` that change something, a value of the source as
        text to the new one.

    Raises:
        DatasetError: a value is no integer, or not in ``values``.
    """
    data = integer_labels(label.data, where=f"Case {case}: the label")
    found, index = np.unique(data, return_inverse=True)
    unknown = [int(value) for value in found if int(value) not in values]
    if unknown:
        raise DatasetError(
            f"Case {case}: the label has values {unknown}. Expected only {sorted(values)}. "
            "Look whether the file is another release's or was edited, and correct it."
        )
    new = np.array([values[int(value)] for value in found], np.uint8)
    renumbered = Volume.on_grid(new[index].reshape(data.shape), label.grid)
    return renumbered, {str(old): now for old, now in values.items() if old != now}
