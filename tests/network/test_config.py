"""Sizes are checked before anything is built, and every refusal says where and why."""

import json
from dataclasses import FrozenInstanceError

import pytest

from veloxseg.errors import PlanError
from veloxseg.network.config import NetworkConfig

PETCT: dict = {"patch_size": (96, 96, 96), "in_channels": (1, 1), "num_classes": 2}


def test_lists_from_json_are_taken_for_tuples_and_the_round_trip_is_exact():
    config = NetworkConfig(**PETCT, strides=[[2, 2, 2]] * 3, kernel_sizes=[3])
    assert config.strides == ((2, 2, 2),) * 3
    assert NetworkConfig(**json.loads(json.dumps(config.to_json()))) == config
    assert hash(config) == hash(NetworkConfig(**config.to_json()))


def test_a_configuration_is_frozen_and_keyword_only():
    config = NetworkConfig(**PETCT)
    with pytest.raises(FrozenInstanceError):
        config.num_classes = 3
    with pytest.raises(TypeError):
        NetworkConfig((96, 96, 96), (1, 1), 2)
    with pytest.raises(TypeError, match="window"):
        NetworkConfig(**PETCT, window=3)


def test_window_scales_of_the_published_petct_size_double_up_to_the_whole_grid():
    config = NetworkConfig(**PETCT)
    assert config.grids == ((24,) * 3, (12,) * 3, (6,) * 3, (3,) * 3)
    bigs = [[big[0] for big, _ in config.window_scales(i)] for i in range(4)]
    assert bigs == [[3, 6, 12, 24], [6, 12], [3, 6], [3]]
    smalls = [[small[0] for _, small in config.window_scales(i)] for i in range(4)]
    assert smalls == [[1, 2, 4, 8], [1, 2], [1, 2], [1]]


def test_window_scales_of_the_published_hecktor_size_keep_their_proportions():
    config = NetworkConfig(
        patch_size=(128, 128, 64),
        in_channels=(1, 1),
        num_classes=2,
        big_windows=((4, 4, 2), (8, 8, 4), (4, 4, 2), (4, 4, 2)),
    )
    assert [big for big, _ in config.window_scales(0)] == [
        (4, 4, 2),
        (8, 8, 4),
        (16, 16, 8),
        (32, 32, 16),
    ]
    assert [len(config.window_scales(i)) for i in range(4)] == [4, 2, 2, 1]
    assert config.window_scales(0)[-1] == ((32, 32, 16), (8, 8, 8))


def test_an_axis_that_has_reached_its_grid_stays_while_the_others_grow():
    config = NetworkConfig(**three_stages(patch_size=(4, 16, 16)))
    assert config.window_scales(0) == (
        ((2, 2, 2), (1, 1, 1)),
        ((4, 4, 4), (2, 2, 2)),
        ((4, 8, 8), (2, 4, 4)),
        ((4, 16, 16), (2, 8, 8)),
    )


