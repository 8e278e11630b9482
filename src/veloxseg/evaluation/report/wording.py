"""The sentences of a report."""

import math
from collections.abc import Mapping, Sequence

from veloxseg.evaluation.report.axes import write_number
from veloxseg.evaluation.report.cases import foreground_dice
from veloxseg.evaluation.report.pictures import CasePicture
from veloxseg.evaluation.report.reading import CrossValidationEntry
from veloxseg.evaluation.statistics import Statistics
from veloxseg.shortening import shorten

_SHOWN = 4


def lead(num_cases: int, labels: Mapping[str, str], overall: Mapping[str, Statistics]) -> str:
    """The first sentences: how many cases and labels, and the mean Dice.

    Args:
        num_cases: Of the evaluation.
        labels: Names of its labels by their keys.
        overall: Statistics of the foreground mean by metric.
    """
    names = list(labels.values())
    said = [f"{_count(num_cases, 'case')}, {_count(len(names), 'label')}: "]
    said.append(f"{shorten(names, shown=_SHOWN)}.")
    dice = overall.get("Dice")
    if dice is None:
        return "".join(said)
    if math.isnan(dice.mean):
        return "".join([*said, " Dice is undefined in every case: all masks are empty."])
    said.append(f" Mean Dice {write_number(dice.mean, 3)}")
    if not math.isnan(dice.interval[0]):
        low, high = (write_number(limit, 3) for limit in dice.interval)
        said.append(f" (95 % interval {low} to {high})")
    said.append(
        ", undefined in " + _count(dice.num_undefined, "case") if dice.num_undefined else ""
    )
    return "".join([*said, "."])


def describe_folds(folds: CrossValidationEntry) -> str:
    """Which folds a cross-validation is about."""
    found = [f"{fold} ({_count(number, 'case')})" for fold, number in folds.num_cases.items()]
    return f"Cross-validation, fold{'s' if len(found) > 1 else ''} {', '.join(found)}."


def describe_gaps(folds: CrossValidationEntry | None, not_predicted: Sequence[str]) -> list[str]:
    """Which cases the figures are not about, a sentence each.

    Args:
        folds: Of a cross-validation; None without one.
        not_predicted: Cases of the references without a prediction.
    """
    said = []
    if folds is not None and folds.missing:
        said.append(f"Missing from the cross-validation: {_folds(folds.missing)}.")
    if folds is not None and folds.unfinished:
        said.append(f"Perhaps unfinished, with cases missing: {_folds(folds.unfinished)}.")
    if not_predicted:
        said.append(
            f"Not predicted, and not counted: {len(not_predicted)} of the references "
            f"({shorten(not_predicted)})."
        )
    return said


def describe_picture(picture: CasePicture, labels: Mapping[str, str]) -> str:
    """Figures of a pictured case: its Dice, and of each label where there are a few."""
    said = f"Dice {write_number(foreground_dice(picture.case), 3)}"
    if 1 < len(labels) <= _SHOWN:
        parts = (
            f"{name} {write_number(picture.case.values[label].get('Dice', math.nan), 3)}"
            for label, name in labels.items()
        )
        said = f"Mean {said} ({', '.join(parts)})"
    elif len(labels) > 1:
        said = f"Mean {said}"
    return f"{said}. {picture.place}".strip()


def _folds(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
