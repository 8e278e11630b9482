"""Presets: the published numbers, in our axis order, for the datasets that they are for."""

import copy
import json
from importlib.resources import files

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from veloxseg.datasets.description import DatasetDescription
from veloxseg.errors import PlanError
from veloxseg.network import VeloxSeg
from veloxseg.network.published import published_config
from veloxseg.planning.given import count_outputs, require_fit
from veloxseg.planning.presets import list_presets, preset_plan, read_preset, validate_preset

PETCT = ("CT", "PET")
MR = ("FLAIR", "T1", "T1ce", "T2")
TUMOURS = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}
REGIONS = {"background": 0, "whole tumour": [1, 2, 3], "tumour core": [1, 3], "enhancing": 3}
LESION = {"background": 0, "lesion": 1}
OURS = {"autopet2": (PETCT, LESION), "hecktor2022": (PETCT, LESION)}
DATASETS = OURS | {"brats2021": (MR, TUMOURS), "msd01": (("FLAIR", "T1w", "t1gd", "T2w"), TUMOURS)}


def describe(channels, labels):
    regions = {k: v for k, v in labels.items() if isinstance(v, list)}
    order = [max(v) if isinstance(v, list) else v for k, v in labels.items() if v != 0]
    return DatasetDescription(
        channel_names={str(index): name for index, name in enumerate(channels)},
        labels=labels,
        numTraining=10,
        file_ending=".nii.gz",
        regions_class_order=order if regions else None,
    )


def content_of(name):
    return json.loads((files("veloxseg.planning") / "preset_data" / f"{name}.json").read_text())


def test_the_four_presets_are_there():
    assert list_presets() == ("autopet2", "brats2021", "hecktor2022", "msd01")


@pytest.mark.parametrize("name", list_presets())
def test_a_preset_has_the_published_sizes(name):
    published = {
        "in_ch": [1, 1] if name in OURS else [4],
        "n_classes": 2 if name in OURS else 4,
        "input_size": [96, 96, 96],
        "depths": [1, 1, 1, 1],
        "conv_drop": 0.1,
    }
    if name == "hecktor2022":  # the published code reads (X, Y, Z): 64 is the axial axis
        published |= {
            "input_size": [128, 128, 64],
            "min_big_window_sizes": [[4, 4, 2], [8, 8, 4], [4, 4, 2], [4, 4, 2]],
        }
    expected = published_config(published)
    network = preset_plan(name, describe(*DATASETS[name])).network
    assert network.patch_size == expected.patch_size[::-1]
    assert network.grids == tuple(grid[::-1] for grid in expected.grids)
    for stage in range(4):
        scales = [(b[::-1], s[::-1]) for b, s in expected.window_scales(stage)]
        assert list(network.window_scales(stage)) == scales
    turned = {"patch_size", "big_windows", "stem_stride", "strides", "small_windows"}
    ours, theirs = network.to_json(), expected.to_json()
    assert {k: v for k, v in ours.items() if k not in turned} == {
        k: v for k, v in theirs.items() if k not in turned
    }


def test_the_short_axis_of_hecktor_is_the_axial_one():
    given = preset_plan("hecktor2022", describe(*DATASETS["hecktor2022"]))
    assert given.network.patch_size == (64, 128, 128)
    assert given.network.big_windows == ((2, 4, 4), (4, 8, 8), (2, 4, 4), (2, 4, 4))
    assert given.transpose_forward.index(0) == 0  # Z is the first axis
    assert given.spacing_zyx == (1.0, 1.0, 1.0)


def test_the_thick_slices_of_autopet_are_along_z():
    given = preset_plan("autopet2", describe(*DATASETS["autopet2"]))
    assert given.spacing == given.spacing_zyx == (3.0, 2.0364, 2.0364)


