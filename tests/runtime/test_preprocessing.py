import numpy as np
import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

from veloxseg.bundle.format import Normalisation, Resampling
from veloxseg.errors import GeometryError, VeloxSegError
from veloxseg.planning.optional_preprocessing import OptionalPreprocessor
from veloxseg.runtime.preprocessing import preprocess

RTOL, ATOL = 1e-3, 1e-4
"""nnU-Net sums in float32; normalised values are around 1."""

EVERY_SCHEME = (
    Normalisation(scheme="z_score"),
    Normalisation(scheme="z_score", within_mask=True),
    Normalisation(scheme="ct", mean=30.0, std=50.0, lower=-100.0, upper=200.0),
    Normalisation(scheme="none"),
    Normalisation(scheme="rescale_0_1"),
    Normalisation(scheme="rgb_0_1"),
)


def random_case(num_channels, shape, box, seed=0) -> np.ndarray:
    """Values of 0 to 255 within a box, some of them zero; zeros outside."""
    rng = np.random.default_rng(seed)
    channels = np.zeros((num_channels, *shape), np.float32)
    inside = channels[(slice(None), *(slice(*limits) for limits in box))]
    inside[:] = rng.integers(1, 255, inside.shape)
    inside[:, 1:-1, 1:-1, 1:-1] *= rng.random(inside[0, 1:-1, 1:-1, 1:-1].shape) < 0.7
    return channels


def by_nnunet(channels, spacing, pipeline, plans):
    configuration = plans.get_configuration("3d_fullres")
    data, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        channels, None, {"spacing": list(spacing)}, plans, configuration, {}
    )
    return data, properties


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize(
    ("spacing", "new_spacing"),
    [
        ((1.5, 1.2, 1.0), (1.0, 1.0, 1.0)),
        ((1.0, 1.2, 1.0), (2.0, 1.7, 1.3)),
        ((5.0, 1.0, 1.2), (2.0, 1.1, 1.0)),
        ((1.0, 1.0, 1.0), (0.9, 4.0, 1.1)),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    ],
)
def test_every_scheme_is_that_of_nnunet(
    build_pipeline, nnunet_plans, transpose, spacing, new_spacing
):
    pipeline = build_pipeline(normalisation=EVERY_SCHEME, spacing=new_spacing, transpose=transpose)
    channels = random_case(len(EVERY_SCHEME), (17, 20, 23), ((3, 15), (0, 18), (6, 23)))
    expected, properties = by_nnunet(channels, spacing, pipeline, nnunet_plans(pipeline))
    found = preprocess(channels, spacing_zyx=spacing, pipeline=pipeline)
    assert found.data.dtype == np.float32
    np.testing.assert_allclose(found.data, expected, rtol=RTOL, atol=ATOL)
    assert all(np.ptp(channel) > 0 for channel in found.data)
    placement = found.placement
    assert [list(limits) for limits in placement.box] == properties["bbox_used_for_cropping"]
    assert placement.source_shape == properties["shape_before_cropping"]
    assert placement.box_shape == properties["shape_after_cropping_and_before_resampling"]
    assert placement.network_shape == found.data.shape[1:]
    assert placement.spacing == tuple(spacing[axis] for axis in transpose)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_orders_of_resampling_are_those_of_the_pipeline(build_pipeline, nnunet_plans, order):
    resampling = Resampling(order=order, order_z=1)
    pipeline = build_pipeline(spacing=(1.0, 4.0, 0.8), image_resampling=resampling)
    channels = random_case(1, (14, 15, 16), ((0, 14), (2, 12), (1, 9)))
    expected, _ = by_nnunet(channels, (1.2, 1.0, 1.0), pipeline, nnunet_plans(pipeline))
    found = preprocess(channels, spacing_zyx=(1.2, 1.0, 1.0), pipeline=pipeline)
    np.testing.assert_allclose(found.data, expected, rtol=RTOL, atol=ATOL)


