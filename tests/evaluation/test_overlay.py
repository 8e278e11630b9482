from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from veloxseg.errors import GeometryError, ImageReadError, VeloxSegError
from veloxseg.evaluation.overlay import OverlayCase, draw_overlay
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

SPACING = (4.0, 3.0, 2.0)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def scene(orientation: str) -> tuple[np.ndarray, np.ndarray, tuple[float, ...], tuple[float, ...]]:
    """An image bright in the patient's left front, stored along three different sets of axes."""
    image = np.zeros((6, 20, 30), np.float32)  # z, y, x in LPS
    mask = np.zeros(image.shape, np.uint8)
    image[2:4, 2:7, 20:28] = 100
    mask[2:4, 2:7, 20:28] = 1
    size_mm = np.array(image.shape[::-1]) * SPACING[::-1] - np.array(SPACING[::-1])
    if orientation == "LPS":
        return image, mask, (0.0, 0.0, 0.0), IDENTITY
    assert orientation == "RAS"
    return (
        image[:, ::-1, ::-1].copy(),
        mask[:, ::-1, ::-1].copy(),
        (float(size_mm[0]), float(size_mm[1]), 0.0),
        (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    )


def write_case(folder: Path, orientation: str = "LPS", prediction_shift: int = 0) -> OverlayCase:
    image, mask, origin, direction = scene(orientation)
    files = {
        "MR": image,
        "reference": mask,
        "prediction": np.roll(mask, prediction_shift, axis=2),
    }
    for name, data in files.items():
        write_volume(
            folder / f"{name}.nii.gz",
            Volume(data=data, spacing_zyx=SPACING, origin_xyz=origin, direction=direction),
        )
    return OverlayCase(
        name="case_1",
        channels=[("MR", folder / "MR.nii.gz")],
        masks={name: folder / f"{name}.nii.gz" for name in ("reference", "prediction")},
    )


def pixels(path: Path) -> np.ndarray:
    return matplotlib.image.imread(path)[..., :3]


def panel_white(picture: np.ndarray) -> np.ndarray:
    """Row and column of the white pixels in the left of the two panels, as shares of its size."""
    width = picture.shape[1]
    black = np.argwhere((picture[:, : width // 2] == 0).all(-1))
    low, high = black.min(0), black.max(0)
    panel = picture[low[0] : high[0], low[1] : high[1]]
    return np.argwhere((panel > 0.98).all(-1)) / (high - low)


@pytest.mark.parametrize("orientation", ["LPS", "RAS"])
def test_the_patients_left_front_is_shown_right_above(tmp_path, orientation):
    case = write_case(tmp_path, orientation)
    white = panel_white(pixels(draw_overlay([case], tmp_path / "picture.png", title="Test")))
    row, column = white.mean(0)
    # Centre of the bright block: x 23.5 of 0..29 voxels, y 4 of 0..19.
    assert column == pytest.approx(23.5 / 29, abs=0.03)
    assert row == pytest.approx(4 / 19, abs=0.03)


def test_proportions_are_physical(tmp_path):
    case = write_case(tmp_path)
    picture = pixels(draw_overlay([case], tmp_path / "picture.png", title="Test"))
    black = np.argwhere((picture[:, : picture.shape[1] // 2] == 0).all(-1))
    height, width = black.max(0) - black.min(0)
    # Between the outermost voxel centres: 19 * 3 mm by 29 * 2 mm.
    assert height / width == pytest.approx(57 / 58, abs=0.03)


def test_the_same_case_gives_the_same_picture(tmp_path):
    case = write_case(tmp_path)
    first = draw_overlay([case], tmp_path / "a.png", title="Test")
    second = draw_overlay([case], tmp_path / "b.png", title="Test")
    assert first.read_bytes() == second.read_bytes()


def test_outlines_of_both_masks_are_drawn_in_their_colours(tmp_path):
    case = write_case(tmp_path, prediction_shift=-8)
    picture = pixels(draw_overlay([case], tmp_path / "picture.png", title="Test"))
    upper = picture[: int(0.9 * len(picture))]
    for colour in ((0x3D, 0xDC, 0x97), (0xFF, 0x6B, 0x6B)):
        near = np.abs(upper - np.array(colour) / 255).max(-1) < 0.1
        assert np.count_nonzero(near) > 100
        assert np.argwhere(near)[:, 1].min() > picture.shape[1] / 2


def test_a_second_channel_adds_a_panel_and_a_wash_in_colour(tmp_path):
    one = write_case(tmp_path)
    two = OverlayCase(name="case", channels=one.channels * 2, masks=one.masks)
    narrow = pixels(draw_overlay([one], tmp_path / "one.png", title="Test"))
    wide = pixels(draw_overlay([two], tmp_path / "two.png", title="Test"))
    assert wide.shape[1] > 1.9 * narrow.shape[1]


def test_rows_stack_and_empty_or_absent_masks_are_no_error(tmp_path):
    case = write_case(tmp_path)
    image, _, _, _ = scene("LPS")
    empty = tmp_path / "empty.nii.gz"
    write_volume(empty, Volume(data=np.zeros(image.shape, np.uint8), spacing_zyx=SPACING))
    nothing = OverlayCase(
        name="none", channels=case.channels, masks={"reference": empty, "prediction": empty}
    )
    single = pixels(draw_overlay([nothing], tmp_path / "a.png", title="Test"))
    double = pixels(draw_overlay([case, nothing], tmp_path / "b.png", title="Test"))
    assert double.shape[0] > 1.6 * single.shape[0]
    bare = OverlayCase(name="bare", channels=case.channels, masks={})
    draw_overlay([bare], tmp_path / "c.png", title="Test")


def test_masks_on_different_grids_are_refused_and_nothing_is_written(tmp_path):
    case = write_case(tmp_path)
    write_volume(
        case.masks["prediction"], Volume(data=np.ones((6, 20, 31), np.uint8), spacing_zyx=SPACING)
    )
    with pytest.raises(GeometryError, match="Case case_1: reference has size"):
        draw_overlay([case], tmp_path / "picture.png", title="Test")
    assert not list(tmp_path.glob("*.png"))


def test_a_missing_image_is_refused(tmp_path):
    case = write_case(tmp_path)
    case.channels[0][1].unlink()
    with pytest.raises(ImageReadError, match=r"MR\.nii\.gz"):
        draw_overlay([case], tmp_path / "picture.png", title="Test")


def test_no_case_no_channel_or_masks_of_other_names_are_refused(tmp_path):
    case = write_case(tmp_path)
    without = OverlayCase(name="a", channels=[], masks={})
    renamed = OverlayCase(name="b", channels=case.channels, masks={})
    for cases in ([], [without], [case, renamed]):
        with pytest.raises(ValueError, match="Expected"):
            draw_overlay(cases, tmp_path / "picture.png", title="Test")


def test_without_matplotlib_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(VeloxSegError, match="pip install matplotlib"):
        draw_overlay([write_case(tmp_path)], tmp_path / "picture.png", title="Test")