@pytest.mark.parametrize("name", list_presets())
def test_a_preset_trains_as_published(name):
    given = preset_plan(name, describe(*DATASETS[name]))
    recipe = given.recipe
    assert recipe.learning_rate == 2.5e-4
    assert recipe.learning_rate * recipe.final_ratio == pytest.approx(6e-6, rel=1e-12)
    assert recipe.epochs * recipe.warmup == pytest.approx(10, rel=1e-12)
    assert recipe.epochs == 300
    assert recipe.weight_decay == 0.01
    assert (recipe.reconstruction_weight, recipe.sdkt_weight) == (0.5, 2.0)
    assert (recipe.teachers, recipe.augmentation) == ("on", "rotation")
    assert given.batch_size == 4  # 2 cases of 2 crops,
    assert recipe.foreground_share == 0.5  # one of them around foreground
    assert given.overlap == 0.25


def test_three_presets_split_six_two_two_and_one_in_five_folds():
    rules = {name: read_preset(name).split for name in list_presets()}
    assert [rules[name].kind for name in rules] == ["ratio", "ratio", "ratio", "folds"]
    assert rules["autopet2"].ratios == (6, 2, 2)
    assert rules["msd01"].num_folds == 5


def test_the_network_of_a_preset_has_the_published_number_of_parameters():
    given = preset_plan("autopet2", describe(PETCT, LESION))
    parameters = sum(p.numel() for p in VeloxSeg(given.network).parameters())
    assert parameters / 1e6 == pytest.approx(1.67, abs=0.005)


def test_the_network_for_hecktor_segments_a_patch_of_ours():
    given = preset_plan("hecktor2022", describe(PETCT, LESION))
    with torch.no_grad():
        logits = VeloxSeg(given.network).eval()(torch.randn(1, 2, 64, 128, 128))
    assert logits.shape == (1, 2, 64, 128, 128)
    assert logits.std() > 0


@pytest.mark.parametrize("name", list_presets())
def test_a_preset_fits_the_datasets_that_it_accepts(name):
    description = describe(*DATASETS[name])
    require_fit(preset_plan(name, description), description)


def test_a_preset_fits_what_the_converter_of_its_data_writes():
    from veloxseg.datasets.converters import autopet, brats, hecktor

    naming = next(n for n in brats.NAMINGS if "2021" in n.name)
    regions = {name: list(values) for name, values in brats.REGIONS.items()}
    written = {
        "autopet2": (autopet.CHANNELS, autopet.LABELS),
        "hecktor2022": (("CT", "PET"), hecktor.LABELS),
        "brats2021": (tuple(naming.channels), regions),
    }
    for name, (channels, labels) in written.items():
        description = describe(channels, {"background": 0} | labels)
        require_fit(preset_plan(name, description), description)


@pytest.mark.parametrize("name", ["brats2021", "msd01"])
def test_brain_tumours_may_be_regions_and_need_no_background_output(name):
    description = describe(DATASETS[name][0], REGIONS)
    given = preset_plan(name, description)
    assert given.network.num_classes == count_outputs(description) == 3
    assert "3 regions" in given.notes[0]
    assert "published network segmented 3 labels" in given.notes[0]


def test_primary_tumour_and_nodes_may_be_told_apart_and_the_plan_says_so():
    labels = {"background": 0, "GTVp": 1, "GTVn": 2}
    given = preset_plan("hecktor2022", describe(("CT", "PT"), labels))
    assert given.network.num_classes == 3
    assert "published network segmented 1 label (tumour)" in given.notes[0]
    joined = {"background": 0, "tumour": [1, 2]}
    assert preset_plan("hecktor2022", describe(PETCT, joined)).network.num_classes == 1


def test_an_ignore_label_needs_no_output():
    description = describe(PETCT, LESION | {"ignore": 2})
    assert preset_plan("autopet2", description).network.num_classes == 2


@pytest.mark.parametrize(
    "channels", [("ct", "SUV"), ("CTres", "PT"), ("CT", "fdg_pet"), ("CT ", "P.E.T.")]
)
def test_channels_may_go_by_other_names(channels):
    assert preset_plan("autopet2", describe(channels, LESION)).network.in_channels == (1, 1)


