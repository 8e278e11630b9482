import numpy as np
import pytest
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)

from veloxseg.bundle.format import Resampling
from veloxseg.runtime.mask import segment
from veloxseg.runtime.preprocessing import Placement
from veloxseg.runtime.tiling import Slab

LABELS = {"background": 0, "a": 1, "b": 2, "c": 3}
REGIONS = {"background": 0, "whole": (1, 2, 3), "core": (2, 3), "middle": (3,)}
HALF_ROUNDING = 1e-3
"""Of a probability: float16's 5e-4 at 1, and as much for how sums are rounded."""


def smooth_logits(num_classes, shape, seed=0) -> np.ndarray:
    """Logits around 0 in blobs, no two alike: a rounding error seldom decides."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(0, 3, size) for size in shape), indexing="ij")
    waves = [
        np.sin(a * z + b * y + c * x + d) * 5
        for a, b, c, d in rng.uniform(0.5, 3, (num_classes, 4))
    ]
    return (np.array(waves) + rng.normal(size=(num_classes, *shape))).astype(np.float32)


def slabs_of(logits, depths=(5, 1, 3)):
    start = turn = 0
    while start < logits.shape[1]:
        stop = start + depths[turn % len(depths)]
        yield Slab(start=start, logits=logits[:, start:stop])
        start, turn = min(stop, logits.shape[1]), turn + 1


def place(pipeline, *, source_shape, box, network_shape, spacing) -> Placement:
    return Placement(
        source_shape=source_shape,
        box=box,
        spacing=spacing,
        network_shape=network_shape,
        network_spacing=pipeline.spacing,
    )


def by_nnunet(logits, placement, pipeline, plans):
    dataset_json = {"labels": dict(pipeline.labels)}
    if pipeline.has_regions:
        dataset_json["regions_class_order"] = pipeline.regions_class_order
    source_spacing = np.empty(3)
    source_spacing[list(pipeline.transpose)] = placement.spacing
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        plans,
        plans.get_configuration("3d_fullres"),
        plans.get_label_manager(dataset_json),
        {
            "spacing": source_spacing.tolist(),
            "shape_before_cropping": placement.source_shape,
            "bbox_used_for_cropping": [list(limits) for limits in placement.box],
            "shape_after_cropping_and_before_resampling": placement.box_shape,
        },
        return_probabilities=True,
        num_threads_torch=1,
    )


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize(
    ("labels", "order"), [(LABELS, None), (REGIONS, (1, 2, 3))], ids=["labels", "regions"]
)
@pytest.mark.parametrize(
    ("spacing", "network_spacing", "network_shape"),
    [
        ((1.0, 1.0, 1.0), (1.5, 1.2, 1.1), (10, 16, 17)),
        ((1.0, 1.0, 1.0), (0.5, 0.6, 0.7), (29, 31, 25)),
        ((5.0, 1.0, 1.0), (2.0, 1.1, 1.2), (37, 17, 15)),
        ((1.0, 1.0, 1.0), (1.0, 1.1, 4.0), (15, 17, 5)),
        ((1.0, 6.0, 1.0), (1.0, 3.0, 1.0), (15, 38, 18)),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (15, 19, 18)),
    ],
)
def test_masks_and_probabilities_are_those_of_nnunet(
    build_pipeline, nnunet_plans, labels, order, transpose, spacing, network_spacing, network_shape
):
    for resampling in (Resampling(order=1, order_z=0), Resampling(order=3, order_z=1)):
        pipeline = build_pipeline(
            labels=labels,
            regions_class_order=order,
            transpose=transpose,
            spacing=network_spacing,
            logits_resampling=resampling,
        )
        placement = place(
            pipeline,
            source_shape=(20, 24, 22),
            box=((2, 17), (5, 24), (0, 18)),
            network_shape=network_shape,
            spacing=spacing,
        )
        logits = smooth_logits(pipeline.num_classes, network_shape)
        expected, likely = by_nnunet(logits.copy(), placement, pipeline, nnunet_plans(pipeline))
        found = segment(
            slabs_of(logits), placement=placement, pipeline=pipeline, with_probabilities=True
        )
        assert found.mask.dtype == np.uint8
        assert found.mask.shape == expected.shape
        assert found.mask.flags.c_contiguous
        assert np.mean(found.mask != expected) < 2e-4  # ties, decided by rounding
        assert np.unique(found.mask).tolist() == [0, 1, 2, 3]
        assert found.probabilities.shape == likely.shape
        np.testing.assert_allclose(found.probabilities, likely, atol=HALF_ROUNDING)
        alone = segment(slabs_of(logits), placement=placement, pipeline=pipeline)
        assert alone.probabilities is None
        assert np.array_equal(alone.mask, found.mask)


def whole_grid(pipeline, shape) -> Placement:
    return place(
        pipeline,
        source_shape=shape,
        box=tuple((0, size) for size in shape),
        network_shape=shape,
        spacing=pipeline.spacing,
    )


def test_the_largest_logit_wins_and_of_equal_ones_the_first(build_pipeline):
    pipeline = build_pipeline()
    logits = np.float32([[1, 0, 2, 3, -1], [1, 5, 2, 4, -2], [1, 4, 3, 4, -3]])
    slab = Slab(start=0, logits=logits.reshape(3, 1, 1, 5))
    found = segment([slab], placement=whole_grid(pipeline, (1, 1, 5)), pipeline=pipeline)
    assert found.mask.ravel().tolist() == [0, 1, 2, 1, 0]


def test_a_later_region_is_written_over_an_earlier_one(build_pipeline):
    pipeline = build_pipeline(
        labels={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(7, 300)
    )
    logits = np.float32([[-1, 1, 1, 0], [-1, -1, 1, 2]])
    slab = Slab(start=0, logits=logits.reshape(2, 1, 1, 4))
    found = segment([slab], placement=whole_grid(pipeline, (1, 1, 4)), pipeline=pipeline)
    assert found.mask.ravel().tolist() == [0, 7, 300, 300]
    assert found.mask.dtype == np.uint16


def test_more_than_255_labels_need_sixteen_bits(build_pipeline):
    for highest, dtype in ((255, np.uint8), (256, np.uint16)):
        labels = {"background": 0} | {f"label{value}": value for value in range(1, highest + 1)}
        pipeline = build_pipeline(labels=labels)
        logits = np.zeros((highest + 1, 1, 1, 2), np.float32)
        logits[highest, ..., 1] = 1
        found = segment(
            [Slab(start=0, logits=logits)],
            placement=whole_grid(pipeline, (1, 1, 2)),
            pipeline=pipeline,
        )
        assert found.mask.dtype == dtype
        assert found.mask.ravel().tolist() == [0, highest]


def test_how_logits_are_cut_into_slabs_does_not_matter(build_pipeline):
    pipeline = build_pipeline(labels=LABELS, spacing=(0.8, 1.3, 1.0))
    placement = place(
        pipeline,
        source_shape=(40, 20, 21),
        box=((1, 37), (2, 20), (0, 20)),
        network_shape=(45, 14, 20),
        spacing=(1.0, 1.0, 1.0),
    )
    logits = smooth_logits(4, placement.network_shape)
    masks = [
        segment(slabs_of(logits, depths), placement=placement, pipeline=pipeline).mask
        for depths in ((45,), (1,), (9, 2), (20, 25))
    ]
    assert masks[0].any()
    assert all(np.mean(mask != masks[0]) < 1e-4 for mask in masks)


def test_logits_far_from_zero_make_finite_probabilities(build_pipeline):
    for labels, order in ((LABELS, None), (REGIONS, (1, 2, 3))):
        pipeline = build_pipeline(labels=labels, regions_class_order=order)
        logits = np.full((pipeline.num_classes, 1, 1, 2), -1e4, np.float32)
        logits[-1, ..., 1] = 1e4
        found = segment(
            [Slab(start=0, logits=logits)],
            placement=whole_grid(pipeline, (1, 1, 2)),
            pipeline=pipeline,
            with_probabilities=True,
        )
        assert found.probabilities[-1, 0, 0, 1] == 1
        assert np.isfinite(found.probabilities).all()


def test_slabs_with_a_gap_and_slabs_that_end_early_are_refused(build_pipeline):
    pipeline = build_pipeline()
    placement = whole_grid(pipeline, (6, 2, 2))
    logits = smooth_logits(3, (6, 2, 2))
    first, last = (Slab(start=z, logits=logits[:, z : z + 2]) for z in (0, 4))
    with pytest.raises(ValueError, match=r"starts at plane 4. Expected plane 2"):
        segment([first, last], placement=placement, pipeline=pipeline)
    with pytest.raises(ValueError, match=r"end after 2 planes. Expected 6"):
        segment([first], placement=placement, pipeline=pipeline)