def test_every_scale_of_a_stage_has_the_same_tokens_and_ends_at_the_whole_grid():
    config = NetworkConfig(**three_stages(patch_size=(8, 16, 32)))
    for stage, grid in enumerate(config.grids):
        scales = config.window_scales(stage)
        tokens = {tuple(b // s for b, s in zip(big, small, strict=True)) for big, small in scales}
        assert len(tokens) == 1
        assert scales[-1][0] == grid


def three_stages(**changes) -> dict:
    """A small legal configuration with stem 1 and grids of patch, patch / 2, patch / 4."""
    return {
        "patch_size": (8, 8, 8),
        "in_channels": (1,),
        "num_classes": 2,
        "stem_stride": (1, 1, 1),
        "strides": ((1, 2, 2), (2, 2, 2)),
        "conv_channels": (4, 8, 8),
        "attention_channels": (4, 4, 8),
        "conv_depths": (1, 1, 1),
        "attention_depths": (1, 1, 1),
        "group_widths": (2, 4, 8),
        "conv_expansion": (2, 2, 2),
        "attention_expansion": (2, 2, 2),
        "big_windows": ((2, 2, 2), (2, 2, 2), (2, 2, 2)),
        "small_windows": ((1, 1, 1),) * 3,
        "num_heads": (1, 1, 2),
        "head_channels": (2, 2, 2),
    } | changes


def refused(changes: dict, *words: str) -> None:
    with pytest.raises(PlanError) as error:
        NetworkConfig(**three_stages(**changes))
    for word in words:
        assert word in str(error.value)


def test_the_base_of_these_tests_is_legal():
    assert NetworkConfig(**three_stages()).num_stages == 3


def test_a_window_that_does_not_divide_its_grid_is_named_with_stage_and_grid():
    windows = ((2, 2, 2), (3, 2, 2), (2, 2, 2))
    refused({"big_windows": windows}, "Stage 1", "(3, 2, 2)", "(8, 4, 4)", "(8, 8, 8)")


def test_a_window_larger_than_its_grid_is_refused():
    refused({"big_windows": ((2, 2, 2), (2, 2, 2), (2, 4, 2))}, "Stage 2", "(2, 4, 2)", "(4, 2, 2)")


def test_a_doubled_window_that_does_not_divide_its_grid_is_named_with_its_scale():
    changes = {"patch_size": (24, 8, 8), "big_windows": ((2, 2, 2),) * 3}
    refused(changes, "Stage 0", "scale 3", "(16, 8, 8)", "(24, 8, 8)")


def test_a_small_window_that_does_not_divide_the_big_one_is_refused():
    refused({"small_windows": ((1, 1, 1), (1, 2, 3), (1, 1, 1))}, "Stage 1", "(1, 2, 3)")


def test_a_group_width_that_does_not_divide_its_channels_names_both():
    refused({"group_widths": (2, 3, 8)}, "Stage 1", "group width 3", "8")


@pytest.mark.parametrize(
    "name",
    [
        "strides",
        "attention_channels",
        "conv_depths",
        "attention_depths",
        "group_widths",
        "conv_expansion",
        "attention_expansion",
        "big_windows",
        "small_windows",
        "num_heads",
        "head_channels",
    ],
)
def test_every_sequence_must_have_one_entry_a_stage(name):
    value = three_stages()[name]
    expected = str(len(value))
    refused({name: (*value, value[-1])}, name, f"expected {expected} entries")
    refused({name: value[:-1]}, name, f"expected {expected} entries")


@pytest.mark.parametrize(
    "name",
    [
        "conv_channels",
        "attention_channels",
        "conv_depths",
        "attention_depths",
        "group_widths",
        "conv_expansion",
        "attention_expansion",
        "num_heads",
        "head_channels",
    ],
)
@pytest.mark.parametrize("wrong", [0, -1, 1.5])
def test_counts_of_zero_below_zero_or_between_are_refused(name, wrong):
    value = three_stages()[name]
    refused({name: (wrong, *value[1:])}, name, "positive")


@pytest.mark.parametrize("name", ["patch_size", "stem_stride"])
@pytest.mark.parametrize("wrong", [(8, 8), (8, 8, 8, 8), (8, 8, 0), (8, -8, 8), (8, 8, 8.0)])
def test_extents_are_three_positive_integers(name, wrong):
    refused({name: wrong}, name, "three positive integers")


@pytest.mark.parametrize("name", ["strides", "big_windows", "small_windows"])
@pytest.mark.parametrize("wrong", [(2, 2), (2, 0, 2), 2])
def test_extents_of_a_stage_are_three_positive_integers(name, wrong):
    refused({name: (*three_stages()[name][:-1], wrong)}, name, "three positive integers")


@pytest.mark.parametrize("wrong", [(), (2,), (1, 3, 4), (-3,), (0,)])
def test_kernels_are_odd_and_at_least_one(wrong):
    refused({"kernel_sizes": wrong}, "kernel_sizes", "odd")


@pytest.mark.parametrize("wrong", [(), (0,), (1, -1)])
def test_every_modality_has_a_channel(wrong):
    refused({"in_channels": wrong}, "in_channels")


@pytest.mark.parametrize("wrong", [0, -2, 1.0])
def test_there_is_at_least_one_class(wrong):
    refused({"num_classes": wrong}, "num_classes")


@pytest.mark.parametrize(
    "name", ["attention_dropout", "projection_dropout", "conv_dropout", "drop_path"]
)
@pytest.mark.parametrize("wrong", [-0.1, 1.0, float("nan")])
def test_rates_are_at_least_zero_and_below_one(name, wrong):
    refused({name: wrong}, name, "0 <= rate < 1")


def test_a_patch_that_the_stem_does_not_divide_is_refused():
    refused({"stem_stride": (1, 3, 1)}, "Stage 0", "stem_stride", "(8, 8, 8)")


def test_a_grid_that_a_stride_does_not_divide_is_refused_at_its_stage():
    refused({"strides": ((1, 2, 2), (3, 2, 2))}, "Stage 2", "strides", "(8, 4, 4)")


def test_a_grid_of_a_single_position_is_refused():
    changes = {
        "strides": ((2, 2, 2), (4, 4, 4)),
        "big_windows": ((2, 2, 2), (2, 2, 2), (1, 1, 1)),
    }
    refused(changes, "Stage 2", "(1, 1, 1)", "single position")


def test_a_grid_of_two_positions_is_legal():
    changes = {
        "strides": ((2, 2, 2), (2, 4, 4)),
        "big_windows": ((2, 2, 2), (2, 2, 2), (2, 1, 1)),
    }
    assert NetworkConfig(**three_stages(**changes)).grids[-1] == (2, 1, 1)


def test_one_stage_is_too_few():
    refused({"conv_channels": (4,)}, "conv_channels", "two or more")
