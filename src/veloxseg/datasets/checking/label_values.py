"""The values of a label: whether they are those of dataset.json, and how often each occurs."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from veloxseg.datasets.cases import Case
from veloxseg.datasets.description import DatasetDescription
from veloxseg.datasets.labels import integer_labels
from veloxseg.datasets.problems import Kind, Problem, Severity
from veloxseg.errors import DatasetError
from veloxseg.volumes.volume import Volume

SPECK_VOXELS = 3
"""A label value with so few voxels in a case, or fewer, is looked at: a slip of the mouse?"""

_LARGEST_COUNTED = 1 << 16


def check_label(
    case: Case, label: Volume, description: DatasetDescription
) -> tuple[Counter[int], list[Problem]]:
    """Count the values of a label and say what is wrong with them.

    Errors: values that are no integers, or nearly ones (nnU-Net cuts 0.9999999 to 0), or not in
    dataset.json. Warnings: integers stored as floats, no foreground, a value with
    ``SPECK_VOXELS`` voxels or fewer.

    Returns:
        Value -> number of voxels, empty if they are no integers; and the problems.
    """
    where = f"Case {case.name}: the label {case.label}"
    try:
        counts, departure = _count_values(label, where)
    except DatasetError as error:
        return Counter(), [_problem(case, "label_not_integer", str(error), severity="error")]
    problems = list(_check_storage(case, label, departure))
    unknown = sorted(set(counts) - set(description.label_values))
    if unknown:
        message = (
            f"Case {case.name}: the label has values {unknown}, which dataset.json does not name; "
            f"it has {list(description.label_values)}. Name them there or correct the label."
        )
        num_voxels = {str(value): counts[value] for value in unknown}
        problems.append(
            _problem(case, "label_unknown_value", message, severity="error", num_voxels=num_voxels)
        )
    elif not set(counts) - {0, description.ignore_label}:
        message = (
            f"{where} has no foreground. Expected some voxel of {name_foreground(description)}. "
            "Fine if this patient has nothing to segment."
        )
        problems.append(_problem(case, "label_empty", message))
    problems += _check_specks(case, counts)
    return counts, problems


def unseen_values(seen: set[int], description: DatasetDescription) -> Iterator[Problem]:
    """Say which label values of dataset.json no case has."""
    unseen = sorted(set(description.label_values) - seen - {0, description.ignore_label})
    if unseen:
        yield Problem(
            case=None,
            severity="warning",
            message=f"dataset.json: no case has a voxel of the label values {unseen} "
            f"({name_foreground(description)}). A network cannot learn them. Remove them there, "
            "or look whether the label files were renumbered.",
            kind="label_value_never_seen",
            numbers={"values": unseen},
        )


def name_foreground(description: DatasetDescription) -> str:
    """The labels to segment with their values: ``tumour = 1, whole = [1, 2]``."""
    return ", ".join(
        f"{name} = {list(value) if isinstance(value, tuple) else value}"
        for name, value in description.labels.items()
        if name not in ("background", "ignore")
    )


def _count_values(label: Volume, where: str) -> tuple[Counter[int], float]:
    """Value -> number of voxels, and the largest departure from an integer."""
    counts: Counter[int] = Counter()
    departure = 0.0
    for plane in label.data:  # plane by plane: as int64 the whole would take eight times its memory
        try:
            integers = integer_labels(plane, where=where)
        except DatasetError:
            integer_labels(label.data, where=where)  # counts the voxels of the whole
            raise
        if plane.dtype.kind == "f":
            departure = max(departure, float(np.abs(plane - integers).max()))
        if integers.min() >= 0 and integers.max() < _LARGEST_COUNTED:
            occurring = np.bincount(integers.ravel())
            values = np.flatnonzero(occurring)
            counts.update(dict(zip(values.tolist(), occurring[values].tolist(), strict=True)))
        else:
            found, times = np.unique(integers, return_counts=True)
            counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
    return counts, departure


def _check_storage(case: Case, label: Volume, departure: float) -> Iterator[Problem]:
    if label.data.dtype.kind != "f":
        return
    if departure > 0:
        message = (
            f"Case {case.name}: the label {case.label} holds floats that miss integers by up to "
            f"{departure:.2g}. Expected integers: nnU-Net cuts 0.9999999 to 0 and loses the label. "
            "Mend it: veloxseg check --fix"
        )
        yield _problem(case, "label_inexact", message, severity="error", departure=departure)
    else:
        message = (
            f"Case {case.name}: the label {case.label} is stored as floats. Expected integers, "
            "which take a quarter of the space and which every program reads. "
            "Mend it: veloxseg check --fix"
        )
        yield _problem(case, "label_as_float", message)


def _check_specks(case: Case, counts: Counter[int]) -> Iterator[Problem]:
    for value, num_voxels in sorted(counts.items()):
        if value != 0 and num_voxels <= SPECK_VOXELS:
            message = (
                f"Case {case.name}: the label has {num_voxels} "
                f"voxel{'s' if num_voxels > 1 else ''} of the value {value}. "
                f"Expected more than {SPECK_VOXELS}, or none. Look whether they were meant."
            )
            yield _problem(case, "label_speck", message, value=value, num_voxels=num_voxels)


def _problem(
    case: Case, kind: Kind, message: str, *, severity: Severity = "warning", **numbers: object
) -> Problem:
    return Problem(
        case=case.name,
        severity=severity,
        message=message,
        kind=kind,
        part="label",
        numbers=numbers,
    )
