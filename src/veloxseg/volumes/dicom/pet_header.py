"""What a PET image's header says about quantities and times."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from veloxseg.errors import DatasetError
from veloxseg.volumes.dicom.files import interpreting, show_path
from veloxseg.volumes.suv import LONGEST_UPTAKE_HALF_LIVES, FrameTiming, PetHeader

_PHILIPS_CREATOR = "Philips PET Private Group"
_GE_CREATOR = "GEMS_PETD_01"
_ALIKE = (
    "units",
    "suv_type",
    "decay_correction",
    "corrected_image",
    "weight_kg",
    "dose_bq",
    "half_life_s",
    "injected_at",
    "philips_suv_factor",
    "philips_activity_factor",
)
_NO_DATE = date(1900, 1, 1)
_FEWEST_DIGITS = len("YYYYMMDDHHMM")


def header_of_series(headers: Mapping[Path, Any], *, where: str) -> PetHeader:
    """Collect what all slices of a series say about quantities.

    Args:
        headers: File to its pydicom dataset, read with all its attributes but the pixels.
        where: What to call the series in errors.

    Returns:
        The first slice's, with the earliest acquisition of all.

    Raises:
        DatasetError: two slices differ in a quantity that a series has but once.
    """
    moments = []
    for path, dataset in headers.items():
        with interpreting(path):
            moments.append(acquired_at(dataset))
    known = [moment for moment in moments if moment is not None]
    first_acquired_at = min(known) if known else None
    found: dict[Path, PetHeader] = {}
    for path, dataset in headers.items():
        with interpreting(path):
            found[path] = pet_header(dataset, first_acquired_at=first_acquired_at)
    (first, header), *others = found.items()
    for path, other in others:
        for name in _ALIKE:
            if getattr(header, name) != getattr(other, name):
                raise DatasetError(
                    f"{where}: no SUV: {name} is {getattr(header, name)} in {show_path(first)} and "
                    f"{getattr(other, name)} in {show_path(path)}. Expected one for all slices of "
                    "a series. Export it again; slices of two scans may be mixed."
                )
    return header


def pet_header(dataset: Any, *, first_acquired_at: datetime | None) -> PetHeader:
    """Collect what :func:`veloxseg.volumes.suv.suv_factor` needs.

    Args:
        dataset: A pydicom dataset of the series, read with all its attributes but the pixels.
        first_acquired_at: The earliest acquisition among all slices of the series.
    """
    injections = dataset.get("RadiopharmaceuticalInformationSequence") or [None]
    injection = injections[0]
    series_at = _moment(dataset, "Series")
    half_life_s = _number(injection, "RadionuclideHalfLife")
    known = [moment for moment in (series_at, first_acquired_at) if moment is not None]
    return PetHeader(
        units=_word(dataset, "Units"),
        suv_type=_word(dataset, "SUVType"),
        decay_correction=_word(dataset, "DecayCorrection"),
        corrected_image=_words(dataset, "CorrectedImage"),
        weight_kg=_number(dataset, "PatientWeight"),
        dose_bq=_number(injection, "RadionuclideTotalDose"),
        half_life_s=half_life_s,
        injected_at=injection_time(
            _date_time(injection, dataset),
            _time_of_day(injection, "RadiopharmaceuticalStartTime"),
            scan_at=min(known) if known else None,
            half_life_s=half_life_s,
        ),
        series_at=series_at,
        first_acquired_at=first_acquired_at,
        scanned_at=_ge_scan_time(dataset),
        philips_suv_factor=_private_number(dataset, 0x7053, 0x00, _PHILIPS_CREATOR),
        philips_activity_factor=_private_number(dataset, 0x7053, 0x09, _PHILIPS_CREATOR),
    )


def frame_timing(dataset: Any) -> FrameTiming:
    """Read when one slice was measured: its Acquisition Date and Time, and its duration."""
    duration_ms = _number(dataset, "ActualFrameDuration")
    return FrameTiming(
        acquired_at=acquired_at(dataset),
        duration_s=None if duration_ms is None else duration_ms / 1000,
    )


def acquired_at(dataset: Any) -> datetime | None:
    """Acquisition Date (0008,0022) and Time (0008,0032); None without a time."""
    return _moment(dataset, "Acquisition")


def injection_time(
    date_time: datetime | None,
    time_of_day: timedelta | None,
    *,
    scan_at: datetime | None,
    half_life_s: float | None,
) -> datetime | None:
    """Choose between the two attributes that tell the time of injection.

    The full one (0018,1078) is taken, unless its date cannot be right (after the scan, or longer
    before than ``LONGEST_UPTAKE_HALF_LIVES``; de-identifying shifts dates, and forgets some) and
    there is the other. The time of day (0018,1072) is the last one before the scan: on its date, or
    the day before if that were after the scan (midnight lies between).

    Args:
        date_time: Radiopharmaceutical Start DateTime (0018,1078).
        time_of_day: Radiopharmaceutical Start Time (0018,1072), since midnight.
        scan_at: When the scan began.
        half_life_s: The nuclide's half-life in s.
    """
    if date_time is not None and (
        time_of_day is None or scan_at is None or _is_plausible(date_time, scan_at, half_life_s)
    ):
        return date_time
    if time_of_day is None or scan_at is None:
        return None
    midnight = datetime.combine(scan_at.date(), datetime.min.time())
    injected = midnight + time_of_day
    return injected if injected <= scan_at else injected - timedelta(days=1)


def _is_plausible(injected: datetime, scan_at: datetime, half_life_s: float | None) -> bool:
    longest_s = LONGEST_UPTAKE_HALF_LIVES * (half_life_s or float("inf"))
    return 0 <= (scan_at - injected).total_seconds() <= longest_s


def _moment(dataset: Any, what: str) -> datetime | None:
    """Date and time of ``what``; where its date was blanked, that of another step of the scan."""
    since_midnight = _time_of_day(dataset, f"{what}Time")
    if since_midnight is None:
        return None
    dates = (_day(dataset, f"{step}Date") for step in (what, "Series", "Acquisition", "Study"))
    day = next((one for one in dates if one is not None), _NO_DATE)
    return datetime.combine(day, datetime.min.time()) + since_midnight


def _time_of_day(dataset: Any, keyword: str) -> timedelta | None:
    """DICOM TM (PS3.5 6.2), HHMMSS.FFFFFF with its tail optional, or the old HH:MM:SS."""
    text = _word(dataset, keyword)
    whole, _, fraction = (text or "").replace(":", "").partition(".")
    if not whole.isdigit() or len(whole) not in (2, 4, 6) or not (fraction or "0").isdigit():
        return None
    hours, minutes, seconds = (int(whole[i : i + 2] or 0) for i in (0, 2, 4))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds + float(f"0.{fraction or 0}"))


def _day(dataset: Any, keyword: str) -> date | None:
    """DICOM DA (PS3.5 6.2), YYYYMMDD, or the old YYYY.MM.DD."""
    text = (_word(dataset, keyword) or "").replace(".", "")
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _date_time(injection: Any, dataset: Any) -> datetime | None:
    text = _word(injection, "RadiopharmaceuticalStartDateTime")
    return None if text is None else _parsed_date_time(text, _word(dataset, _ZONE))


_ZONE = "TimezoneOffsetFromUTC"


def _parsed_date_time(text: str, zone: str | None) -> datetime | None:
    """DICOM DT (PS3.5 6.2), YYYYMMDDHHMMSS.FFFFFF&ZZXX, in the time zone of the other attributes.

    Without Timezone Offset From UTC (0008,0201) they are local, and so is this one. None for a
    date alone, or hours without minutes: uptake cannot be told by it.
    """
    clock, sign, offset = text, "", ""
    for mark in "+-":
        if mark in text:
            clock, sign, offset = text.partition(mark)
    whole, _, fraction = clock.partition(".")
    if len(whole) < _FEWEST_DIGITS:
        return None
    try:
        moment = datetime.strptime(whole[:14].ljust(14, "0"), "%Y%m%d%H%M%S")
        if fraction:
            moment += timedelta(seconds=float(f"0.{fraction}"))
        if sign and zone is not None:
            moment += _offset(zone) - _offset(sign + offset)
    except ValueError:
        return None
    return moment


def _offset(text: str) -> timedelta:
    digits = text.lstrip("+-")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4] or 0))
    return -size if text.startswith("-") else size


def _ge_scan_time(dataset: Any) -> datetime | None:
    text = _private(dataset, 0x0009, 0x0D, _GE_CREATOR)
    return None if text is None else _parsed_date_time(text, _word(dataset, _ZONE))


def _private_number(dataset: Any, group: int, element: int, creator: str) -> float | None:
    text = _private(dataset, group, element, creator)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _private(dataset: Any, group: int, element: int, creator: str) -> str | None:
    """A private attribute (PS3.5 7.8.1) as text, of a header of implicit types too."""
    block = next(
        (
            number
            for number in range(0x10, 0x100)
            if (group, number) in dataset
            and _decoded(dataset[group, number].value).strip() == creator
        ),
        0x10,  # where all scanners put it; de-identifying may drop the creator alone
    )
    owner = dataset.get((group, block))
    tag = (group, (block << 8) + element)
    if tag not in dataset or (owner is not None and _decoded(owner.value).strip() != creator):
        return None
    return _decoded(dataset[tag].value).strip() or None


def _decoded(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii", errors="replace").rstrip("\0")
    return str(value)


def _word(dataset: Any, keyword: str) -> str | None:
    value = None if dataset is None else dataset.get(keyword)
    return None if value is None else str(value).strip() or None


def _words(dataset: Any, keyword: str) -> tuple[str, ...]:
    value = dataset.get(keyword)
    if value is None or value == "":
        return ()
    return (value,) if isinstance(value, str) else tuple(str(word) for word in value)


def _number(dataset: Any, keyword: str) -> float | None:
    try:
        value = None if dataset is None else dataset.get(keyword)
        return None if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return None
