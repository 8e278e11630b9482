from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from veloxseg.errors import DatasetError
from veloxseg.volumes.suv import (
    FrameTiming,
    PetHeader,
    average_count_rate_s,
    scan_start,
    suv_factor,
)

HALF_LIFE_S = 6600.0
NOON = datetime(2024, 2, 29, 12, 0, 0)
INJECTED = datetime(2024, 2, 29, 10, 10, 0)  # 6600 s, one half-life, before noon
HEADER = PetHeader(
    units="BQML",
    decay_correction="START",
    corrected_image=("DECY", "ATTN", "SCAT"),
    weight_kg=70.0,
    dose_bq=350e6,
    half_life_s=HALF_LIFE_S,
    injected_at=INJECTED,
    series_at=NOON,
    first_acquired_at=NOON,
)
NO_TIMING = FrameTiming(acquired_at=None, duration_s=None)
FULL_DOSE = 70_000 / 350e6  # g / Bq


def factor(header, timing=NO_TIMING):
    return suv_factor(header, timing=timing, where="PET").factor


def test_after_one_half_life_half_of_the_dose_is_left():
    assert factor(HEADER) == pytest.approx(70_000 / 175e6, rel=1e-12)


def test_decay_corrected_to_administration_the_whole_dose_counts():
    header = replace(HEADER, decay_correction="ADMIN", half_life_s=None, injected_at=None)
    assert factor(header) == pytest.approx(FULL_DOSE, rel=1e-12)


def test_without_decay_correction_each_frame_has_the_dose_of_its_own_time():
    header = replace(HEADER, decay_correction="NONE", corrected_image=("ATTN",))
    at_noon = factor(header, FrameTiming(acquired_at=NOON, duration_s=1e-3))
    later = FrameTiming(acquired_at=datetime(2024, 2, 29, 13, 50, 0), duration_s=1e-3)
    assert at_noon == pytest.approx(2 * FULL_DOSE, rel=1e-6)
    assert factor(header, later) == pytest.approx(4 * FULL_DOSE, rel=1e-6)


def test_without_decay_correction_a_long_frame_counts_from_its_average_rate():
    header = replace(HEADER, decay_correction="NONE", corrected_image=("ATTN",))
    # Over one half-life from t = 0, the mean of 2^-t/T is 1/2 / ln 2.
    mean = 0.5 / np.log(2)
    frame = FrameTiming(acquired_at=NOON, duration_s=HALF_LIFE_S)
    assert factor(header, frame) == pytest.approx(2 * FULL_DOSE / mean, rel=1e-9)


def test_the_average_count_rate_of_a_short_frame_is_in_its_middle():
    assert average_count_rate_s(60.0, HALF_LIFE_S) == pytest.approx(30.0, abs=0.05)


def test_values_in_g_per_ml_are_suv_already():
    assert factor(PetHeader(units="GML")) == 1.0
    assert factor(PetHeader(units="GML", suv_type="BW")) == 1.0


def test_counts_take_the_suv_factor_of_philips():
    header = replace(HEADER, units="CNTS", philips_suv_factor=0.000551, weight_kg=None)
    assert factor(header) == 0.000551


def test_counts_without_it_take_the_activity_factor_and_then_the_dose():
    header = replace(HEADER, units="CNTS", philips_suv_factor=0.0, philips_activity_factor=2.5)
    assert factor(header) == pytest.approx(2.5 * 2 * FULL_DOSE, rel=1e-12)


def test_the_series_time_is_the_start_unless_the_series_was_derived_later():
    derived = replace(HEADER, series_at=datetime(2024, 2, 29, 17, 0, 0))
    assert scan_start(HEADER, where="PET")[0] == NOON
    assert scan_start(replace(HEADER, first_acquired_at=None), where="PET")[0] == NOON
    assert scan_start(derived, where="PET")[0] == NOON
    assert factor(derived) == factor(HEADER)


def test_a_derived_series_of_ge_has_its_own_scan_time():
    start = datetime(2024, 2, 29, 11, 58, 0)
    derived = replace(HEADER, series_at=datetime(2024, 3, 1, 9, 0, 0), scanned_at=start)
    assert scan_start(derived, where="PET")[0] == start


def test_a_series_that_began_before_its_first_slice_keeps_its_own_time():
    later = replace(HEADER, first_acquired_at=datetime(2024, 2, 29, 12, 20, 0))
    assert factor(later) == factor(HEADER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_kg": None}, r"Patient's Weight \(0010,1030\) is missing"),
        ({"weight_kg": 0.0}, r"Patient's Weight \(0010,1030\) is 0"),
        ({"weight_kg": 70_000.0}, r"70000 kg. Expected kilograms"),
        ({"dose_bq": None}, r"Total Dose \(0018,1074\) is missing"),
        ({"dose_bq": 350.0}, r"is 350 Bq. Expected Bq, .* looks like MBq"),
        ({"half_life_s": None}, r"Half Life \(0018,1075\) is missing"),
        ({"injected_at": None}, r"\(0018,1078\) and Start Time \(0018,1072\) are missing"),
        ({"injected_at": datetime(2024, 2, 29, 12, 0, 1)}, r"is -1 s before the scan"),
        ({"injected_at": datetime(2024, 2, 28, 12, 0, 0)}, r"86400 s .* 0 to 10 half-lives"),
        ({"series_at": None, "first_acquired_at": None}, r"\(0008,0031\).* are missing"),
        ({"decay_correction": None}, r"\(0054,1102\) is missing. Expected START, ADMIN or NONE"),
        ({"corrected_image": ("DECY",)}, r"Expected ATTN among them.*exclude this one"),
        ({"corrected_image": ("ATTN",)}, r"START, but Corrected Image .* ATTN. Expected DECY"),
        ({"units": "CNTS"}, r"CNTS without Philips' factors \(7053,1000\) or \(7053,1009\)"),
        ({"units": "PROPCPS"}, r"Units \(0054,1001\) are PROPCPS. Expected BQML, CNTS"),
        ({"units": None}, r"Units \(0054,1001\) are missing"),
        ({"units": "GML", "suv_type": "LBM"}, r"SUV Type \(0054,1006\) is LBM. Expected BW"),
    ],
)
def test_what_is_missing_or_impossible_is_named(change, message):
    with pytest.raises(DatasetError, match=f"PET: no SUV: .*{message}"):
        factor(replace(HEADER, **change))


def test_without_decay_correction_the_frame_duration_is_needed():
    header = replace(HEADER, decay_correction="NONE")
    with pytest.raises(DatasetError, match=r"Actual Frame Duration \(0018,1242\) is missing"):
        factor(header, FrameTiming(acquired_at=NOON, duration_s=None))