def test_channels_of_different_types_in_a_list_are_as_one_float_array(build_pipeline):
    pipeline = build_pipeline(normalisation=EVERY_SCHEME[:2], spacing=(0.7, 1.0, 1.0))
    channels = random_case(2, (9, 10, 11), ((1, 8), (1, 8), (1, 8)))
    stored = [channels[0].astype(np.int16), channels[1].astype(">f8")]
    found = preprocess(stored, spacing_zyx=(1, 1, 1), pipeline=pipeline)
    expected = preprocess(channels, spacing_zyx=(1, 1, 1), pipeline=pipeline)
    assert np.array_equal(found.data, expected.data)


@pytest.mark.parametrize("new_spacing", [(1.0, 1.0, 1.0), (0.7, 1.0, 1.0)])
def test_images_are_not_modified(build_pipeline, new_spacing):
    pipeline = build_pipeline(normalisation=EVERY_SCHEME, spacing=new_spacing)
    channels = random_case(len(EVERY_SCHEME), (9, 10, 11), ((0, 9), (0, 10), (0, 11)))
    before = channels.copy()
    preprocess(channels, spacing_zyx=(1, 1, 1), pipeline=pipeline)
    assert np.array_equal(channels, before)


def test_an_image_of_zeros_is_kept_whole_and_is_nowhere_occupied(build_pipeline, nnunet_plans):
    pipeline = build_pipeline(spacing=(2.0, 1.0, 1.0))
    channels = np.zeros((1, 6, 7, 8), np.float32)
    found = preprocess(channels, spacing_zyx=(1, 1, 1), pipeline=pipeline)
    expected, _ = by_nnunet(channels, (1, 1, 1), pipeline, nnunet_plans(pipeline))
    assert found.data.shape == expected.shape == (1, 3, 7, 8)
    assert (found.data == 0).all()
    assert found.placement.box == ((0, 6), (0, 7), (0, 8))
    assert not found.occupancy.touches((0, 0, 0), (3, 7, 8))


def test_an_image_of_zeros_is_normalised_within_its_empty_mask_without_warnings(build_pipeline):
    pipeline = build_pipeline(normalisation=EVERY_SCHEME[1:2])
    found = preprocess(np.zeros((1, 4, 4, 4)), spacing_zyx=(1, 1, 1), pipeline=pipeline)
    assert (found.data == 0).all()


def test_a_single_voxel_is_a_grid_of_one(build_pipeline):
    channels = np.zeros((1, 5, 5, 5))
    channels[0, 3, 1, 2] = 7
    found = preprocess(
        channels, spacing_zyx=(1, 1, 1), pipeline=build_pipeline(spacing=(3.0, 3.0, 3.0))
    )
    assert found.data.shape == (1, 1, 1, 1)
    assert found.placement.box == ((3, 4), (1, 2), (2, 3))


def test_wherever_a_tile_sees_something_the_image_is_occupied(build_pipeline):
    rng = np.random.default_rng(4)
    empty = 0
    for seed in range(6):
        channels = np.zeros((1, 60, 70, 80), np.float32)
        channels[0, 2, 3, 4] = channels[0, -3, -4, -5] = 1  # a large box, nearly empty
        channels[0][tuple(rng.integers(0, size, 20) for size in (60, 70, 80))] = 1
        spacing = tuple(rng.uniform(0.6, 2, 3))
        scheme = (Normalisation(scheme="none"),)
        order = tuple(rng.permutation(3).tolist())
        found = preprocess(
            channels,
            spacing_zyx=(1, 1, 1),
            pipeline=build_pipeline(normalisation=scheme, spacing=spacing, transpose=order),
        )
        shape = np.array(found.data.shape[1:])
        for _ in range(150):
            start = rng.integers(-2, shape - 2)
            stop = start + 8
            window = tuple(slice(max(0, a), b) for a, b in zip(start, stop, strict=True))
            sees = np.abs(found.data[0][window]).max() > 0.05
            touches = found.occupancy.touches(start, stop)
            assert touches or not sees, (seed, start)
            empty += not touches
    assert empty > 50


