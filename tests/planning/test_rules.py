"""Planning rules: whatever the dataset looks like, the network they choose is legal and bounded."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from veloxseg.errors import PlanError
from veloxseg.network import DistillationModel, VeloxSeg
from veloxseg.planning.rules import MemoryTarget, modality_groups, plan_network, window

extents = st.integers(2, 1024)
spacings = st.floats(0.1, 10.0)
structures = st.one_of(st.floats(0.2, 200.0), st.just(math.inf))


def axes(values):
    return st.tuples(values, values, values)


def plan(shape, spacing, structure, gigabytes=4.0, in_channels=(1,)):
    return plan_network(
        median_shape=shape,
        spacing_zyx=spacing,
        structure_zyx=structure,
        in_channels=in_channels,
        num_classes=2,
        target=MemoryTarget.from_gb(gigabytes),
    )


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(axes(extents), axes(spacings), axes(structures), st.floats(1.0, 24.0))
@example((2, 1024, 1024), (10.0, 0.1, 0.1), (0.2, 0.2, 0.2), 1.0)
@example((1024, 2, 2), (0.1, 10.0, 10.0), (math.inf,) * 3, 1.0)
@example((2, 2, 2), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 24.0)
@example((1024, 1024, 1024), (1.0, 1.0, 1.0), (0.2, 0.2, 0.2), 1.0)
def test_every_dataset_gets_a_legal_network_within_its_bounds(shape, spacing, structure, gigabytes):
    config = plan(shape, spacing, structure, gigabytes)  # constructing it is the check
    target = MemoryTarget.from_gb(gigabytes)
    minimal = math.prod(config.grids[-1]) <= 2
    assert math.prod(config.patch_size) <= 1.6 * target.voxels or minimal
    for stage, grid in enumerate(config.grids):
        scales = config.window_scales(stage)
        assert math.prod(scales[0][0]) <= 8**3
        assert scales[-1][0] == grid  # the largest window is the whole grid, as published
    for extent, patch, cell in zip(shape, config.patch_size, whole_cell(config), strict=True):
        # at most the median shape in whole cells, rounded up to what windows tile: 2^k to 5/4 of it
        assert patch <= max(5 / 4 * math.ceil(extent / cell), 2) * cell


def whole_cell(config):
    cell = list(config.stem_stride)
    for stride in config.strides:
        cell = [c * s for c, s in zip(cell, stride, strict=True)]
    return cell


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(axes(st.integers(2, 90)), axes(structures))
def test_a_case_that_fits_the_memory_is_covered_whole(shape, structure):
    config = plan(shape, (1.0, 1.0, 1.0), structure, 4.0)
    # rounding down is allowed only where rounding up would outgrow the target by a quarter
    covered = all(p >= s for p, s in zip(config.patch_size, shape, strict=True))
    assert covered or math.prod(config.patch_size) > 0.5 * 96**3


@pytest.mark.parametrize(
    ("shape", "spacing", "structure"),
    [
        ((2, 24, 20), (8.0, 1.0, 1.0), (2.0, 3.0, 3.0)),
        ((36, 50, 35), (1.0, 1.0, 1.0), (9.0, 12.0, 10.0)),
        ((5, 5, 5), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        ((70, 3, 9), (0.5, 3.0, 2.0), (30.0, 1.0, 2.0)),
        ((40, 40, 40), (2.0, 2.0, 2.0), (math.inf,) * 3),
    ],
)
def test_planned_networks_run_forward_and_backward(shape, spacing, structure):
    torch.manual_seed(0)
    config = plan(shape, spacing, structure, 1.0, in_channels=(1, 2))
    model = DistillationModel(VeloxSeg(config))
    x = torch.randn(1, 3, *config.patch_size)
    output = model(x)
    assert output.logits[0].shape == (1, 2, *config.patch_size)
    sum(logits.square().mean() for logits in output.logits).backward()
    assert all(p.grad.isfinite().all() for p in model.network.parameters())


def test_a_hippocampus_gets_stem_two_and_is_hardly_padded():
    config = plan((36, 50, 35), (1.0, 1.0, 1.0), (9.0, 12.0, 10.0))
    assert config.stem_stride == (2, 2, 2)
    assert config.patch_size == (40, 56, 40)


def test_a_large_isotropic_case_with_large_structures_gets_the_published_size():
    config = plan((96, 96, 96), (2.0, 2.0, 2.0), (20.0, 20.0, 20.0), in_channels=(1, 1))
    assert config.patch_size == (96, 96, 96)
    assert config.stem_stride == (4, 4, 4)
    assert config.strides == ((2, 2, 2),) * 3
    assert config.big_windows == ((3, 3, 3), (6, 6, 6), (3, 3, 3), (3, 3, 3))
    assert config.conv_channels == (16, 32, 64, 128)
    assert config.group_widths == (4, 8, 8, 16)


def test_thick_slices_are_not_divided_where_memory_allows():
    config = plan((24, 256, 256), (5.0, 0.7, 0.7), (4.0, 20.0, 20.0), 24.0)
    assert config.stem_stride == (1, 4, 4)


def test_small_structures_keep_the_stem_fine_while_memory_allows():
    small = plan((40, 40, 40), (1.0, 1.0, 1.0), (3.0, 3.0, 3.0), 24.0)
    medium = plan((40, 40, 40), (1.0, 1.0, 1.0), (8.0, 8.0, 8.0), 24.0)
    large = plan((40, 40, 40), (1.0, 1.0, 1.0), (16.0, 16.0, 16.0), 24.0)
    stems = [config.stem_stride for config in (small, medium, large)]
    assert stems == [(1, 1, 1), (2, 2, 2), (4, 4, 4)]


def test_more_memory_never_gives_a_smaller_patch():
    voxels = [
        math.prod(plan((300, 300, 300), (1.0,) * 3, (20.0,) * 3, gb).patch_size)
        for gb in (2.0, 8.0, 24.0)
    ]
    assert voxels == sorted(voxels)
    assert voxels[0] < voxels[-1]


@pytest.mark.parametrize("shape", [(1, 256, 256), (1.3, 256, 256), (256, 256)])
def test_flat_datasets_are_refused(shape):
    with pytest.raises(PlanError, match="3-D"):
        plan(shape, (1.0,) * len(shape), (4.0,) * len(shape))


@pytest.mark.parametrize("gigabytes", [0.0, -1.0])
def test_a_memory_target_is_positive(gigabytes):
    with pytest.raises(PlanError, match="positive"):
        MemoryTarget.from_gb(gigabytes)


def test_the_memory_target_is_the_published_patch_at_four_gigabytes():
    assert MemoryTarget.from_gb(4).voxels == 96**3
    assert MemoryTarget.from_gb(8).voxels == 2 * 96**3


@pytest.mark.parametrize(
    ("grid", "wanted", "expected"),
    [
        ((24, 24, 24), 3, (3, 3, 3)),
        ((12, 12, 12), 6, (6, 6, 6)),
        ((32, 32, 16), 3, (4, 4, 4)),
        ((1, 2, 7), 3, (1, 2, 7)),
        ((20, 10, 5), 3, (5, 5, 5)),
    ],
)
def test_a_window_is_the_grid_divided_by_the_power_of_two_nearest_to_the_wanted(
    grid, wanted, expected
):
    assert window(grid, wanted) == expected


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["CT"], (1,)),
        (["CT", "PET"], (1, 1)),
        (["PET", "CT"], (1, 1)),
        (["ct", "SUV"], (1, 1)),
        (["FDG-PET", "CTA"], (1, 1)),
        (["T1", "T1ce", "T2", "FLAIR"], (4,)),
        (["T1", "T2", "PET"], (2, 1)),
        (["CT", "T1", "CT"], (1, 1, 1)),
        (["CT", "CT", "PET", "T2"], (2, 1, 1)),
    ],
)
def test_neighbouring_channels_of_one_kind_are_one_modality(names, groups):
    assert modality_groups(names) == groups
    assert sum(groups) == len(names)
