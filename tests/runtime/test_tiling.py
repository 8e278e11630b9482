import itertools

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

from veloxseg.runtime.occupancy import Occupancy
from veloxseg.runtime.tiling import (
    ABSENT_LOGIT,
    absent_logits,
    gaussian_importance,
    mirrored,
    slide,
    tile_starts,
)

SHAPES = [(20, 23, 26), (5, 30, 8), (8, 8, 8), (3, 4, 5), (41, 9, 7)]
PATCH = (8, 10, 6)
BACKGROUND = (0.0, ABSENT_LOGIT)


def network(batch: np.ndarray) -> np.ndarray:
    """Two classes that depend on where a voxel lies in its tile, so that weights matter."""
    ramp = np.linspace(0, 1, batch.shape[-1], dtype=np.float32)
    return np.stack([batch[:, 0] * 2 + ramp, batch[:, 1] - batch[:, 0] * ramp], axis=1)


def random_image(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)


def logits_of(data, run=network, **options) -> np.ndarray:
    options = {"patch_size": PATCH, "overlap": 0.5, "absent": BACKGROUND} | options
    slabs = list(slide(data, run, **options))
    starts = [slab.start for slab in slabs]
    assert starts == np.cumsum([0, *(slab.logits.shape[1] for slab in slabs)])[:-1].tolist()
    return np.concatenate([slab.logits for slab in slabs], axis=1)


def logits_by_nnunets_rules(data, patch_size, overlap) -> np.ndarray:
    padded, back = pad_nd_image(data, patch_size, "constant", {"constant_values": 0}, True)
    gaussian = compute_gaussian(
        tuple(patch_size), 1 / 8, 10, dtype=torch.float32, device=torch.device("cpu")
    ).numpy()
    steps = compute_steps_for_sliding_window(padded.shape[1:], patch_size, 1 - overlap)
    sums, weights = np.zeros((2, *padded.shape[1:])), np.zeros(padded.shape[1:])
    for start in itertools.product(*steps):
        tile = tuple(slice(a, a + size) for a, size in zip(start, patch_size, strict=True))
        sums[(slice(None), *tile)] += network(padded[(slice(None), *tile)][None])[0] * gaussian
        weights[tile] += gaussian
    return (sums / weights)[(slice(None), *back[1:])]


def occupied(blocks, shape) -> Occupancy:
    return Occupancy(blocks=blocks, box=tuple((0, size) for size in shape), shape=shape)


def test_tiles_of_nnunets_own_example_start_where_it_says():
    assert tile_starts((110,), (64,), 0.5) == [[0, 23, 46]]


def test_an_image_shorter_than_the_patch_lies_in_its_middle():
    assert tile_starts((3, 4, 5), (8, 8, 5), 0.5) == [[-2], [-2], [0]]


def test_tiles_start_where_nnunets_do():
    rng = np.random.default_rng(0)
    for _ in range(300):
        patch = rng.integers(1, 60, 3)
        shape = patch + rng.integers(0, 200, 3)
        overlap = float(rng.choice([0, 0.25, 0.3, 0.5, 0.7, 0.9]))
        expected = compute_steps_for_sliding_window(tuple(shape), tuple(patch), 1 - overlap)
        assert tile_starts(shape, patch, overlap) == expected


@pytest.mark.parametrize("overlap", [-0.1, 1.0])
def test_an_overlap_out_of_range_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap"):
        tile_starts((8,), (8,), overlap)


@pytest.mark.parametrize("patch", [(8, 10, 6), (1, 2, 3), (5, 96, 7), (32, 33, 31)])
def test_weights_are_those_of_nnunet_and_never_zero(patch):
    expected = compute_gaussian(patch, 1 / 8, 10, torch.float32, torch.device("cpu")).numpy()
    found = gaussian_importance(patch)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.min() > 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("batch_size", "overlap"), [(1, 0.5), (3, 0.3), (7, 0.0)])
def test_logits_are_those_of_nnunets_rules(shape, batch_size, overlap):
    data = random_image(shape)
    found = logits_of(data, batch_size=batch_size, overlap=overlap)
    np.testing.assert_allclose(found, logits_by_nnunets_rules(data, PATCH, overlap), atol=2e-5)
    assert np.ptp(found) > 1


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_mirrored_logits_are_those_of_nnunets_predictor(build_pipeline, nnunet_plans, shape):
    class Network(torch.nn.Module):
        def forward(self, batch):
            return torch.from_numpy(network(batch.numpy()))

    pipeline = build_pipeline(labels={"background": 0, "a": 1}, patch_size=PATCH)
    plans = nnunet_plans(pipeline)
    predictor = nnUNetPredictor(device=torch.device("cpu"), verbose=False, allow_tqdm=False)
    predictor.manual_initialization(
        network=Network(),
        plans_manager=plans,
        configuration_manager=plans.get_configuration("3d_fullres"),
        parameters=None,
        dataset_json={"labels": pipeline.labels, "channel_names": {"0": "a", "1": "b"}},
        trainer_name="",
        inference_allowed_mirroring_axes=(0, 2),
    )
    data = random_image(shape)
    expected = predictor.predict_sliding_window_return_logits(torch.from_numpy(data)).numpy()
    found = logits_of(data, mirrored(network, (0, 2)))
    # nnU-Net sums in float16, which cannot hold the weights at the outermost voxels.
    core = (slice(None), *[slice(1, -1)] * 3)
    np.testing.assert_allclose(found[core], expected[core], atol=0.05)
    assert np.abs(found - logits_of(data)).max() > 0.2


