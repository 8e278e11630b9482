"""Whatever a dataset looks like, its network is legal, within its memory, and covers its patch."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from veloxseg.errors import PlanError
from veloxseg.network import DistillationModel, VeloxSeg
from veloxseg.planning.memory import training_memory_gb
from veloxseg.planning.network_plan import DatasetNumbers, plan_network
from veloxseg.planning.target import CPU_POSITIONS, CPU_VOXELS, TARGETS, Target, parse_target

CHANNELS = (("CT",), ("CT", "PET"), ("T1", "T1ce", "T2", "FLAIR"), ("CT", "PET", "T1"))
sizes = st.sampled_from(["S", "B", "L"])
extents = st.integers(2, 1024)
spacings = st.floats(0.1, 10.0)
structures = st.one_of(st.floats(0.2, 200.0), st.just(math.inf))
targets = st.one_of(
    st.sampled_from(sorted(TARGETS.values(), key=lambda t: t.name)),
    st.floats(1.5, 48.0).map(lambda gb: parse_target(f"{gb:.2f}gb")),
)


def axes(values):
    return st.tuples(values, values, values)


def numbers(shape, spacing, structure, channels=("CT",), num_cases=100):
    return DatasetNumbers(
        median_shape=shape,
        spacing=spacing,
        structure=structure,
        channel_names=channels,
        num_classes=2,
        num_cases=num_cases,
    )


def whole_cell(config):
    cell = list(config.stem_stride)
    for stride in config.strides:
        cell = [c * s for c, s in zip(cell, stride, strict=True)]
    return cell


@settings(max_examples=500, deadline=None, derandomize=True)
@given(axes(extents), axes(spacings), axes(structures), targets, sizes, st.sampled_from(CHANNELS))
@example((2, 1024, 1024), (10.0, 0.1, 0.1), (0.2, 0.2, 0.2), TARGETS["cpu"], "B", ("CT",))
@example((1024, 2, 2), (0.1, 10.0, 10.0), (math.inf,) * 3, TARGETS["cpu"], "L", ("CT",))
@example((2, 2, 2), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), TARGETS["24gb"], "S", ("CT",))
@example((1024, 1024, 1024), (1.0, 1.0, 1.0), (0.2,) * 3, TARGETS["cpu"], "B", ("CT", "PET"))
def test_every_dataset_gets_a_legal_network_within_its_memory(
    shape, spacing, structure, target, size, channels
):
    plan = plan_network(numbers(shape, spacing, structure, channels), target=target, size=size)
    config = plan.network  # constructing it is the check that it can be built
    assert plan.memory_gb <= target.memory_gb
    assert plan.memory_gb == training_memory_gb(config, batch_size=plan.batch_size)
    for stage, grid in enumerate(config.grids):
        scales = config.window_scales(stage)
        assert math.prod(scales[0][0]) <= 8**3
        assert scales[-1][0] == grid  # the largest window is the whole grid, as published
    for extent, patch, cell in zip(shape, config.patch_size, whole_cell(config), strict=True):
        # at most the median shape in whole cells, rounded up to what windows tile: 2^k to 5/4 of it
        assert patch <= max(5 / 4 * math.ceil(extent / cell), 2) * cell
    if target.max_voxels:
        rounding = math.prod(max(5 / 4 * math.ceil(8 / c), 2) * c / 8 for c in whole_cell(config))
        assert math.prod(config.patch_size) <= target.max_voxels * max(4, rounding)
    assert [d.what for d in plan.decisions][-1] == "memory"
    assert all(d.value and d.why for d in plan.decisions)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(axes(st.integers(2, 80)), axes(structures))
def test_a_case_that_fits_is_covered_whole(shape, structure):
    config = plan_network(numbers(shape, (1.0,) * 3, structure), target=TARGETS["24gb"]).network
    assert all(p >= s for p, s in zip(config.patch_size, shape, strict=True))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    axes(st.integers(2, 48)),
    axes(spacings),
    axes(structures),
    sizes,
    st.sampled_from(CHANNELS),
)
@example((2, 24, 20), (8.0, 1.0, 1.0), (2.0, 3.0, 3.0), "B", ("CT", "PET"))
@example((70, 3, 9), (0.5, 3.0, 2.0), (30.0, 1.0, 2.0), "L", ("CT",))
def test_planned_networks_run_and_cover_their_patch(shape, spacing, structure, size, channels):
    torch.manual_seed(0)
    config = plan_network(
        numbers(shape, spacing, structure, channels), target=TARGETS["cpu"], size=size
    ).network
    network = VeloxSeg(config).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, len(channels), *config.patch_size))
    assert logits.shape == (1, 2, *config.patch_size)
    assert logits.isfinite().all()
    assert (logits.amax((2, 3, 4)) > logits.amin((2, 3, 4))).all()  # not a constant


def test_a_planned_network_trains():
    torch.manual_seed(0)
    plan = plan_network(
        numbers((36, 50, 35), (1.0,) * 3, (9.0, 12.0, 10.0), ("CT", "T1", "T2")),
        target=TARGETS["cpu"],
    )
    model = DistillationModel(VeloxSeg(plan.network))
    output = model(torch.randn(1, 3, *plan.network.patch_size))
    sum(logits.square().mean() for logits in output.logits).backward()
    assert all(p.grad.isfinite().all() for p in model.network.parameters())


def test_a_large_isotropic_case_with_large_structures_gets_the_published_network():
    plan = plan_network(
        numbers((96, 96, 96), (2.0,) * 3, (20.0,) * 3, ("CT", "PET")), target=TARGETS["cpu"]
    )
    config = plan.network
    assert config.patch_size == (96, 96, 96)
    assert config.stem_stride == (4, 4, 4)
    assert config.strides == ((2, 2, 2),) * 3
    assert config.big_windows == ((3, 3, 3), (6, 6, 6), (3, 3, 3), (3, 3, 3))
    assert config.conv_channels == (16, 32, 64, 128)
    assert config.group_widths == (4, 8, 8, 16)
    assert plan.batch_size == 2


@pytest.mark.parametrize(("size", "first"), [("S", 8), ("B", 16), ("L", 24)])
def test_a_size_is_the_width_of_the_first_stage(size, first):
    config = plan_network(
        numbers((96, 96, 96), (2.0,) * 3, (20.0,) * 3), target=TARGETS["cpu"], size=size
    ).network
    assert config.conv_channels == (first, 2 * first, 4 * first, 8 * first)


def test_more_memory_never_gives_a_smaller_patch():
    voxels = [
        math.prod(
            plan_network(
                numbers((300, 300, 300), (1.0,) * 3, (20.0,) * 3), target=parse_target(f"{gb}gb")
            ).network.patch_size
        )
        for gb in (2, 4, 8, 16, 24)
    ]
    assert voxels == sorted(voxels)
    assert voxels[0] < voxels[-1]


def test_the_batch_grows_on_a_gpu_where_the_patch_holds_the_whole_case():
    small = numbers((36, 50, 35), (1.0,) * 3, (9.0, 12.0, 10.0), num_cases=200)
    few = numbers((36, 50, 35), (1.0,) * 3, (9.0, 12.0, 10.0), num_cases=60)
    assert plan_network(small, target=TARGETS["cpu"]).batch_size == 2
    assert plan_network(small, target=TARGETS["24gb"]).batch_size > 2
    # a twentieth of 60 cases of 63,000 voxels are two patches of 90,000
    assert plan_network(few, target=TARGETS["24gb"]).batch_size == 2


def test_small_structures_give_way_where_memory_does_not_allow_a_fine_stem():
    tiny = numbers((160, 160, 160), (1.0,) * 3, (3.0,) * 3)
    target = Target(name="small", memory_gb=2.0, max_voxels=96**3)
    plan = plan_network(tiny, target=target)
    assert plan.network.stem_stride != (1, 1, 1)
    (why,) = [d.why for d in plan.decisions if d.what == "stem stride"]
    assert "for what small can take, though the smallest structures" in why


def test_on_a_cpu_thick_slices_are_divided_where_structures_stay_visible():
    slices = numbers((58, 171, 181), (3.27, 0.977, 0.977), (17.9, 50.0, 38.0), ("CT", "PET"))
    on_cpu = plan_network(slices, target=TARGETS["cpu"]).network
    assert on_cpu.stem_stride == (4, 4, 4)
    assert math.prod(on_cpu.grids[0]) <= CPU_POSITIONS
    assert plan_network(slices, target=TARGETS["24gb"]).network.stem_stride == (1, 4, 4)


def test_a_target_too_small_for_the_smallest_patch_is_refused():
    case = numbers((160, 160, 160), (1.0,) * 3, (20.0,) * 3)
    with pytest.raises(PlanError, match=r"target 0\.5gb has 0\.5 GB.*--target 2gb"):
        plan_network(case, target=parse_target("0.5gb"))


def test_without_teachers_a_larger_view_fits():
    large = numbers((400, 400, 400), (1.0,) * 3, (20.0,) * 3, ("CT", "PET", "T1"))
    target = parse_target("4gb")
    with_teachers = plan_network(large, target=target)
    without = plan_network(large, target=target, teachers=False)
    assert math.prod(without.network.patch_size) > math.prod(with_teachers.network.patch_size)


@pytest.mark.parametrize("shape", [(1, 256, 256), (1.3, 256, 256), (256, 256)])
def test_flat_datasets_are_refused(shape):
    flat = numbers(shape, (1.0,) * len(shape), (4.0,) * len(shape))
    with pytest.raises(PlanError, match="3-D"):
        plan_network(flat, target=TARGETS["cpu"])


@pytest.mark.parametrize("text", ["gpu", "0gb", "-4gb", "", "8"])
def test_a_target_is_a_name_or_a_memory(text):
    with pytest.raises(PlanError, match="Expected cpu, 8gb, 24gb"):
        parse_target(text)


def test_any_memory_is_a_target():
    assert parse_target(" 11.5 GB ").memory_gb == 11.5
    assert parse_target("CPU").max_voxels == CPU_VOXELS
