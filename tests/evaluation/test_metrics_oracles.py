"""All metrics beside independent libraries, on random, degenerate and real masks."""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from mask_shapes import ANISOTROPIC, ellipsoid, random_mask
from veloxseg.evaluation.measuring import measure
from veloxseg.evaluation.surfaces import measure_surfaces
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.resampling import resample

TOLERANCE_MM = 2.0

SINGLE = np.zeros((6, 7, 8), bool)
SINGLE[1, 2, 3] = True
CORNER = np.zeros((6, 7, 8), bool)
CORNER[5, 6, 7] = True
FULL = np.ones((6, 7, 8), bool)
CHECKERS = np.indices((6, 7, 8)).sum(0) % 2 == 0
SLICE = np.zeros((6, 7, 8), bool)
SLICE[2] = True

DEGENERATE = {
    "one voxel and itself": (SINGLE, SINGLE),
    "one voxel and one in the corner": (SINGLE, CORNER),
    "one voxel and everything": (SINGLE, FULL),
    "everything and everything": (FULL, FULL),
    "everything and a checkerboard": (FULL, CHECKERS),
    "a checkerboard and its opposite": (CHECKERS, ~CHECKERS),
    "one slice and a voxel": (SLICE, SINGLE),
    "an image of one slice": (SLICE[2:3], CHECKERS[2:3]),
}
RANDOM = {
    f"random masks, {share:.0%}": (random_mask(seed, share) > 0, random_mask(seed + 50, 0.2) > 0)
    for seed, share in enumerate((0.01, 0.1, 0.5, 0.95))
}
SMOOTH = {
    "ellipsoids": (
        ellipsoid((9, 11, 13), (6, 8, 10)) > 0,
        ellipsoid((10, 11, 15), (6, 7, 9)) > 0,
    )
}
PAIRS = {**DEGENERATE, **RANDOM, **SMOOTH}


@pytest.fixture(params=PAIRS.values(), ids=PAIRS.keys())
def pair(request) -> tuple[np.ndarray, np.ndarray]:
    return request.param


def test_metrics_are_those_of_monai(pair):
    _assert_metrics_are_those_of_monai(*pair, ANISOTROPIC)


def test_metrics_are_those_of_medpy(pair):
    _assert_metrics_are_those_of_medpy(*pair, ANISOTROPIC)


def test_distances_are_those_of_simpleitk(pair):
    _assert_distances_are_those_of_simpleitk(*pair, ANISOTROPIC)


@pytest.mark.parametrize("case", ["STS_001", "STS_003"])
def test_metrics_of_one_tumour_drawn_on_two_grids_are_those_of_all_libraries(shared, case):
    folder = shared / "data" / "sts" / case
    reference = read_volume(folder / "CT_mask.nii.gz")
    drawn = read_volume(folder / "PET_mask.nii.gz")
    predicted = resample(drawn, reference.grid, interpolation="nearest", fill=0).data > 0
    first, second = (mask[::2, ::2, ::2] for mask in (predicted, reference.data > 0))
    spacing = [2 * step for step in reference.spacing_zyx]
    metrics = measure(first, second, spacing)
    assert 0.5 < metrics["Dice"] < 1
    assert metrics["HD95_mm"] > 0
    _assert_metrics_are_those_of_monai(first, second, spacing)
    _assert_metrics_are_those_of_medpy(first, second, spacing)
    _assert_distances_are_those_of_simpleitk(first, second, spacing)


def test_metrics_of_regions_of_a_real_brain_tumour_are_those_of_all_libraries(shared):
    # Whole tumour, tumour core and enhancing tumour, as BraTS forms its regions; what differs from
    # one region to the next stands for a prediction's error.
    volume = read_volume(shared / "data" / "brats2013" / "pat0003" / "OTMultiClass.nii.gz")
    tumour = volume.data[ndimage.find_objects((volume.data > 0).astype(int))[0]]
    whole, core, enhancing = (np.isin(tumour, labels) for labels in ((1, 2, 3, 4), (1, 3, 4), (4,)))
    assert whole.sum() > core.sum() > enhancing.sum() > 0
    for first, second in ((core, whole), (enhancing, core)):
        _assert_metrics_are_those_of_monai(first, second, volume.spacing_zyx)
        _assert_metrics_are_those_of_medpy(first, second, volume.spacing_zyx)
        _assert_distances_are_those_of_simpleitk(first, second, volume.spacing_zyx)


