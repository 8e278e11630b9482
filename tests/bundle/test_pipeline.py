"""nnU-Net's plans as pipelines: what maps, and what is refused."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from pydantic import ValidationError

from veloxseg.bundle.format import Normalisation, Pipeline, Resampling
from veloxseg.bundle.pipeline import pipeline_from_plans
from veloxseg.datasets.description import DatasetDescription
from veloxseg.errors import BundleError
from veloxseg.runtime.resampling import resample

DESCRIPTION = DatasetDescription.model_validate(
    {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "tumour": 1, "ignore": 2},
        "numTraining": 3,
        "file_ending": ".nrrd",
    }
)
SPLINES = "resample_data_or_seg_to_shape"
CONFIGURATION: dict[str, Any] = {
    "preprocessor_name": "DefaultPreprocessor",
    "patch_size": [16, 24, 32],
    "spacing": [3.0, 1.0, 0.5],
    "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
    "use_mask_for_norm": [False, True],
    "resampling_fn_data": SPLINES,
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 1},
    "resampling_fn_probabilities": SPLINES,
    "resampling_fn_probabilities_kwargs": {
        "order": 1,
        "order_z": 0,
        "force_separate_z": None,
        "separate_z_anisotropy_threshold": 4,
    },
}
PLANS: dict[str, Any] = {
    "image_reader_writer": "NibabelIOWithReorient",
    "transpose_forward": [2, 0, 1],
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 32.0, "std": 71.0, "percentile_00_5": -86.0, "percentile_99_5": 172.0}
    },
    "configurations": {
        "3d_fullres": CONFIGURATION,
        "3d_large": {"inherits_from": "3d_fullres", "patch_size": [32, 48, 64]},
        "2d": {**CONFIGURATION, "patch_size": [64, 64]},
        "3d_cascade": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "circle": {"inherits_from": "circle"},
    },
}


def plans(**changes: Any) -> dict[str, Any]:
    changed = deepcopy(PLANS)
    changed["configurations"]["3d_fullres"].update(changes)
    return changed


def test_every_part_of_a_plan_finds_its_place() -> None:
    pipeline = pipeline_from_plans(PLANS, "3d_fullres", DESCRIPTION, mirror_axes=(0, 2))

    assert pipeline.channels == ("CT", "PET")
    assert pipeline.labels == {"background": 0, "tumour": 1, "ignore": 2}
    assert pipeline.num_classes == 2
    assert pipeline.file_ending == ".nrrd"
    assert pipeline.orientation == "ras"
    assert pipeline.transpose == (2, 0, 1)
    assert pipeline.spacing == (3.0, 1.0, 0.5)
    assert pipeline.normalisation == (
        Normalisation(scheme="ct", mean=32.0, std=71.0, lower=-86.0, upper=172.0),
        Normalisation(scheme="z_score", within_mask=True),
    )
    assert pipeline.image_resampling == Resampling(order=3, order_z=1, force_separate_z=False)
    assert pipeline.logits_resampling == Resampling(order=1, order_z=0, anisotropy_threshold=4)
    assert pipeline.patch_size == (16, 24, 32)
    assert pipeline.overlap == 0.5
    assert pipeline.mirror_axes == (0, 2)


def test_optional_channels_are_carried_in_a_format_of_their_own() -> None:
    optional = DESCRIPTION.model_copy(update={"optional": ("PET",)})
    pipeline = pipeline_from_plans(PLANS, "3d_fullres", optional)
    assert pipeline.optional == ("PET",)
    assert pipeline.required == ("CT",)
    assert pipeline.format_version == 2
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline


def test_a_pipeline_without_optional_channels_is_one_of_format_1() -> None:
    pipeline = pipeline_from_plans(PLANS, "3d_fullres", DESCRIPTION)
    assert pipeline.format_version == 1
    assert "optional" not in pipeline.model_dump(mode="json")
    assert "optional" not in pipeline.model_dump_json()


def test_mirroring_unasked_is_carried_in_a_format_of_its_own() -> None:
    pipeline = pipeline_from_plans(PLANS, "3d_fullres", DESCRIPTION)
    mirrored = Pipeline.model_validate(pipeline.model_dump() | {"mirroring": True})
    assert mirrored.format_version == 4
    assert Pipeline.model_validate_json(mirrored.model_dump_json()) == mirrored
    assert "mirroring" not in pipeline.model_dump(mode="json")


def test_mirroring_unasked_needs_axes_to_mirror() -> None:
    pipeline = pipeline_from_plans(PLANS, "3d_fullres", DESCRIPTION)
    with pytest.raises(ValidationError, match="mirroring needs mirror_axes"):
        Pipeline.model_validate(pipeline.model_dump() | {"mirroring": True, "mirror_axes": ()})


def test_an_optional_channel_is_one_of_the_channels() -> None:
    with pytest.raises(ValidationError, match="optional names T1"):
        Pipeline.model_validate(
            pipeline_from_plans(PLANS, "3d_fullres", DESCRIPTION).model_dump()
            | {"optional": ["T1"]}
        )


def test_a_configuration_has_what_it_inherits() -> None:
    pipeline = pipeline_from_plans(PLANS, "3d_large", DESCRIPTION)
    assert pipeline.patch_size == (32, 48, 64)
    assert pipeline.spacing == (3.0, 1.0, 0.5)


def test_regions_keep_their_order() -> None:
    description = DatasetDescription.model_validate(
        {
            "channel_names": {"0": "CT", "1": "PET"},
            "labels": {"background": 0, "whole": [1, 2], "core": [2]},
            "regions_class_order": [1, 2],
            "numTraining": 3,
            "file_ending": ".nii.gz",
        }
    )
    pipeline = pipeline_from_plans(PLANS, "3d_fullres", description)
    assert pipeline.has_regions
    assert pipeline.num_classes == 2
    assert list(pipeline.foreground) == ["whole", "core"]
    assert pipeline.regions_class_order == (1, 2)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_readers_that_do_not_turn_images_store_them_as_they_are(reader: str) -> None:
    changed = {**PLANS, "image_reader_writer": reader}
    assert pipeline_from_plans(changed, "3d_fullres", DESCRIPTION).orientation == "stored"


@pytest.mark.parametrize("apart", [False, True])
def test_torch_resampling_is_what_the_runtime_does_in_its_place(apart: bool) -> None:
    name = "resample_torch_fornnunet"
    kwargs = {"is_seg": False, "force_separate_z": apart, "memefficient_seg_resampling": False}
    changed = plans(resampling_fn_data=name, resampling_fn_data_kwargs=kwargs)
    mapped = pipeline_from_plans(changed, "3d_fullres", DESCRIPTION).image_resampling
    image = np.random.default_rng(0).standard_normal((1, 7, 20, 18)).astype(np.float32)
    spacings = ((4.0, 1.0, 1.1), (2.5, 0.7, 1.4))
    shape = (11, 29, 14)

    ours = resample(
        image[0], shape, spacing=spacings[0], new_spacing=spacings[1], resampling=mapped
    )

    theirs = resample_torch_fornnunet(image, shape, *spacings, num_threads=1, **kwargs)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalization_schemes": ["MyNormalization"] * 2}, "channel 0, is MyNormalization"),
        ({"resampling_fn_data": "no_resampling_hack"}, "resampling_fn_data is no_resampling_hack"),
        ({"resampling_fn_probabilities": "mine"}, "resampling_fn_probabilities is mine"),
        ({"resampling_fn_data_kwargs": {"is_seg": True}}, "is_seg, is True"),
        ({"resampling_fn_data_kwargs": {"speed": 9}}, "has speed"),
        (
            {
                "resampling_fn_data": "resample_torch_fornnunet",
                "resampling_fn_data_kwargs": {"mode": "nearest"},
            },
            "mode, is nearest",
        ),
        ({"preprocessor_name": "MyPreprocessor"}, "preprocessor_name is MyPreprocessor"),
        ({"use_mask_for_norm": [False]}, "has 1 entries"),
        ({"normalization_schemes": ["CTNormalization"] * 2}, "of channel 1"),
        ({"spacing": [1.0, 1.0]}, "spacing"),
    ],
)
def test_what_has_no_exact_meaning_is_refused_and_named(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        pipeline_from_plans(plans(**changes), "3d_fullres", DESCRIPTION)


@pytest.mark.parametrize(
    ("configuration", "message"),
    [("2d", "2-D patches"), ("3d_cascade", "3d_lowres"), ("none", "none"), ("circle", "circle")],
)
def test_other_configurations_are_refused(configuration: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        pipeline_from_plans(PLANS, configuration, DESCRIPTION)


def test_an_unknown_reader_or_label_manager_is_refused() -> None:
    for key in ("image_reader_writer", "label_manager"):
        with pytest.raises(BundleError, match=f"{key} is Mine"):
            pipeline_from_plans({**PLANS, key: "Mine"}, "3d_fullres", DESCRIPTION)


def test_a_plan_that_lacks_a_part_is_refused() -> None:
    cut = {key: value for key, value in PLANS.items() if key != "transpose_forward"}
    with pytest.raises(BundleError, match="no transpose_forward"):
        pipeline_from_plans(cut, "3d_fullres", DESCRIPTION)
