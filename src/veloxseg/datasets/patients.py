"""Which patient a case is of, so that no patient is learned from and judged on at once.

The converters write it down (``conversion_Tr/CASE.json``); for other datasets dataset.json may say
how the patient stands in a case's name: ``"patient_pattern": "{patient}_*"``.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from veloxseg.datasets.cases import Part
from veloxseg.datasets.converters.manifest import read_record, record_path
from veloxseg.datasets.description import FILE_NAME, read_description
from veloxseg.errors import DatasetError

PATTERN_KEY = "patient_pattern"
"""Key of dataset.json: the form of case names, ``{patient}`` for the patient, ``*`` anything,
each as short as may be."""

_PATIENT = "{patient}"


def patients_of_cases(
    folder: Path, cases: Iterable[str], *, part: Part | None = None
) -> dict[str, str]:
    """Find the patient of every case.

    Taken from the record of the case's conversion; where it names none, from ``patient_pattern`` in
    dataset.json; where there is none, each case is a patient of its own.

    Args:
        folder: The dataset's folder in ``nnUNet_raw``, with its dataset.json.
        cases: Names of training or test cases.
        part: Which of them they are, where both kinds may have the same names; None: either.

    Returns:
        Case -> patient, in the order of ``cases``.

    Raises:
        DatasetError: dataset.json or a record is broken, the pattern has not exactly one
            ``{patient}``, or the name of a case that nothing else names a patient of does not
            match it.
    """
    pattern = (read_description(folder).model_extra or {}).get(PATTERN_KEY)
    where = folder / FILE_NAME
    expression = None if pattern is None else _expression(pattern, where=where)
    patients = {}
    for case in cases:
        recorded = _recorded_patient(folder, case, part)
        if recorded is not None:
            patients[case] = recorded
        elif expression is None:
            patients[case] = case
        elif match := expression.fullmatch(case):
            patients[case] = match["patient"]
        else:
            raise DatasetError(
                f"{where}: the case {case} does not match {PATTERN_KEY} '{pattern}'. "
                "Expected a pattern that fits the name of every case. Correct it there, or remove "
                "it, and each case is a patient of its own."
            )
    return patients


def _recorded_patient(folder: Path, case: str, part: Part | None) -> str | None:
    parts: tuple[Part, ...] = ("Tr", "Ts") if part is None else (part,)
    for one in parts:
        path = record_path(folder, case, part=one)
        if path.is_file():
            patient = read_record(path).patient
            if patient is not None:
                return patient
    return None


def _expression(pattern: Any, *, where: Path) -> re.Pattern[str]:
    if not isinstance(pattern, str) or pattern.count(_PATIENT) != 1:
        raise DatasetError(
            f"{where}: {PATTERN_KEY} is {pattern!r}. Expected a text with {_PATIENT} once, for the "
            "patient in a case's name, and perhaps * for what varies, such as '{patient}_*'."
        )
    text = re.escape(pattern).replace(r"\*", ".*?")
    return re.compile(text.replace(re.escape(_PATIENT), "(?P<patient>.+?)"))
