"""What is wrong with a dataset, case by case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from veloxseg.errors import DatasetError
from veloxseg.volumes.volume import Grid, describe_difference

_SHOWN = 20

Severity = Literal["error", "warning"]
"""``error`` if training would fail or learn nonsense, else ``warning``."""


Kind = Literal[
    "description",
    "patients",
    "pairing",
    "num_training",
    "few_cases",
    "unreadable",
    "refused_by_itk",
    "not_orthonormal",
    "forms_disagree",
    "no_place",
    "grids_differ",
    "grids_nearly_equal",
    "spacing_outlier",
    "extent_outlier",
    "orientation_differs",
    "label_not_integer",
    "label_inexact",
    "label_as_float",
    "label_unknown_value",
    "label_empty",
    "label_speck",
    "label_value_never_seen",
    "not_finite",
    "constant",
    "channel_copied",
    "ct_rescaled",
    "ct_without_intercept",
    "ct_without_air",
    "ct_out_of_range",
    "pet_looks_like_ct",
    "pet_negative",
    "pet_not_suv",
    "pet_rescaled",
    "duplicate_images",
    "duplicate_labels",
    "train_test_duplicate",
    "train_test_patient",
    "splits_unreadable",
    "splits_unknown_case",
    "splits_empty",
    "splits_case_twice",
    "splits_leak_patient",
    "splits_leak_duplicate",
    "splits_forget_case",
]
"""What is wrong, in one word for programs; docs/checking.md explains each."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        case: The case it is wrong with; None if with the dataset as a whole.
        severity: ``error`` if training would fail or learn nonsense, else ``warning``.
        message: Where, what was found, what was expected, what to do.
        kind: What is wrong, in one word for programs.
        part: The channel's name or ``label``; None if the case as a whole.
        numbers: What was measured, as JSON values by name; units are in the names.
    """

    case: str | None
    severity: Severity
    message: str
    kind: Kind = "pairing"
    part: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict, hash=False)


def raise_problems(where: str, problems: Sequence[Problem]) -> None:
    """Raise one error that lists the first problems and counts the rest; none, no error.

    Raises:
        DatasetError: there is a problem.
    """
    if not problems:
        return
    lines = [f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''} found."]
    lines += [f"  {problem.message}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  ... and {len(problems) - _SHOWN} more.")
    raise DatasetError("\n".join(lines))


def describe_two_grids(case: str, name_a: str, a: Grid, name_b: str, b: Grid) -> str:
    """Say that two images of a case lie on different grids, how, and what to do."""
    what = "A label and its images" if name_b == "label" else "All channels of a case"
    return (
        f"Case {case}: {describe_difference(name_a, a, name_b, b)}. {what} must share one grid. "
        f"Resample first: veloxseg convert folder ... --reference {name_a}"
    )
