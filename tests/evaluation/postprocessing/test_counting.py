"""Dice from counts of components is that of masks which were postprocessed."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from veloxseg.bundle.format import PostprocessingStep
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.evaluation.metrics import dice
from veloxseg.evaluation.pairing import MaskPair
from veloxseg.evaluation.postprocessing.choice import targets_of
from veloxseg.evaluation.postprocessing.counting import CountCase
from veloxseg.runtime.postprocessing import postprocess_mask
from veloxseg.volumes.reading import write_mask
from veloxseg.volumes.volume import Grid

SHAPE = (6, 9, 10)
SPACING = (4.0, 1.5, 0.5)
LABELS = {1: "a", 2: "b", 3: "c"}
REGIONS = {(1, 2, 3): "whole", (2, 3): "core", 3: "middle"}


def write_pair(
    folder: Path, prediction: np.ndarray, reference: np.ndarray, spacing=(SPACING, SPACING)
) -> MaskPair:
    files = {"prediction": prediction, "reference": reference}
    for (name, mask), one in zip(files.items(), spacing, strict=True):
        grid = Grid(size_zyx=mask.shape, spacing_zyx=one, origin_xyz=(0.0, 0.0, 0.0))
        write_mask(folder / f"{name}.nii.gz", mask, grid)
    paths = {name: folder / f"{name}.nii.gz" for name in files}
    return MaskPair(name="case", **paths)


def random_labels(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 4, SHAPE) * (rng.random(SHAPE) < 0.08)).astype(np.uint8)


def steps_of(values: tuple[int, ...]) -> list[PostprocessingStep]:
    smallest = [
        PostprocessingStep(kind="minimum_volume", labels=values, minimum_ml=volume)
        for volume in (0.004, 0.007, 1.0)
    ]
    return [*smallest, PostprocessingStep(kind="keep_largest", labels=values)]


@pytest.mark.parametrize("names", [LABELS, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("ignored", [None, 4])
def test_dice_after_every_candidate_is_that_of_the_postprocessed_mask(tmp_path, names, ignored):
    reference = random_labels(1)
    prediction = np.where(np.indices(SHAPE).sum(axis=0) % 4 > 0, reference, random_labels(0))
    if ignored is not None:
        reference[:, :3] = ignored
    pair = write_pair(tmp_path, prediction, reference)
    targets = targets_of(names)
    first = PostprocessingStep(kind="minimum_volume", labels=(1, 2, 3), minimum_ml=0.004)
    changed = 0
    for steps in ((), (first,)):
        work = CountCase(
            labels=tuple(names), targets=tuple(targets), ignore_label=ignored, steps=steps
        )
        case = work(pair)
        for place, target in enumerate(targets):
            for step in steps_of(target.values):
                mask = postprocess_mask(prediction, (*steps, step), spacing_zyx=SPACING)
                expected = [
                    dice(
                        np.isin(mask, label)[reference != 4],
                        np.isin(reference, label)[reference != 4],
                    )
                    for label in names
                ]
                np.testing.assert_allclose(case.dice_after(place, step), expected, atol=1e-12)
                changed += not np.array_equal(case.dice, case.dice_after(place, step))
    assert changed > 10


def test_many_labels_take_no_more_memory_than_few(tmp_path):
    mask = np.repeat(np.arange(1, 65, dtype=np.uint8), 64 * 64).reshape(64, 64, 64)
    pair = write_pair(tmp_path, mask, mask)
    names = {label: str(label) for label in range(1, 65)}
    tracemalloc.start()
    try:
        CountCase(labels=tuple(names), targets=tuple(targets_of(names)))(pair)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * mask.size  # one mask of each label, predicted and true, is three times this


def test_what_neither_mask_has_counts_as_1_and_what_only_one_has_as_0(tmp_path):
    prediction, reference = np.zeros((2, *SHAPE), np.uint8)
    prediction[0, 0, 0] = 1
    reference[5, 5, 5] = 2
    work = CountCase(labels=(1, 2, 3), targets=tuple(targets_of(LABELS)))
    case = work(write_pair(tmp_path, prediction, reference))
    np.testing.assert_array_equal(case.dice, [0, 0, 1])
    removed = PostprocessingStep(kind="minimum_volume", labels=(1,), minimum_ml=1.0)
    np.testing.assert_array_equal(case.dice_after(1, removed), [1, 0, 1])


def test_components_that_touch_the_reference_are_true(tmp_path):
    prediction, reference = np.zeros((2, *SHAPE), np.uint8)
    prediction[0, 0, :3] = prediction[5, 5, 5] = prediction[3, 3, 3] = 1
    reference[0, 0, 2] = reference[5, 5, 5] = reference[5, 5, 7] = 1
    reference[3, 3, 3] = 2
    work = CountCase(labels=(1, 2), targets=tuple(targets_of({1: "a", 2: "b"})))
    case = work(write_pair(tmp_path, prediction, reference))
    whole, one, _ = case.targets
    np.testing.assert_array_equal(one.sizes, [3, 1, 1])
    np.testing.assert_array_equal(one.is_true, [True, False, True])
    np.testing.assert_array_equal(whole.is_true, [True, True, True])
    np.testing.assert_allclose(one.lesions_ml, [0.003, 0.003, 0.003])
    assert case.voxel_ml == pytest.approx(0.003)


def test_masks_on_different_grids_and_unknown_labels_are_refused(tmp_path):
    work = CountCase(labels=(1,), targets=tuple(targets_of({1: "a"})))
    ones = np.ones(SHAPE, np.uint8)
    with pytest.raises(GeometryError, match="Both must share one grid"):
        work(write_pair(tmp_path, ones, ones, spacing=(SPACING, (4.0, 1.5, 0.6))))
    with pytest.raises(DatasetError, match="holds 2"):
        work(write_pair(tmp_path, ones * 2, ones))


def test_a_region_of_the_whole_foreground_is_not_looked_at_twice():
    targets = targets_of(REGIONS)
    assert [target.name for target in targets] == ["whole foreground", "core", "middle"]
    assert targets[0].judged == (0, 1, 2)
    assert targets[1].judged == (1,)
    assert [target.name for target in targets_of({1: "a"})] == ["whole foreground"]
