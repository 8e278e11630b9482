import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_shapes import ANISOTROPIC, box, random_mask
from veloxseg.evaluation.measuring import METRICS, measure

KEYS = [
    *("Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref"),
    *("precision", "recall", "HD95_mm", "ASSD_mm", "NSD"),
    *("volume_ml", "reference_volume_ml", "volume_error_ml"),
    *("lesions", "reference_lesions", "lesion_precision", "lesion_recall", "lesion_F1"),
    *("false_positive_volume_ml", "false_negative_volume_ml"),
]

LEFT, RIGHT = box((2, 4), (2, 4), (0, 2)), box((2, 4), (2, 4), (8, 10))
NOTHING = np.zeros_like(LEFT)
UNDEFINED = math.nan


def test_every_metric_is_measured_and_described_in_one_order():
    assert list(measure(LEFT, RIGHT, ANISOTROPIC)) == KEYS
    assert list(METRICS) == KEYS
    assert all(key == metric.key for key, metric in METRICS.items())
    assert METRICS["HD95_mm"].heading == "HD95 mm"
    assert METRICS["Dice"].heading == "Dice"


def test_a_case_done_by_hand():
    # One lesion hit by half, one missed, one made up; voxels of 3 microlitres, 0.5 mm along x.
    prediction = np.maximum(box((2, 4), (2, 4), (1, 3)), box((7, 8), (8, 9), (4, 5)))
    reference = np.maximum(LEFT, RIGHT)
    metrics = measure(prediction, reference, ANISOTROPIC, tolerance_mm=0.5)
    assert metrics["TP"] == 4
    assert metrics["FP"] == 5
    assert metrics["FN"] == 12
    assert metrics["TN"] == 8 * 9 * 10 - 21
    assert (metrics["n_pred"], metrics["n_ref"]) == (9, 16)
    assert metrics["Dice"] == pytest.approx(8 / 25)
    assert metrics["IoU"] == pytest.approx(4 / 21)
    assert metrics["precision"] == pytest.approx(4 / 9)
    assert metrics["recall"] == pytest.approx(4 / 16)
    assert metrics["volume_ml"] == pytest.approx(0.027)
    assert metrics["reference_volume_ml"] == pytest.approx(0.048)
    assert metrics["volume_error_ml"] == pytest.approx(-0.021)
    assert (metrics["lesions"], metrics["reference_lesions"]) == (2, 2)
    assert metrics["lesion_precision"] == metrics["lesion_recall"] == metrics["lesion_F1"] == 0.5
    assert metrics["false_positive_volume_ml"] == pytest.approx(0.003)
    assert metrics["false_negative_volume_ml"] == pytest.approx(0.024)
    # All voxels are surface. Predicted: 4 at 0, 4 at 0.5 and the made up one 4 voxels in z, 5 in y
    # and 3 in x from the left lesion. Reference: 4 at 0, 4 at 0.5, and the right lesion at 6 and 7
    # voxels from the predicted half.
    far = math.hypot(4 * 4, 5 * 1.5, 3 * 0.5)
    from_prediction, from_reference = [0] * 4 + [0.5] * 4 + [far], [0] * 4 + [0.5] * 4
    from_reference += [6 * 0.5] * 4 + [7 * 0.5] * 4
    assert metrics["NSD"] == pytest.approx(16 / 25)
    assert metrics["ASSD_mm"] == pytest.approx(sum(from_prediction + from_reference) / 25)
    # Of nine sorted distances the 95th percentile lies 0.6 of the way from the eighth to the ninth.
    assert metrics["HD95_mm"] == pytest.approx(0.5 + 0.6 * (far - 0.5))


CONVENTION = {
    # key: prediction only is empty, reference only is empty, both are empty
    "Dice": (0, 0, UNDEFINED),
    "IoU": (0, 0, UNDEFINED),
    "FP": (0, 8, 0),
    "TP": (0, 0, 0),
    "FN": (8, 0, 0),
    "TN": (712, 712, 720),
    "n_pred": (0, 8, 0),
    "n_ref": (8, 0, 0),
    "precision": (UNDEFINED, 0, UNDEFINED),
    "recall": (0, UNDEFINED, UNDEFINED),
    "HD95_mm": (UNDEFINED, UNDEFINED, UNDEFINED),
    "ASSD_mm": (UNDEFINED, UNDEFINED, UNDEFINED),
    "NSD": (0, 0, UNDEFINED),
    "volume_ml": (0, 0.024, 0),
    "reference_volume_ml": (0.024, 0, 0),
    "volume_error_ml": (-0.024, 0.024, 0),
    "lesions": (0, 1, 0),
    "reference_lesions": (1, 0, 0),
    "lesion_precision": (UNDEFINED, 0, UNDEFINED),
    "lesion_recall": (0, UNDEFINED, UNDEFINED),
    "lesion_F1": (0, 0, UNDEFINED),
    "false_positive_volume_ml": (0, 0.024, 0),
    "false_negative_volume_ml": (0.024, 0, 0),
}


