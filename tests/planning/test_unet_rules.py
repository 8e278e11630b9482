"""Stages of U-Nets, against nnU-Net's own planner."""

import pytest

from veloxseg.planning.unet_rules import UNetStages, plan_unet


def test_stages_of_a_published_patch():
    stages = plan_unet((40, 56, 40), (1.0, 1.0, 1.0), residual=False)
    # nnU-Net's own plan of the hippocampus, whose patch is the same
    assert stages.arguments == {
        "n_stages": 4,
        "features_per_stage": [32, 64, 128, 256],
        "kernel_sizes": [[3, 3, 3]] * 4,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [2, 2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2, 2],
    }
    assert stages.multiple == (8, 8, 8)
    assert stages.head_strides == ((1, 1, 1), (2, 2, 2), (4, 4, 4))
    assert stages.head_weights == (1.0, 0.5, 0.0)


def test_thick_slices_are_neither_halved_nor_filtered_at_first():
    stages = plan_unet((20, 160, 160), (5.0, 1.0, 1.0), residual=False)
    assert stages.arguments["strides"][:3] == [[1, 1, 1], [1, 2, 2], [1, 2, 2]]
    assert stages.arguments["kernel_sizes"][0] == [1, 3, 3]
    assert max(stages.arguments["features_per_stage"]) == 320


def test_the_residual_encoder_has_its_blocks_and_a_light_decoder():
    arguments = plan_unet((128, 128, 128), (1.0, 1.0, 1.0), residual=True).arguments
    assert arguments["n_blocks_per_stage"] == [1, 3, 4, 6, 6, 6]
    assert arguments["n_conv_per_stage_decoder"] == [1] * 5
    assert "n_conv_per_stage" not in arguments


@pytest.mark.parametrize(
    ("patch", "heads"),
    [
        ((36, 56, 40), ((1, 1, 1), (2, 2, 2), (4, 4, 4))),
        ((38, 56, 40), ((1, 1, 1), (2, 2, 2))),
        ((37, 56, 40), ((1, 1, 1),)),
    ],
)
def test_heads_whose_cells_do_not_tile_the_patch_are_left_out(patch, heads):
    strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert UNetStages(arguments={"strides": strides}, patch_size=patch).head_strides == heads


def test_a_single_head_has_all_the_weight():
    stages = UNetStages(arguments={"strides": [[1, 1, 1]]}, patch_size=(4, 4, 4))
    assert stages.head_strides == ((1, 1, 1),)
    assert stages.head_weights == (1.0,)
