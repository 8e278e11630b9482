"""Names of cases and of patients that are safe in a file system, and tell no one's identity."""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from veloxseg.errors import DatasetError
from veloxseg.volumes.dicom.index import DicomStudy

DEFAULT_CASE_NAME = "{patient}_{date}"
_FIELDS = ("patient", "date", "study")
_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How cases and patients are called.

    Attributes:
        pattern: Of case names, from ``{patient}``, ``{date}`` (of the study, YYYYMMDD) and
            ``{study}`` (a hash of the Study Instance UID).
        key: Secret text that hashes patient IDs (HMAC-SHA256), so that none is written anywhere;
            None writes them as they are.

    Raises:
        DatasetError: the key is empty, so that anyone could tell IDs by their hashes.
    """

    pattern: str = DEFAULT_CASE_NAME
    key: str | None = None

    def __post_init__(self) -> None:
        """Check the key."""
        if self.key == "":
            raise DatasetError(
                "The key that hashes patient IDs is empty. Expected a secret text: --patient-key "
                "SECRET or VELOXSEG_PATIENT_KEY; unset that variable to write IDs as they are."
            )

    def patient_of(self, study: DicomStudy) -> str | None:
        """The study's patient as recorded; None if it has no Patient ID."""
        identity = next(iter(study.patients), "")
        if not identity:
            return None
        return identity if self.key is None else "p" + _hash(identity, self.key)

    def case_of(self, study: DicomStudy) -> str:
        """The study's case name.

        Letters, digits, ``.``, ``-`` and ``_`` stay, all else becomes ``_``.

        Raises:
            DatasetError: the pattern has an unknown field.
        """
        values = {
            "patient": _safe(self.patient_of(study) or "") or f"study-{_hash(study.uid, '')}",
            "date": _safe(study.date),
            "study": _hash(study.uid, ""),
        }
        try:
            name = self.pattern.format(**values)
        except (AttributeError, KeyError, ValueError, IndexError) as error:
            raise DatasetError(
                f"The case name '{self.pattern}' cannot be filled ({error}). Expected a text with "
                f"{', '.join('{' + name + '}' for name in _FIELDS)}."
            ) from error
        return _safe(name) or values["patient"]

    @property
    def fingerprint(self) -> str | None:
        """What tells two keys apart, and not what they are."""
        return None if self.key is None else _hash("veloxseg", self.key)


def name_cases(studies: Sequence[DicomStudy], naming: Naming) -> dict[str, DicomStudy]:
    """Name all studies.

    Returns:
        Case name to its study, in the order of the names.

    Raises:
        DatasetError: two studies get one name, or names that differ in case alone.
    """
    named: dict[str, tuple[str, DicomStudy]] = {}
    for study in studies:
        name = naming.case_of(study)
        other = named.setdefault(name.casefold(), (name, study))
        if other[1] is not study:
            raise DatasetError(
                f"Studies {other[1].uid} and {study.uid} are both called {name}. Expected a name "
                "of its own for each case. Give a pattern: --case-name '{patient}_{date}_{study}'."
            )
    cases: Mapping[str, DicomStudy] = dict(named.values())
    return dict(sorted(cases.items()))


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip(".-_")


def _hash(text: str, key: str) -> str:
    digest = hmac.new(key.encode(), text.encode(errors="surrogateescape"), hashlib.sha256)
    return digest.hexdigest()[:_DIGITS]
