from datetime import datetime, timedelta

import pytest
from pydicom.dataset import Dataset

from veloxseg.volumes.dicom.pet_header import frame_timing, injection_time, pet_header

NOON = datetime(2024, 3, 1, 12, 0, 0)


def pet(**changes):
    dataset = Dataset()
    injection = Dataset()
    injection.RadionuclideTotalDose = 350e6
    injection.RadionuclideHalfLife = 6586.2
    injection.RadiopharmaceuticalStartTime = "105830.50"
    for keyword, value in changes.pop("injection", {}).items():
        setattr(injection, keyword, value)
    content = {
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["DECY", "ATTN"],
        "PatientWeight": 71.5,
        "SeriesDate": "20240301",
        "SeriesTime": "120000",
        "AcquisitionDate": "20240301",
        "AcquisitionTime": "120500.0",
        "ActualFrameDuration": 120000,
    }
    for keyword, value in (content | changes).items():
        setattr(dataset, keyword, value)
    dataset.RadiopharmaceuticalInformationSequence = [injection]
    return dataset


def test_attributes_are_read_with_their_units():
    header = pet_header(pet(), first_acquired_at=datetime(2024, 3, 1, 12, 5))
    assert (header.units, header.decay_correction) == ("BQML", "START")
    assert header.corrected_image == ("DECY", "ATTN")
    assert (header.weight_kg, header.dose_bq, header.half_life_s) == (71.5, 350e6, 6586.2)
    assert header.series_at == NOON
    assert header.injected_at == datetime(2024, 3, 1, 10, 58, 30, 500_000)
    timing = frame_timing(pet())
    assert timing.acquired_at == datetime(2024, 3, 1, 12, 5)
    assert timing.duration_s == 120.0


def test_what_is_absent_is_none():
    header = pet_header(Dataset(), first_acquired_at=None)
    assert header.units is None
    assert header.injected_at is None
    assert header.dose_bq is None
    assert header.corrected_image == ()
    assert frame_timing(Dataset()).acquired_at is None


def test_an_injection_before_midnight_was_the_day_before():
    dataset = pet(
        SeriesTime="003000",
        AcquisitionTime="003000",
        injection={"RadiopharmaceuticalStartTime": "233000"},
    )
    header = pet_header(dataset, first_acquired_at=datetime(2024, 3, 1, 0, 30))
    assert header.injected_at == datetime(2024, 2, 29, 23, 30)


def test_the_full_date_and_time_of_injection_is_preferred():
    full = datetime(2024, 3, 1, 11, 0)
    chosen = injection_time(full, timedelta(hours=10), scan_at=NOON, half_life_s=6586.0)
    assert chosen == full


def test_a_date_that_de_identifying_forgot_to_shift_gives_way_to_the_time_of_day():
    forgotten = datetime(2019, 7, 7, 11, 0)
    chosen = injection_time(forgotten, timedelta(hours=11), scan_at=NOON, half_life_s=6586.0)
    assert chosen == datetime(2024, 3, 1, 11, 0)
    alone = injection_time(forgotten, None, scan_at=NOON, half_life_s=6586.0)
    assert alone == forgotten


@pytest.mark.parametrize("text", ["20240301", "2024030110", "202403"])
def test_a_date_of_injection_without_its_time_gives_way_to_the_time_of_day(text):
    injection = {
        "RadiopharmaceuticalStartDateTime": text,
        "RadiopharmaceuticalStartTime": "100000",
    }
    dataset = pet(SeriesDate="20240301", injection=injection)
    header = pet_header(dataset, first_acquired_at=None)
    assert header.injected_at == datetime(2024, 3, 1, 10, 0)


def test_days_of_uptake_are_plausible_for_a_long_half_life():
    injected = datetime(2024, 2, 26, 12, 0)
    chosen = injection_time(injected, timedelta(hours=12), scan_at=NOON, half_life_s=282_240.0)
    assert chosen == injected


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("20240301105830.5", None, datetime(2024, 3, 1, 10, 58, 30, 500_000)),
        ("20240301105830+0100", None, datetime(2024, 3, 1, 10, 58, 30)),
        ("20240301105830+0000", "+0100", datetime(2024, 3, 1, 11, 58, 30)),
        ("20240301115830+0100", "-0030", datetime(2024, 3, 1, 10, 28, 30)),
    ],
)
def test_a_date_and_time_is_brought_to_the_zone_of_the_other_attributes(text, zone, expected):
    dataset = pet(injection={"RadiopharmaceuticalStartDateTime": text})
    if zone is not None:
        dataset.TimezoneOffsetFromUTC = zone
    assert pet_header(dataset, first_acquired_at=None).injected_at == expected


def test_without_dates_the_times_of_day_are_compared():
    dataset = pet(SeriesDate="", AcquisitionDate="")
    header = pet_header(dataset, first_acquired_at=None)
    assert (header.series_at - header.injected_at).total_seconds() == pytest.approx(3689.5)


def test_private_factors_of_philips_are_read_from_any_block():
    dataset = pet(Units="CNTS")
    block = dataset.private_block(0x7053, "SOMEONE ELSE", create=True)
    block.add_new(0x00, "DS", "99")
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0.000551")
    block.add_new(0x09, "UN", b"1.25 ")
    header = pet_header(dataset, first_acquired_at=None)
    assert header.philips_suv_factor == 0.000551
    assert header.philips_activity_factor == 1.25


def test_private_values_of_another_maker_are_not_taken_for_them():
    dataset = pet(Units="CNTS")
    dataset.private_block(0x7053, "SOMEONE ELSE", create=True).add_new(0x00, "DS", "99")
    assert pet_header(dataset, first_acquired_at=None).philips_suv_factor is None


def test_the_scan_time_of_ge_is_read():
    dataset = pet()
    dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(
        0x0D, "DT", "20240301115800.00"
    )
    header = pet_header(dataset, first_acquired_at=None)
    assert header.scanned_at == datetime(2024, 3, 1, 11, 58)