@pytest.mark.parametrize("key", KEYS)
def test_what_an_empty_mask_means_is_as_written(key):
    pairs = ((NOTHING, LEFT), (LEFT, NOTHING), (NOTHING, NOTHING))
    values = [measure(*pair, ANISOTROPIC)[key] for pair in pairs]
    assert values == pytest.approx(CONVENTION[key], nan_ok=True)


def test_a_perfect_prediction_has_the_best_of_every_value():
    mask = np.maximum(LEFT, RIGHT)
    metrics = measure(mask, mask, ANISOTROPIC)
    for key in ("Dice", "IoU", "precision", "recall", "NSD", "lesion_F1"):
        assert metrics[key] == 1
    for key, metric in METRICS.items():
        if metric.better == "smaller":
            assert metrics[key] == 0


def test_voxels_that_are_not_counted_change_nothing_whatever_they_hold():
    counted = np.ones(LEFT.shape, bool)
    counted[:, :, 5:] = False
    for prediction in (LEFT, np.maximum(LEFT, RIGHT)):
        for reference in (LEFT, np.maximum(LEFT, RIGHT)):
            metrics = measure(prediction, reference, ANISOTROPIC, counted=counted)
            assert metrics == measure(LEFT[:, :, :5], LEFT[:, :, :5], ANISOTROPIC)
    assert metrics["TN"] == 8 * 9 * 5 - 8
    assert metrics["reference_lesions"] == 1


def test_a_case_of_which_nothing_is_counted_is_as_one_of_two_empty_masks():
    metrics = measure(LEFT, RIGHT, ANISOTROPIC, counted=np.zeros(LEFT.shape, bool))
    assert metrics["TN"] == metrics["volume_ml"] == metrics["lesions"] == 0
    assert math.isnan(metrics["Dice"])


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    order=st.permutations(range(3)),
    flips=st.lists(st.integers(0, 2), max_size=3, unique=True),
)
def test_no_metric_depends_on_flips_or_the_order_of_axes(seed, order, flips):
    first, second, counted = (random_mask(seed + i, 0.3) for i in range(3))
    turned = [np.flip(mask.transpose(order), flips) for mask in (first, second, counted)]
    spacing = [ANISOTROPIC[axis] for axis in order]
    metrics = measure(first, second, ANISOTROPIC, counted=counted)
    again = measure(turned[0], turned[1], spacing, counted=turned[2])
    assert again == pytest.approx(metrics, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), margin=st.integers(1, 4))
def test_an_empty_margin_adds_true_negatives_only(seed, margin):
    masks = [random_mask(seed + i) for i in range(2)]
    metrics = measure(*masks, ANISOTROPIC)
    padded = measure(*(np.pad(mask, margin) for mask in masks), ANISOTROPIC)
    assert padded.pop("TN") - metrics.pop("TN") == np.pad(masks[0], margin).size - masks[0].size
    assert padded == pytest.approx(metrics, nan_ok=True)


def test_what_is_not_zero_is_in_the_mask_whatever_its_type():
    expected = measure(LEFT > 0, RIGHT > 0, ANISOTROPIC)
    for scale, kind in ((1, np.uint8), (7, np.int64), (0.5, np.float32)):
        masks = [(mask * scale).astype(kind) for mask in (LEFT, RIGHT)]
        assert measure(*masks, ANISOTROPIC) == expected
        # Also where the array is read in another order.
        assert measure(*(mask.copy("F") for mask in masks), ANISOTROPIC) == expected


def test_masks_are_left_as_they_were():
    masks = [random_mask(seed).astype(bool) for seed in range(3)]
    copies = [mask.copy() for mask in masks]
    measure(masks[0], masks[1], ANISOTROPIC, counted=masks[2])
    for mask, copy in zip(masks, copies, strict=True):
        np.testing.assert_array_equal(mask, copy)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        measure(LEFT, RIGHT[1:], ANISOTROPIC)
    with pytest.raises(ValueError, match="one shape"):
        measure(LEFT, RIGHT, ANISOTROPIC, counted=np.ones((1, 1, 1)))


def test_masks_of_other_than_three_axes_are_refused():
    with pytest.raises(ValueError, match="three axes"):
        measure(LEFT[0], RIGHT[0], ANISOTROPIC[1:])


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1), (1, math.nan, 1)])
def test_a_spacing_that_is_none_is_refused(spacing):
    with pytest.raises(ValueError, match="positive numbers in mm"):
        measure(LEFT, RIGHT, spacing)


@pytest.mark.parametrize("tolerance", [-1, math.nan])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(ValueError, match="at least 0 mm"):
        measure(LEFT, RIGHT, ANISOTROPIC, tolerance_mm=tolerance)


def test_measuring_imports_neither_torch_nor_simpleitk():
    code = (
        "import sys, veloxseg.evaluation.measuring\n"
        "print({'torch', 'SimpleITK', 'cc3d'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
