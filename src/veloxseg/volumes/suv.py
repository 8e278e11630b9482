"""PET activity to the standardised uptake value by body weight.

Source: QIBA, "Vendor-neutral pseudo-code for SUV calculation" (SUV normalised by body weight), on
the attributes of DICOM PS3.3 C.8.9.1 (PET Series), C.8.9.2 (PET Isotope) and C.8.9.4 (PET Image).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from veloxseg.errors import DatasetError

SMALLEST_DOSE_BQ = 1e5
"""No patient is imaged with less than 0.1 MBq; a smaller number is in MBq or mCi."""

LARGEST_WEIGHT_KG = 700.0
"""A larger number is in grams or pounds."""

LONGEST_UPTAKE_HALF_LIVES = 10.0
"""After ten half-lives a thousandth of the dose is left: a date or a clock must be wrong."""

Units = Literal["BQML", "CNTS", "GML"]
DecayCorrection = Literal["START", "ADMIN", "NONE"]


@dataclass(frozen=True, kw_only=True)
class PetHeader:
    """What the header of a PET series says about quantities; None where it says nothing.

    Attributes:
        units: Units (0054,1001): ``BQML`` (Bq/ml), ``CNTS`` (counts), ``GML`` (g/ml).
        suv_type: SUV Type (0054,1006): ``BW``, ``LBM``, ``BSA``, ``IBW``, ...
        decay_correction: Decay Correction (0054,1102): to the ``START`` of the acquisition, to the
            ``ADMIN``-istration, or ``NONE``.
        corrected_image: Corrected Image (0028,0051): ``ATTN``, ``DECY``, ...; empty if absent.
        weight_kg: Patient's Weight (0010,1030) in kg.
        dose_bq: Radionuclide Total Dose (0018,1074) in Bq, at ``injected_at``.
        half_life_s: Radionuclide Half Life (0018,1075) in seconds.
        injected_at: Radiopharmaceutical Start DateTime (0018,1078), or the last time before the
            scan that the clock showed Radiopharmaceutical Start Time (0018,1072).
        series_at: Series Date and Time (0008,0021) and (0008,0031).
        first_acquired_at: The earliest Acquisition Date and Time (0008,0022) and (0008,0032) of the
            series' slices.
        scanned_at: GE's private scan date and time (0009,100D).
        philips_suv_factor: Philips' private SUV Scale Factor (7053,1000), in g/ml a count.
        philips_activity_factor: Philips' private Activity Concentration Scale Factor (7053,1009),
            in Bq/ml a count.
    """

    units: str | None
    suv_type: str | None = None
    decay_correction: str | None = None
    corrected_image: tuple[str, ...] = ()
    weight_kg: float | None = None
    dose_bq: float | None = None
    half_life_s: float | None = None
    injected_at: datetime | None = None
    series_at: datetime | None = None
    first_acquired_at: datetime | None = None
    scanned_at: datetime | None = None
    philips_suv_factor: float | None = None
    philips_activity_factor: float | None = None


@dataclass(frozen=True, kw_only=True)
class FrameTiming:
    """When one slice was measured; needed only without decay correction.

    Attributes:
        acquired_at: Acquisition Date and Time (0008,0022) and (0008,0032): the frame's start.
        duration_s: Actual Frame Duration (0018,1242), in seconds; the attribute has milliseconds.
    """

    acquired_at: datetime | None
    duration_s: float | None


@dataclass(frozen=True, kw_only=True)
class SuvFactor:
    """What a slice's rescaled values are multiplied with.

    Attributes:
        factor: g/ml for one of the series' units.
        how: The figures it was made from, in words.
    """

    factor: float
    how: str


def suv_factor(header: PetHeader, *, timing: FrameTiming, where: str) -> SuvFactor:
    """Find the factor from a slice's rescaled values to SUV by body weight, in g/ml.

    - ``GML`` is SUV already: 1.
    - ``CNTS``: Philips' SUV factor; or its activity factor, then as ``BQML``.
    - ``BQML``: weight in g / dose in Bq, the dose decayed to the time that the values are corrected
      to: the scan's start (``START``, see :func:`scan_start`), the administration (``ADMIN``: no
      decay), or the time of the slice's average count rate (``NONE``).

    Args:
        header: What the series says.
        timing: When the slice was measured.
        where: What to call the series in errors.

    Raises:
        DatasetError: a quantity that is needed is missing or impossible, the units are others, or
            the image is not corrected for attenuation.
    """
    _require_corrected(header, where)
    if header.units == "GML":
        if header.suv_type not in (None, "BW"):
            raise _error(
                where,
                f"SUV Type (0054,1006) is {header.suv_type}",
                "BW, by body weight",
                "Export the series in Bq/ml",
            )
        return SuvFactor(factor=1.0, how="GML: SUV by body weight already")
    if header.units == "CNTS":
        if header.philips_suv_factor:
            return SuvFactor(
                factor=header.philips_suv_factor,
                how=f"CNTS x Philips SUV factor {header.philips_suv_factor:.6g}",
            )
        if not header.philips_activity_factor:
            raise _error(
                where,
                "Units (0054,1001) are CNTS without Philips' factors (7053,1000) or (7053,1009)",
                "one of them",
                "Export the series in Bq/ml, or keep the private attributes when de-identifying",
            )
        activity = _factor_of_activity(header, timing, where)
        return SuvFactor(
            factor=header.philips_activity_factor * activity.factor,
            how=f"CNTS x Philips activity factor {header.philips_activity_factor:.6g} Bq/ml; "
            + activity.how,
        )
    if header.units == "BQML":
        return _factor_of_activity(header, timing, where)
    raise _error(
        where,
        f"Units (0054,1001) are {header.units or 'missing'}",
        "BQML, CNTS (Philips) or GML",
        'Export the series in Bq/ml, or keep its values: "suv": false in its rule',
    )


def scan_start(header: PetHeader, *, where: str) -> tuple[datetime, str]:
    """Find the time that values are decay-corrected to under ``START``, and where it is from.

    The Series Time is the scan's start, unless it is later than the earliest acquisition: then the
    series was derived later (as by Siemens' workstations), and GE's private scan time, or else the
    earliest acquisition of the series, is.

    Raises:
        DatasetError: there is none of these times.
    """
    series, first = header.series_at, header.first_acquired_at
    if series is not None and (first is None or series <= first):
        return series, "Series Time"
    if header.scanned_at is not None:
        return header.scanned_at, "GE's scan time (0009,100D)"
    if first is not None:
        return first, "the earliest Acquisition Time, the Series Time being later"
    raise _error(
        where,
        "Series Time (0008,0031) and Acquisition Time (0008,0032) are missing",
        "one of them",
        _EXPORT,
    )


def average_count_rate_s(duration_s: float, half_life_s: float) -> float:
    r"""Time after a frame's start, in s, when activity equals its average over the frame.

    With :math:`k = \ln 2 / T` and :math:`d = k \Delta`: :math:`t = \ln(d / (1 - e^{-d})) / k`.
    """
    rate = np.log(2) / half_life_s
    decay = rate * duration_s
    return float(np.log(decay / -np.expm1(-decay)) / rate)


_EXPORT = "Export the series with it (it must survive de-identification)"


def _factor_of_activity(header: PetHeader, timing: FrameTiming, where: str) -> SuvFactor:
    weight = _require_weight(header, where)
    dose = _require_dose(header, where)
    correction = header.decay_correction
    told = f"weight {weight:g} kg, dose {dose / 1e6:.6g} MBq"
    if correction == "ADMIN":
        return SuvFactor(
            factor=weight * 1000 / dose, how=f"{told}, values decay-corrected to administration"
        )
    if correction not in ("START", "NONE"):
        raise _error(
            where,
            f"Decay Correction (0054,1102) is {correction or 'missing'}",
            "START, ADMIN or NONE",
            _EXPORT,
        )
    half_life = _require_positive(header.half_life_s, "Radionuclide Half Life (0018,1075)", where)
    if correction == "START":
        until, source = scan_start(header, where=where)
        after_s = 0.0
    else:
        until, after_s = _middle_of_frame(timing, half_life, where)
        source = "the frame's average count rate"
    uptake_s = _uptake_s(header, until, half_life, where) + after_s
    decayed = dose * 2 ** (-uptake_s / half_life)
    return SuvFactor(
        factor=weight * 1000 / decayed,
        how=f"{told}, half-life {half_life:g} s, decayed {uptake_s:.6g} s to {source}",
    )


def _middle_of_frame(timing: FrameTiming, half_life_s: float, where: str) -> tuple[datetime, float]:
    if timing.acquired_at is None:
        raise _error(where, "Acquisition Time (0008,0032) is missing", "it in every slice", _EXPORT)
    duration = _require_positive(timing.duration_s, "Actual Frame Duration (0018,1242)", where)
    return timing.acquired_at, average_count_rate_s(duration, half_life_s)


def _uptake_s(header: PetHeader, until: datetime, half_life_s: float, where: str) -> float:
    if header.injected_at is None:
        raise _error(
            where,
            "Radiopharmaceutical Start DateTime (0018,1078) and Start Time (0018,1072) are missing",
            "the time of injection",
            _EXPORT,
        )
    uptake_s = (until - header.injected_at).total_seconds()
    if not 0 <= uptake_s <= LONGEST_UPTAKE_HALF_LIVES * half_life_s:
        raise _error(
            where,
            f"the injection ({header.injected_at:%Y-%m-%d %H:%M:%S}) is {uptake_s:.6g} s before "
            f"the scan ({until:%Y-%m-%d %H:%M:%S}), the half-life {half_life_s:g} s",
            f"0 to {LONGEST_UPTAKE_HALF_LIVES:g} half-lives",
            "Correct the injection's date and time; de-identifying may have shifted one of them",
        )
    return uptake_s


def _require_corrected(header: PetHeader, where: str) -> None:
    corrections = header.corrected_image
    if corrections and "ATTN" not in corrections:
        raise _error(
            where,
            f"Corrected Image (0028,0051) is {', '.join(corrections)}",
            "ATTN among them: SUV needs attenuation correction",
            "Take the corrected series: exclude this one in the channel's rule",
        )
    decayed = header.decay_correction in ("START", "ADMIN")
    if corrections and header.units != "GML" and decayed and "DECY" not in corrections:
        raise _error(
            where,
            f"Decay Correction (0054,1102) is {header.decay_correction}, but Corrected Image "
            f"(0028,0051) is {', '.join(corrections)}",
            "DECY among them",
            "Ask for the series' origin; one of the two is wrong",
        )


def _require_weight(header: PetHeader, where: str) -> float:
    weight = _require_positive(header.weight_kg, "Patient's Weight (0010,1030)", where)
    if weight > LARGEST_WEIGHT_KG:
        raise _error(
            where, f"Patient's Weight (0010,1030) is {weight:g} kg", "kilograms", "Correct it"
        )
    return weight


def _require_dose(header: PetHeader, where: str) -> float:
    dose = _require_positive(header.dose_bq, "Radionuclide Total Dose (0018,1074)", where)
    if dose < SMALLEST_DOSE_BQ:
        raise _error(
            where,
            f"Radionuclide Total Dose (0018,1074) is {dose:g} Bq",
            "Bq, hundreds of millions for a patient; this looks like MBq or mCi",
            "Correct it in the files",
        )
    return dose


def _require_positive(value: float | None, name: str, where: str) -> float:
    if value is None or not np.isfinite(value) or value <= 0:
        found = "missing" if value is None else f"{value:g}"
        raise _error(where, f"{name} is {found}", "a positive number", _EXPORT)
    return value


def _error(where: str, found: str, expected: str, remedy: str) -> DatasetError:
    return DatasetError(f"{where}: no SUV: {found}. Expected {expected}. {remedy}.")
