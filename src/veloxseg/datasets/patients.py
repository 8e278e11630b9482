"""Which patient a case is of, so that no patient is learned from and judged on at once.

The converters write it down (``conversion_Tr.json``); for other datasets dataset.json may say how
the patient stands in a case's name: ``"patient_pattern": "{patient}_*"``.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json
from veloxseg.datasets.description import FILE_NAME, read_description
from veloxseg.errors import DatasetError

PATTERN_KEY = "patient_pattern"
"""Key of dataset.json: the form of case names, ``{patient}`` for the patient, ``*`` anything,
each as short as may be."""

_PATIENT = "{patient}"


def patients_of_cases(folder: Path, cases: Iterable[str]) -> dict[str, str]:
    """Find the patient of every case.

    Taken from the record of the conversion; where it names none, from ``patient_pattern`` in
    dataset.json; where there is none, each case is a patient of its own.

    Args:
        folder: The dataset's folder in ``nnUNet_raw``, with its dataset.json.
        cases: Names of training or test cases.

    Returns:
        Case -> patient, in the order of ``cases``.

    Raises:
        DatasetError: dataset.json or the record is broken, the pattern has not exactly one
            ``{patient}``, or the name of a case that nothing else names a patient of does not
            match it.
    """
    pattern = (read_description(folder).model_extra or {}).get(PATTERN_KEY)
    where = folder / FILE_NAME
    expression = None if pattern is None else _expression(pattern, where=where)
    recorded = _recorded_patients(folder)
    patients = {}
    for case in cases:
        if case in recorded:
            patients[case] = recorded[case]
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


def _recorded_patients(folder: Path) -> dict[str, str]:
    patients: dict[str, str] = {}
    for part in ("Ts", "Tr"):
        record = folder / f"conversion_{part}.json"
        content = read_json(record) if record.is_file() else {}
        cases = content.get("cases", {}) if isinstance(content, dict) else {}
        patients |= {
            name: str(case["patient"])
            for name, case in (cases.items() if isinstance(cases, dict) else ())
            if isinstance(case, dict) and case.get("patient") is not None
        }
    return patients


def _expression(pattern: Any, *, where: Path) -> re.Pattern[str]:
    if not isinstance(pattern, str) or pattern.count(_PATIENT) != 1:
        raise DatasetError(
            f"{where}: {PATTERN_KEY} is {pattern!r}. Expected a text with {_PATIENT} once, for the "
            "patient in a case's name, and perhaps * for what varies, such as '{patient}_*'."
        )
    text = re.escape(pattern).replace(r"\*", ".*?")
    return re.compile(text.replace(re.escape(_PATIENT), "(?P<patient>.+?)"))