@settings(max_examples=24, deadline=None, derandomize=True)
@given(st.permutations(["t2f", "t1n", "t1c", "t2w"]))
def test_sequences_of_one_modality_may_have_any_order(channels):
    assert preset_plan("brats2021", describe(channels, TUMOURS)).network.in_channels == (4,)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("autopet2", ("PET", "CT")),
        ("autopet2", ("CT",)),
        ("autopet2", ("CT", "PET", "T1")),
        ("hecktor2022", ("CT", "CT")),
        ("brats2021", ("FLAIR", "T1", "T1", "T2")),
        ("brats2021", ("FLAIR", "T1c")),
        ("msd01", ("MRI",)),
    ],
)
def test_other_channels_are_refused_with_what_was_found_and_expected(name, channels):
    with pytest.raises(PlanError) as caught:
        preset_plan(name, describe(channels, DATASETS[name][1]))
    words = str(caught.value)
    assert f"channels are {', '.join(channels)}" in words
    assert "Expected CT (or CTres), PET" in words or name != "autopet2"
    assert "veloxseg plan without --preset" in words


def test_other_labels_are_refused_with_what_was_found_and_expected():
    labels = {"background": 0, "a": 1, "b": 2}
    with pytest.raises(PlanError, match=r"2 labels \(a, b\)\. Expected 1 label \(lesion\)"):
        preset_plan("autopet2", describe(PETCT, labels))
    with pytest.raises(PlanError, match=r"3 regions .*Expected 1 label"):
        preset_plan("autopet2", describe(PETCT, REGIONS))


@pytest.mark.parametrize("name", ["autopet", "", "../recipe", "AutoPET2"])
def test_an_unknown_name_lists_the_presets(name):
    with pytest.raises(PlanError, match="autopet2, brats2021, hecktor2022, msd01"):
        preset_plan(name, describe(PETCT, LESION))


@pytest.mark.parametrize("name", list_presets())
def test_what_a_preset_chose_itself_is_among_its_notes(name):
    preset = read_preset(name)
    notes = preset_plan(name, describe(*DATASETS[name])).notes
    assert {"training.steps_per_epoch", "channels"} <= preset.not_stated.keys()
    for place in preset.not_stated:
        assert any(note.startswith(f"Our choice for {place}: ") for note in notes)
    assert ("spacing_zyx" in preset.not_stated) == (name != "hecktor2022")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(colour="red"), "colour"),
        (lambda c: c.pop("spacing_zyx"), "spacing_zyx"),
        (lambda c: c["training"].update(momentum=0.9), "momentum"),
        (lambda c: c["network"].update(width=3), "width"),
        (lambda c: c["network"].pop("patch_size"), "patch_size"),
        (lambda c: c["network"].update(patch_size=[96, 96, 90]), "does not divide"),
        (lambda c: c["network"].update(num_classes=3), "num_classes"),
        (lambda c: c.update(in_channels=[1]), "not the 2 channels"),
        (lambda c: c.update(spacing_zyx=[1, 0, 1]), "spacing_zyx.1"),
        (lambda c: c["split"].update(kind="random"), "split"),
        (lambda c: c["split"].update(ratios=[0, 1, 1]), "ratios"),
        (lambda c: c["not_stated"].update({"training.momentum": "x"}), "training.momentum"),
    ],
)
def test_a_file_that_is_no_preset_is_refused(change, words):
    content = copy.deepcopy(content_of("autopet2"))
    validate_preset(content, where="mine")
    change(content)
    with pytest.raises(PlanError, match=words) as caught:
        validate_preset(content, where="mine")
    assert "mine" in str(caught.value)


def test_no_two_channels_of_a_preset_share_a_name():
    for name in list_presets():
        channels = read_preset(name).channels
        for channel in channels:
            for alias in (channel.name, *channel.aliases):
                assert [c.name for c in channels if c.matches(alias)] == [channel.name]
