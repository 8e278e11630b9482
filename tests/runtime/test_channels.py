import pytest

from veloxseg.errors import DatasetError
from veloxseg.runtime.channels import describe_channels, describe_missing, order_by_channel

CHANNELS = ("CT", "PET", "T1")


@pytest.mark.parametrize(
    ("images", "optional", "expected"),
    [
        ((1, 2, 3), (), None),
        ((1, None, 3), ("PET",), None),
        ((None, None, 3), ("PET", "CT"), None),
        ((1, None, 3), ("T1",), "no PET image"),
        ((None, None, 3), (), "no CT and no PET image"),
        ((None, None, None), CHANNELS, "no image"),
    ],
)
def test_what_a_case_must_have_and_lacks_is_said(images, optional, expected):
    assert describe_missing(images, CHANNELS, optional) == expected


def test_named_images_come_in_the_channels_order():
    assert order_by_channel({"T1": 3, "CT": 1}, CHANNELS, ("PET",)) == [1, None, 3]


def test_an_unknown_name_is_told_all_known_ones():
    with pytest.raises(DatasetError, match=r"No channel FLAIR\. .*CT, PET, T1 \(optional: PET\)"):
        order_by_channel({"FLAIR": 1}, CHANNELS, ("PET",))


def test_without_optional_channels_none_are_mentioned():
    assert describe_channels(CHANNELS, ()) == "CT, PET, T1"
