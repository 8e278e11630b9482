"""The cases of a report: their figures as columns, and which of them to show in pictures."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from veloxseg.errors import DatasetError
from veloxseg.evaluation.measuring import METRICS, Metric
from veloxseg.evaluation.report.origin import last_name
from veloxseg.evaluation.report.reading import FOREGROUND, CaseEntry, SummaryFile
from veloxseg.evaluation.statistics import mean_of_defined

_MOST_WORST = 3
_ENDINGS = (".nii.gz", ".seg.nrrd")


@dataclass(frozen=True, kw_only=True)
class ReportedCase:
    """One case.

    Attributes:
        name: The case's name.
        ending: Of its files, with the dot; empty where the summary names none.
        prediction: Its mask; None where the summary names none.
        reference: The mask that it was compared with.
        resampled: Whether the prediction was brought onto the reference's grid.
        subset: The channels that it has, as ``CT+PET``; empty where the summary does not say.
        values: Of each label, and of the foreground mean: each metric by its key; NaN where
            undefined.
    """

    name: str
    ending: str
    prediction: Path | None
    reference: Path | None
    resampled: bool
    subset: str
    values: Mapping[str, Mapping[str, float]]


def list_cases(summary: SummaryFile, *, folder: Path) -> list[ReportedCase]:
    """Bring the cases of a summary into one form.

    Args:
        summary: As it was read.
        folder: Of the summary's file; relative paths that lead nowhere from the working folder are
            looked up from there.

    Raises:
        DatasetError: two cases have one name.
    """
    cases = [
        _case(entry, number, summary, folder)
        for number, entry in enumerate(summary.metric_per_case, 1)
    ]
    (name, times), *_ = Counter(case.name for case in cases).most_common(1)
    if times > 1:
        raise DatasetError(
            f"{folder}: the summary lists case {name} {times} times. Expected each case once. "
            "Evaluate its masks again: veloxseg evaluate PREDICTIONS REFERENCES -o summary.json"
        )
    return cases


def find_metrics(cases: Sequence[ReportedCase]) -> list[Metric]:
    """The metrics that a summary holds, in our order."""
    held = {key for case in cases for row in case.values.values() for key in row}
    return [metric for key, metric in METRICS.items() if key in held]


def choose_cases(cases: Sequence[ReportedCase]) -> list[tuple[str, ReportedCase]]:
    """Choose the worst cases (three at most), the median one and the best by foreground mean Dice.

    No case is chosen twice. Of an even number, the lower of the middle cases is the median one.
    Cases whose Dice is undefined are never chosen.

    Returns:
        What each is, in words, and the case; the worst first.
    """
    ranked = sorted(
        (case for case in cases if not math.isnan(foreground_dice(case))),
        key=lambda case: (foreground_dice(case), case.name),
    )
    if not ranked:
        return []
    if len(ranked) == 1:
        return [("The only case", ranked[0])]
    middle = (len(ranked) - 1) // 2
    num_worst = min(_MOST_WORST, max(1, middle))
    ranks = ("Worst", "Second worst", "Third worst")
    chosen = list(zip(ranks, ranked[:num_worst], strict=False))
    if middle >= num_worst:
        chosen.append(("Median", ranked[middle]))
    return [*chosen, ("Best", ranked[-1])]


def foreground_dice(case: ReportedCase) -> float:
    """Mean Dice of a case over the labels for which it is defined; NaN where it is for none."""
    return case.values[FOREGROUND].get("Dice", math.nan)


def _case(entry: CaseEntry, number: int, summary: SummaryFile, folder: Path) -> ReportedCase:
    file = entry.reference_file or entry.prediction_file
    name, ending = _split_name(entry, file, number)
    rows = {
        label: {key: _number(value) for key, value in entry.metrics.get(label, {}).items()}
        for label in summary.labels
    }
    keys = dict.fromkeys(key for row in rows.values() for key in row)
    values = {label: {key: row.get(key, math.nan) for key in keys} for label, row in rows.items()}
    values[FOREGROUND] = {key: mean_of_defined(row[key] for row in values.values()) for key in keys}
    return ReportedCase(
        name=name,
        ending=ending,
        prediction=_located(entry.prediction_file, folder),
        reference=_located(entry.reference_file, folder),
        resampled=entry.resampled,
        subset=entry.subset or "",
        values=values,
    )


def _split_name(entry: CaseEntry, file: Path | None, number: int) -> tuple[str, str]:
    if file is None:
        return entry.case or f"case {number}", ""
    name = last_name(file)
    if entry.case and name.startswith(entry.case):
        return entry.case, name.removeprefix(entry.case)
    ending = next((one for one in _ENDINGS if name.endswith(one)), file.suffix)
    return entry.case or name.removesuffix(ending), ending


def _located(path: Path | None, folder: Path) -> Path | None:
    if path is None or path.is_absolute() or path.exists():
        return path
    return folder / path if (folder / path).exists() else path


def _number(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else math.nan
