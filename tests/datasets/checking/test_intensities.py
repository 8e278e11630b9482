import numpy as np
import pytest

from veloxseg.datasets.checking.intensities import check_intensities
from veloxseg.volumes.volume import Volume


def kinds(channel, values):
    data = np.asarray(values, dtype=np.float32).reshape(1, 1, -1)
    volume = Volume(data=data, spacing_zyx=(1, 1, 1))
    return [problem.kind for problem in check_intensities("case", channel, volume)]


@pytest.mark.parametrize("channel", ["CT", "ct", "CT_venous", "CT 1"])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([-1000, 0, 1500], None),
        ([-1024, 3071], None),
        ([-3024, -1000, 3071], None),  # the padding of a scanner
        ([-2000, 40], None),
        ([-1000, 30000], None),  # metal on the extended scale
        ([0, 0.5, 1], "ct_rescaled"),
        ([-3.2, 4.1], "ct_rescaled"),  # z-scores
        ([0, 255], "ct_without_air"),
        ([0, 24, 1064, 4095], "ct_without_intercept"),
        ([-150, 400], "ct_without_air"),
        ([-32768, -1000, 1500], "ct_out_of_range"),
        ([-1000, 65535], "ct_out_of_range"),
    ],
)
def test_a_ct_must_look_like_hounsfield_units(channel, values, kind):
    assert kinds(channel, values) == ([] if kind is None else [kind])


@pytest.mark.parametrize("channel", ["PET", "pt", "SUV", "FDG_PET"])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 2.5, 310], None),
        ([-0.05, 8], None),  # ringing of splines
        ([0.001, 0.9], None),
        ([-1.2, 0, 3.4], "pet_negative"),
        ([0, 5200, 48000], "pet_not_suv"),
        ([0, 0.25, 1], "pet_rescaled"),
        ([-1000, 1500], "pet_looks_like_ct"),
    ],
)
def test_a_pet_must_look_like_suv(channel, values, kind):
    assert kinds(channel, values) == ([] if kind is None else [kind])


@pytest.mark.parametrize("channel", ["MR", "T1", "FLAIR", "contrast", "", "petrous"])
@pytest.mark.parametrize("values", [[0, 1], [-5, 5], [0, 60000], [-32768, 32767]])
def test_other_channels_may_have_any_values(channel, values):
    assert kinds(channel, values) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_an_error_and_hide_no_rule_by_their_own(value):
    volume = Volume(data=np.array([[[value, 0, 1]]], np.float32), spacing_zyx=(1, 1, 1))
    (problem,) = check_intensities("case", "CT", volume)
    assert (problem.kind, problem.severity, problem.part) == ("not_finite", "error", "CT")
    assert problem.numbers == {"num_voxels": 1}


def test_a_constant_image_is_one_warning():
    volume = Volume(data=np.full((2, 2, 2), 7, np.int16), spacing_zyx=(1, 1, 1))
    (problem,) = check_intensities("case", "CT", volume)
    assert (problem.kind, problem.severity) == ("constant", "warning")
    assert "every voxel of CT is 7" in problem.message


def test_what_was_measured_is_told():
    volume = Volume(data=np.array([[[0, 52000.5]]], np.float32), spacing_zyx=(1, 1, 1))
    (problem,) = check_intensities("case", "PET", volume)
    assert problem.numbers == {"lowest": 0, "highest": 52000.5}
    assert "Bq/ml" in problem.message


@pytest.mark.parametrize("name", ["STS_001", "STS_010", "STS_048"])
def test_real_ct_pet_and_mr_have_nothing_wrong(shared, name):
    from veloxseg.volumes.reading import read_volume

    for channel in ("CT", "PET", "MR_T1"):
        volume = read_volume(shared / "data/sts" / name / f"{channel}_image.nii.gz")
        assert list(check_intensities(name, channel, volume)) == []
