"""nnU-Net's plan of a trained model as a bundle's pipeline; what has no exact meaning is refused.

Source: nnU-Net v2 plans JSON (Isensee et al., 2021).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from veloxseg.bundle.format import (
    Normalisation,
    Pipeline,
    PostprocessingStep,
    Resampling,
    Scheme,
)
from veloxseg.datasets.description import DatasetDescription
from veloxseg.errors import BundleError

OVERLAP = 0.5
"""Share of a patch that neighbouring patches cover too, where a plan says nothing: nnU-Net's."""

_ORIENTATIONS: dict[str, Literal["stored", "ras"]] = {
    "SimpleITKIO": "stored",
    "NibabelIO": "stored",
    "NibabelIOWithReorient": "ras",
}
_SCHEMES: dict[str, Scheme] = {
    "ZScoreNormalization": "z_score",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale_0_1",
    "RGBTo01Normalization": "rgb_0_1",
}
_PREPROCESSOR = "DefaultPreprocessor"
_LABEL_MANAGER = "LabelManager"


def pipeline_from_plans(
    plans: Mapping[str, Any],
    configuration: str,
    description: DatasetDescription,
    *,
    mirror_axes: Sequence[int] = (0, 1, 2),
) -> Pipeline:
    """Say what a plan does to images and logits.

    Args:
        plans: Content of plans.json, of any nnU-Net planner.
        configuration: Name of one of its configurations: 3-D, and no stage of a cascade.
        description: The dataset that the model was trained on.
        mirror_axes: Spatial axes that training mirrored (``inference_allowed_mirroring_axes``).

    Raises:
        BundleError: the plan lacks something, or says what the runtime does not do exactly so.
    """
    settings = _configuration(plans, configuration)
    _require("preprocessor_name", settings.get("preprocessor_name", _PREPROCESSOR), [_PREPROCESSOR])
    _require("label_manager", plans.get("label_manager", _LABEL_MANAGER), [_LABEL_MANAGER])
    reader = _get(plans, "image_reader_writer")
    _require("image_reader_writer", reader, list(_ORIENTATIONS))
    return validated_pipeline(
        "The plan and its dataset.json",
        channels=description.channels,
        optional=description.optional,
        labels=description.labels,
        regions_class_order=description.regions_class_order,
        file_ending=description.file_ending,
        orientation=_ORIENTATIONS[reader],
        transpose=_get(plans, "transpose_forward"),
        spacing=_get(settings, "spacing"),
        normalisation=_normalisations(plans, settings),
        image_resampling=_resampling(settings, "resampling_fn_data"),
        logits_resampling=_resampling(settings, "resampling_fn_probabilities"),
        patch_size=_get(settings, "patch_size"),
        overlap=settings.get("overlap", OVERLAP),
        mirror_axes=tuple(mirror_axes),
    )


def validated_pipeline(where: str, **fields: Any) -> Pipeline:
    """Make a pipeline of its fields.

    Raises:
        BundleError: they contradict each other; ``where`` begins the message.
    """
    try:
        return Pipeline(**fields)
    except ValidationError as error:
        found = "; ".join(
            ": ".join([*(str(step) for step in one["loc"][:1]), one["msg"]])
            for one in error.errors()
        )
        raise BundleError(
            f"{where} make no pipeline ({found}). Correct that, or take the files of one training."
        ) from error


def with_postprocessing(pipeline: Pipeline, steps: Sequence[PostprocessingStep]) -> Pipeline:
    """The same pipeline with steps that were chosen for it.

    Raises:
        BundleError: they name values that it does not have.
    """
    where = "The run and its postprocessing.json"
    return _changed(pipeline, where, postprocessing=tuple(steps))


def with_mirroring(pipeline: Pipeline) -> Pipeline:
    """The same pipeline, averaging over mirrored patches where nobody says otherwise.

    Raises:
        BundleError: training mirrored no axis.
    """
    return _changed(pipeline, "The run", mirroring=True)


def _changed(pipeline: Pipeline, where: str, **changes: Any) -> Pipeline:
    fields = {name: getattr(pipeline, name) for name in Pipeline.model_fields}
    return validated_pipeline(where, **fields | changes)


