import numpy as np
import pytest
from nnunetv2.preprocessing.normalization.default_normalization_schemes import (
    CTNormalization,
    NoNormalization,
    RescaleTo01Normalization,
    RGBTo01Normalization,
    ZScoreNormalization,
)
from scipy.ndimage import binary_fill_holes

from veloxseg.bundle.format import Normalisation
from veloxseg.errors import VeloxSegError
from veloxseg.runtime.holes import fill_holes
from veloxseg.runtime.normalisation import normalise

CT = Normalisation(scheme="ct", mean=30.0, std=50.0, lower=-100.0, upper=200.0)
PROPERTIES = {"mean": 30.0, "std": 50.0, "percentile_00_5": -100.0, "percentile_99_5": 200.0}
Z_SCORE_WITHIN = Normalisation(scheme="z_score", within_mask=True)


def normalised(image, normalisation, mask=None) -> np.ndarray:
    image = np.array(image, np.float32).reshape(1, 1, -1) if np.ndim(image) == 1 else image.copy()
    normalise(image, normalisation, mask)
    return image


def test_z_score_of_a_line_done_by_hand():
    assert normalised([0, 2, 4, 6, 8], Normalisation(scheme="z_score")).ravel() == pytest.approx(
        np.array([-4, -2, 0, 2, 4]) / np.sqrt(8)
    )


def test_z_score_within_a_mask_leaves_the_rest_alone():
    mask = np.array([[[False, True, True, False]]])
    assert normalised([9, 1, 3, 0], Z_SCORE_WITHIN, mask).ravel().tolist() == [9, -1, 1, 0]


def test_ct_is_clipped_before_it_is_scaled():
    assert normalised([-1000, 30, 80, 3000], CT).ravel() == pytest.approx([-2.6, 0, 1, 3.4])


def test_rescaling_runs_from_zero_to_one():
    found = normalised([-2, 0, 2], Normalisation(scheme="rescale_0_1"))
    assert found.ravel().tolist() == [0, 0.5, 1]


def test_a_constant_image_becomes_zero_not_nan():
    for scheme in ("z_score", "rescale_0_1"):
        assert (normalised([7, 7, 7], Normalisation(scheme=scheme)) == 0).all()


def test_an_empty_mask_leaves_the_image_alone():
    assert (normalised([0, 0], Z_SCORE_WITHIN, np.zeros((1, 1, 2), bool)) == 0).all()


def test_values_that_are_not_rgb_are_refused_with_their_range():
    with pytest.raises(VeloxSegError, match="from -1 to 300"):
        normalised([-1, 300], Normalisation(scheme="rgb_0_1"))


def test_a_mask_that_is_needed_and_missing_is_told():
    with pytest.raises(ValueError, match="needs a mask"):
        normalised([1, 2], Z_SCORE_WITHIN)


@pytest.mark.parametrize(
    ("normalisation", "by_nnunet"),
    [
        (Normalisation(scheme="z_score"), ZScoreNormalization(False, {})),
        (Z_SCORE_WITHIN, ZScoreNormalization(True, {})),
        (CT, CTNormalization(False, PROPERTIES)),
        (Normalisation(scheme="none"), NoNormalization(False, {})),
        (Normalisation(scheme="rescale_0_1"), RescaleTo01Normalization(False, {})),
        (Normalisation(scheme="rgb_0_1"), RGBTo01Normalization(False, {})),
    ],
    ids=lambda value: getattr(value, "scheme", None),
)
def test_schemes_are_those_of_nnunet(normalisation, by_nnunet):
    rng = np.random.default_rng(0)
    image = (rng.random((20, 30, 25)) * 255).astype(np.float32)
    mask = rng.random(image.shape) < 0.4
    expected = by_nnunet.run(image.copy(), np.where(mask, 0, -1))
    found = normalised(image, normalisation, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # nnU-Net sums in float32
    assert np.ptp(found) > 0


def test_a_hollow_box_is_filled_and_an_open_one_is_not():
    box = np.ones((5, 5, 5), bool)
    box[1:4, 1:4, 1:4] = False
    assert fill_holes(box).all()
    box[2, 2, 4] = False
    assert np.array_equal(fill_holes(box), box)


def test_a_hole_is_not_opened_by_a_diagonal_gap():
    square = np.zeros((1, 4, 4), bool)
    assert not fill_holes(square).any()
    cube = np.ones((4, 4, 4), bool)
    cube[1, 1, 1] = cube[0, 0, 1] = False  # they share an edge, no face
    assert fill_holes(cube)[1, 1, 1]


def test_a_maze_that_needs_many_turns_is_flooded_to_its_end():
    maze = np.ones((3, 21, 70), bool)
    maze[1, 1:20:2, 1:69] = False
    maze[1, 2:19:4, 68] = maze[1, 4:19:4, 1] = maze[0, 1, 1] = False
    assert np.array_equal(fill_holes(maze), maze)
    maze[0, 1, 1] = True
    assert fill_holes(maze).all()


def test_holes_are_those_of_scipy_for_any_shape():
    rng = np.random.default_rng(1)
    filled = 0
    for _ in range(150):
        shape = (*rng.integers(1, 20, 2), rng.integers(1, 150))
        mask = rng.random(shape) < rng.uniform(0.3, 0.9)
        found = fill_holes(mask)
        assert np.array_equal(found, binary_fill_holes(mask))
        filled += np.count_nonzero(found & ~mask)
    assert filled > 0