def test_mirroring_averages_all_combinations_of_axes():
    def corner(batch):
        logits = np.zeros_like(batch)
        logits[..., 0, 0, 0] = 8
        return logits

    found = mirrored(corner, (0, 1, 2))(np.zeros((1, 1, 2, 2, 2), np.float32))
    assert (found == 1).all()


def test_mirroring_about_no_axis_is_the_network_itself():
    batch = random_image((4, 5, 6))[None]
    assert np.array_equal(mirrored(network, ())(batch), network(batch))


def test_a_backend_may_return_the_same_memory_at_every_call():
    memory = np.empty((1, 2, *PATCH), np.float32)

    def run(batch):
        memory[:] = network(batch)
        return memory

    data = random_image((20, 23, 26))
    for axes in ((), (0, 1)):
        expected = logits_of(data, mirrored(network, axes))
        assert np.array_equal(logits_of(data, mirrored(run, axes)), expected)


def test_constant_logits_come_out_constant():
    def run(batch):
        return np.broadcast_to(np.float32([3, -5])[None, :, None, None, None], (1, 2, *PATCH))

    found = logits_of(random_image((30, 21, 17)), run)
    np.testing.assert_allclose(found[0], 3, rtol=1e-5)
    np.testing.assert_allclose(found[1], -5, rtol=1e-5)


def test_tiles_where_nothing_is_are_left_out_and_say_background():
    shape = (64, 16, 16)
    blocks = np.zeros((8, 2, 2), bool)
    blocks[0, 0, 0] = blocks[7] = True
    seen = []

    def run(batch):
        seen.append(len(batch))
        return np.ones((len(batch), 2, 8, 8, 8), np.float32)

    progress = []
    found = logits_of(
        random_image(shape),
        run,
        patch_size=(8, 8, 8),
        overlap=0,
        occupancy=occupied(blocks, shape),
        on_tiles=lambda *numbers: progress.append(numbers),
    )
    # A margin around every tile is its own too, so that the neighbours of the blocks run.
    assert sum(seen) == 16 < 32
    assert progress == [(number, 16) for number in range(17)]
    assert (found[:, :16] == 1).all()
    assert (found[0, 16:48] == 0).all()
    assert (found[1, 16:48] == ABSENT_LOGIT).all()
    assert (found[:, 48:] == 1).all()


def test_an_image_of_zeros_runs_nothing_and_is_background():
    def run(batch):
        raise AssertionError

    nothing = occupied(np.zeros((3, 3, 3), bool), (20, 21, 22))
    found = logits_of(np.zeros((2, 20, 21, 22), np.float32), run, occupancy=nothing)
    assert found.shape == (2, 20, 21, 22)
    assert (found[0] == 0).all()
    assert (found[1] == ABSENT_LOGIT).all()


def test_leaving_nothing_out_changes_nothing():
    data = random_image((20, 23, 26))
    everything = occupied(np.ones((3, 3, 4), bool), (20, 23, 26))
    assert np.array_equal(logits_of(data, occupancy=everything), logits_of(data))


def test_slabs_leave_as_soon_as_no_later_tile_touches_them():
    runs = []

    def run(batch):
        runs.append(len(batch))
        return network(batch)

    slabs = slide(
        random_image((32, 8, 8)), run, patch_size=(8, 8, 8), overlap=0.5, absent=BACKGROUND
    )
    seen = [(slab.start, slab.logits.shape[1], len(runs)) for slab in slabs]
    assert [(start, planes) for start, planes, _ in seen] == [
        *((4 * i, 4) for i in range(6)),
        (24, 8),
    ]
    # Plane 4 i is done with tile i + 1; one more may be running meanwhile.
    assert all(num_runs <= i + 3 for i, (_, _, num_runs) in enumerate(seen))


def test_background_is_zero_and_other_labels_and_all_regions_are_far_below(build_pipeline):
    labels = build_pipeline()
    regions = build_pipeline(
        labels={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2)
    )
    assert absent_logits(labels) == (0, ABSENT_LOGIT, ABSENT_LOGIT)
    assert absent_logits(regions) == (ABSENT_LOGIT, ABSENT_LOGIT)


def test_logits_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 2, 8, 10, 6\).*Expected \(1, 3, 8, 10, 6\)"):
        logits_of(random_image((8, 10, 6)), absent=(0, -1, -1))