def _configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits from others."""
    known = _get(plans, "configurations")
    settings: dict[str, Any] = {}
    parent: str | None = name
    visited: list[str] = []
    while parent is not None:
        if parent not in known or parent in visited:
            raise BundleError(
                f"The plan has no configuration {parent}, or it inherits from itself. It has "
                f"{', '.join(known) or 'none'}. Choose one of them."
            )
        visited.append(parent)
        settings = {**known[parent], **settings}
        parent = known[parent].get("inherits_from")
    dimensions = len(_get(settings, "patch_size"))
    if dimensions != 3:
        raise BundleError(
            f"The configuration {name} has {dimensions}-D patches. Expected 3-D ones: only 3-D "
            "networks are exported."
        )
    if settings.get("previous_stage") is not None:
        raise BundleError(
            f"The configuration {name} goes on from the masks of {settings['previous_stage']}. "
            "Expected no cascade: export a configuration that needs images alone."
        )
    return settings


def _normalisations(
    plans: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Normalisation, ...]:
    names = _get(settings, "normalization_schemes")
    masks = _get(settings, "use_mask_for_norm")
    if len(names) != len(masks):
        raise BundleError(
            f"The plan's use_mask_for_norm has {len(masks)} entries, normalization_schemes "
            f"{len(names)}. Expected one for each channel in both."
        )
    return tuple(
        _normalisation(plans, i, n, m) for i, (n, m) in enumerate(zip(names, masks, strict=True))
    )


def _normalisation(
    plans: Mapping[str, Any], channel: int, name: str, within_mask: bool
) -> Normalisation:
    _require(f"normalization_schemes, channel {channel},", name, list(_SCHEMES))
    scheme = _SCHEMES[name]
    if scheme != "ct":
        return Normalisation(scheme=scheme, within_mask=scheme == "z_score" and within_mask)
    statistics = _get(plans, "foreground_intensity_properties_per_channel").get(str(channel))
    if statistics is None:
        raise BundleError(
            f"The plan has no foreground_intensity_properties_per_channel of channel {channel}, "
            f"which {name} needs. Plan the dataset again."
        )
    return Normalisation(
        scheme=scheme,
        mean=_get(statistics, "mean"),
        std=_get(statistics, "std"),
        lower=_get(statistics, "percentile_00_5"),
        upper=_get(statistics, "percentile_99_5"),
    )


def _resampling(settings: Mapping[str, Any], key: str) -> Resampling:
    name = _get(settings, key)
    _require(key, name, list(_RESAMPLINGS))
    return _RESAMPLINGS[name](key, name, dict(settings.get(f"{key}_kwargs", {})))


def _by_splines(key: str, name: str, given: dict[str, Any]) -> Resampling:
    """Read the arguments of ``resample_data_or_seg_to_shape``; defaults are the function's own."""
    _require(f"{key}_kwargs, is_seg,", given.pop("is_seg", False), [False])
    resampling = Resampling(
        order=given.pop("order", 3),
        order_z=given.pop("order_z", 0),
        force_separate_z=given.pop("force_separate_z", False),
        anisotropy_threshold=given.pop("separate_z_anisotropy_threshold", 3),
    )
    _require_known(key, name, given)
    return resampling


def _by_torch(key: str, name: str, given: dict[str, Any]) -> Resampling:
    """``resample_torch_fornnunet``: linear, and nearest along an axis that is treated apart."""
    for argument in ("num_threads", "device", "memefficient_seg_resampling"):
        given.pop(argument, None)  # no matter for images and logits
    for argument, only in (
        ("is_seg", False),
        ("mode", "linear"),
        ("aniso_axis_mode", "nearest-exact"),
    ):
        _require(f"{key}_kwargs, {argument},", given.pop(argument, only), [only])
    resampling = Resampling(
        order=1,
        order_z=0,
        force_separate_z=given.pop("force_separate_z", None),
        anisotropy_threshold=given.pop("separate_z_anisotropy_threshold", 3),
    )
    _require_known(key, name, given)
    return resampling


_RESAMPLINGS: dict[str, Callable[[str, str, dict[str, Any]], Resampling]] = {
    "resample_data_or_seg_to_shape": _by_splines,
    "resample_torch_fornnunet": _by_torch,
}


def _require_known(key: str, name: str, left: Mapping[str, Any]) -> None:
    if left:
        raise BundleError(
            f"The plan's {key}_kwargs has {', '.join(left)}, which {name} does not know. Expected "
            "its own arguments only."
        )


def _require(what: str, found: object, supported: Sequence[object]) -> None:
    if found not in supported:
        raise BundleError(
            f"The plan's {what} is {found}. Only {', '.join(map(str, supported))} can be exported, "
            "as the runtime does exactly what training did. Plan and train with one of them."
        )


def _get(content: Mapping[str, Any], key: str) -> Any:
    if key not in content:
        raise BundleError(
            f"The plan has no {key}. Expected a complete nnU-Net v2 plan. Copy plans.json again "
            "from where the model was trained."
        )
    return content[key]