@pytest.mark.parametrize("absent", [(0,), (1, 5), (0, 2, 3, 4)])
@pytest.mark.parametrize("new_spacing", [(1.0, 1.0, 1.0), (1.3, 0.8, 2.0)])
def test_absent_channels_are_zero_and_the_others_as_in_training(
    absent, new_spacing, build_pipeline, nnunet_plans
):
    pipeline = build_pipeline(normalisation=EVERY_SCHEME, spacing=new_spacing, transpose=(2, 0, 1))
    channels = random_case(6, (14, 18, 16), ((2, 12), (3, 15), (1, 16)))
    channels[0, 1] = 100  # a plane that only the first channel has
    present = [None if index in absent else channels[index] for index in range(6)]
    ours = preprocess(present, spacing_zyx=(1, 1, 1), pipeline=pipeline)

    plans = nnunet_plans(pipeline)
    channels[list(absent)] = 0
    theirs, _, properties = OptionalPreprocessor(verbose=False).run_case_npy(
        channels,
        None,
        {"spacing": [1.0, 1.0, 1.0], "absent_channels": list(absent)},
        plans,
        plans.get_configuration("3d_fullres"),
        {},
    )
    box = tuple(map(tuple, properties["bbox_used_for_cropping"]))
    assert ours.placement.box == box
    assert ours.placement.box[1] == ((2, 12) if 0 in absent else (1, 12))
    np.testing.assert_allclose(ours.data, theirs, RTOL, ATOL)
    for index in range(6):
        assert ours.data[index].any() == (index not in absent)


def test_tiles_where_only_an_absent_channel_had_something_are_empty(build_pipeline):
    pipeline = build_pipeline(normalisation=EVERY_SCHEME[3:4] * 2)
    full, corner = np.ones((64, 16, 16)), np.zeros((64, 16, 16))
    corner[:8], corner[-1, -1, -1] = 1, 1
    both = preprocess([full, corner], spacing_zyx=(1, 1, 1), pipeline=pipeline)
    alone = preprocess([None, corner], spacing_zyx=(1, 1, 1), pipeline=pipeline)
    assert both.data.shape == alone.data.shape
    assert both.occupancy.touches((24, 0, 0), (32, 8, 8))
    assert not alone.occupancy.touches((24, 0, 0), (32, 8, 8))


def test_a_case_without_any_image_is_refused(build_pipeline):
    with pytest.raises(VeloxSegError, match="no image"):
        preprocess(
            [None, None],
            spacing_zyx=(1, 1, 1),
            pipeline=build_pipeline(normalisation=EVERY_SCHEME[:2]),
        )


def test_images_of_different_shapes_are_refused(build_pipeline):
    pipeline = build_pipeline(normalisation=EVERY_SCHEME[:2])
    with pytest.raises(GeometryError, match=r"\(2, 2, 2\), \(2, 2, 3\)"):
        preprocess(
            [np.ones((2, 2, 2)), np.ones((2, 2, 3))], spacing_zyx=(1,) * 3, pipeline=pipeline
        )


def test_a_missing_channel_is_told_with_the_order_of_all(build_pipeline):
    pipeline = build_pipeline(normalisation=EVERY_SCHEME[:2])
    with pytest.raises(VeloxSegError, match=r"1 images.*needs 2.*channel0, channel1"):
        preprocess([np.ones((2, 2, 2))], spacing_zyx=(1, 1, 1), pipeline=pipeline)


def test_a_channel_whose_values_do_not_fit_is_named(build_pipeline):
    pipeline = build_pipeline(normalisation=EVERY_SCHEME[-1:])
    with pytest.raises(VeloxSegError, match="Channel channel0: Values run from"):
        preprocess([np.full((2, 2, 2), 300)], spacing_zyx=(1, 1, 1), pipeline=pipeline)