def test_surface_dice_of_one_empty_mask_is_zero_and_of_two_undefined_as_monai_has_it():
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    torch = pytest.importorskip("torch")
    empty = np.zeros_like(SINGLE)
    for first, second in ((SINGLE, empty), (empty, SINGLE), (empty, empty)):
        tensors = [torch.from_numpy(mask)[None, None] for mask in (first, second)]
        with _warnings_of_others_ignored():
            theirs = monai.compute_surface_dice(*tensors, [1.0], include_background=True).item()
        assert measure(first, second, ANISOTROPIC)["NSD"] == pytest.approx(theirs, nan_ok=True)


@contextmanager
def _warnings_of_others_ignored():
    # MONAI warns of its own deprecated arguments and of empty masks.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _assert_metrics_are_those_of_monai(prediction, reference, spacing):
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    torch = pytest.importorskip("torch")
    tensors = [
        torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (prediction, reference)
    ]
    options = {"include_background": True, "spacing": list(spacing)}
    with _warnings_of_others_ignored():
        theirs = {
            "Dice": monai.compute_dice(*tensors, include_background=True),
            "IoU": monai.compute_iou(*tensors, include_background=True),
            "HD95_mm": monai.compute_hausdorff_distance(*tensors, percentile=95, **options),
            "ASSD_mm": monai.compute_average_surface_distance(*tensors, symmetric=True, **options),
            "NSD": monai.compute_surface_dice(*tensors, [TOLERANCE_MM], **options),
        }
        tp, fp, tn, fn = monai.get_confusion_matrix(*tensors, include_background=True).flatten()
    ours = measure(prediction, reference, spacing, tolerance_mm=TOLERANCE_MM)
    assert [ours[key] for key in ("TP", "FP", "TN", "FN")] == [tp, fp, tn, fn]
    for key, value in theirs.items():
        # MONAI computes in float32.
        assert ours[key] == pytest.approx(value.item(), rel=1e-5, abs=1e-7), key


def _assert_metrics_are_those_of_medpy(prediction, reference, spacing):
    medpy = pytest.importorskip("medpy.metric.binary", reason="MedPy is not installed")
    ours = measure(prediction, reference, spacing)
    assert ours["Dice"] == pytest.approx(medpy.dc(prediction, reference))
    assert ours["IoU"] == pytest.approx(medpy.jc(prediction, reference))
    assert ours["precision"] == pytest.approx(medpy.precision(prediction, reference))
    assert ours["recall"] == pytest.approx(medpy.recall(prediction, reference))
    distances = measure_surfaces(prediction, reference, spacing)
    # MedPy's hd95 is the percentile and its assd the mean of another pooling: the parts agree.
    there, back = distances.from_prediction, distances.from_reference
    assert there.mean() == pytest.approx(medpy.asd(prediction, reference, spacing))
    assert back.mean() == pytest.approx(medpy.asd(reference, prediction, spacing))
    pooled = np.percentile(np.concatenate([there, back]), 95)
    assert pooled == pytest.approx(medpy.hd95(prediction, reference, spacing))
    largest = max(there.max(), back.max())
    assert largest == pytest.approx(medpy.hd(prediction, reference, spacing))
    mean = (there.sum() + back.sum()) / (there.size + back.size)
    assert ours["ASSD_mm"] == pytest.approx(mean)


def _assert_distances_are_those_of_simpleitk(prediction, reference, spacing):
    distances = measure_surfaces(prediction, reference, spacing)
    # ITK has no surface where the image ends, so there is a margin.
    contours = [_contour(np.pad(mask, 1), spacing) for mask in (prediction, reference)]
    for ours, start, target in (
        (distances.from_prediction, *contours),
        (distances.from_reference, *contours[::-1]),
    ):
        field = SimpleITK.SignedMaurerDistanceMap(
            target, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
        )
        values = SimpleITK.GetArrayFromImage(SimpleITK.Abs(field))
        theirs = values[SimpleITK.GetArrayFromImage(start) > 0]
        # Fields are float32.
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        assert ours.size > 0


def _contour(mask: np.ndarray, spacing) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(step) for step in spacing[::-1]])
    return SimpleITK.LabelContour(image, fullyConnected=False)
