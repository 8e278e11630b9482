"""Published configurations, a model's and a training's, as a plan.

The published code reads arrays as (X, Y, Z). A plan from its configurations keeps that order, with
nnU-Net's ``transpose_forward`` turning our (Z, Y, X) arrays, because a published checkpoint then
loads as it is: kernels, window tables, patch mergings and pixel shuffles all depend on the order.
Presets, which start from nothing, have the same sizes in (Z, Y, X).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veloxseg.datasets.splits import RatioRule
from veloxseg.errors import PlanError
from veloxseg.network.config import NetworkConfig
from veloxseg.network.published import published_config
from veloxseg.planning.given import XYZ, GivenPlan
from veloxseg.planning.published.files import (
    ANY_DATASET,
    MODEL_KEYS,
    PublishedTraining,
    Section,
    model_section,
    training_section,
    validate_training,
    value_for,
)
from veloxseg.planning.published.key_report import KeyFate, KeyReport
from veloxseg.planning.published.recipe import CROPS_PER_CASE, published_recipe

_OVERLAP = 0.25
_ELSEWHERE = {
    "seed": "set when training: veloxseg train --seed",
    "num_workers": "set when training: veloxseg train --num-workers",
    "device": "set when training: veloxseg train --device",
}


@dataclass(frozen=True, kw_only=True)
class PublishedPlan:
    """A plan from published configurations, and what became of each of their keys.

    Attributes:
        plan: The plan; axes (X, Y, Z) with ``transpose_forward`` (2, 1, 0).
        fates: One for every key of both files.
    """

    plan: GivenPlan
    fates: tuple[KeyFate, ...]

    @property
    def honoured(self) -> list[str]:
        """Keys whose value the plan has, each with how."""
        return [str(fate) for fate in self.fates if fate.fate == "honoured"]

    @property
    def equivalent(self) -> list[str]:
        """Keys that the plan says in another way, each with how."""
        return [str(fate) for fate in self.fates if fate.fate == "equivalent"]

    @property
    def not_honoured(self) -> list[str]:
        """Keys that the plan does not follow, each with why."""
        return [str(fate) for fate in self.fates if fate.fate == "not honoured"]


def published_plan(
    model_json: Path, training_json: Path, *, dataset: str | None = None
) -> PublishedPlan:
    """Read a published model and a published training as one plan.

    Args:
        model_json: The model's configuration.
        training_json: The training's.
        dataset: Name that the training's ``patch_size`` and ``spacing`` have the dataset under;
            None where they have one only.

    Raises:
        PlanError: a file cannot be read, a key is missing or of a wrong type, the dataset is
            unknown, the files contradict each other, or the network cannot be built.
    """
    report = KeyReport()
    section = training_section(training_json)
    training = validate_training(section, where=training_json)
    place = section.place
    name, patch = value_for(
        training.patch_size, dataset=dataset, key="patch_size", where=training_json
    )
    of_patch = dataset if name == ANY_DATASET else name
    _, spacing = value_for(training.spacing, dataset=of_patch, key="spacing", where=training_json)
    of = "" if name == ANY_DATASET else f", for {name}"
    report.honour(f"{place}.patch_size", f"{list(patch)} (X, Y, Z){of}")
    report.honour(f"{place}.spacing", f"{list(spacing)} mm (X, Y, Z){of}")
    model = model_section(model_json, wanted=dataset)
    network = _network(model, patch, report, where=model_json, training_json=training_json)
    batch_size = training.batch_size * CROPS_PER_CASE
    report.honour(
        f"{place}.batch_size",
        f"{training.batch_size} cases of {CROPS_PER_CASE} crops: {batch_size} patches a step, of "
        "as many cases, half of them around foreground",
    )
    recipe = published_recipe(
        training,
        report,
        place=place,
        num_heads=network.num_stages,
        deep_supervision=_deep_supervision(model),
    )
    split = _split(training, report, place)
    for key in training.model_extra or {}:
        report.refuse(f"{place}.{key}", _ELSEWHERE.get(key, "a plan has no such setting"))
    for key in (*section.beside, *model.beside):
        report.refuse(key, "beside the configuration, and not part of it")
    plan = GivenPlan(
        origin=f"Published {model_json.name} and {training_json.name}",
        network=network,
        spacing=spacing,
        transpose_forward=XYZ,
        batch_size=batch_size,
        overlap=_OVERLAP,
        recipe=recipe,
        split=split,
        notes=(
            "Axes are (X, Y, Z), as published: a published checkpoint loads as it is.",
            *report.assumed,
        ),
    )
    return PublishedPlan(plan=plan, fates=tuple(report.fates))


def _network(
    model: Section,
    patch: Sequence[int],
    report: KeyReport,
    *,
    where: Path,
    training_json: Path,
) -> NetworkConfig:
    """The model's sizes, (X, Y, Z), for the training's patch."""
    known = {key: value for key, value in model.content.items() if key in MODEL_KEYS}
    stated = known.get("input_size", list(patch))
    if _per_axis(stated) != list(patch):
        raise PlanError(
            f"{where}: input_size is {stated}, but patch_size in {training_json} is {list(patch)}. "
            "Expected the same: windows and weight shapes follow from it. Take the model file of "
            "that dataset, or name another dataset."
        )
    try:
        network = published_config({**known, "input_size": list(patch)})
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from error
    for key in model.content:
        if key not in MODEL_KEYS:
            report.refuse(f"{model.place}.{key}", "the network has no such setting")
        elif key in ("scale_factors", "deep_supervision"):
            report.equate(f"{model.place}.{key}", f"as {MODEL_KEYS[key]}")
        else:
            report.honour(f"{model.place}.{key}", f"as {MODEL_KEYS[key]}")
    return network


def _deep_supervision(model: Section) -> bool:
    value = model.content.get("deep_supervision", True)
    if not isinstance(value, bool):
        raise PlanError(f"{model.place}.deep_supervision is {value!r}: expected true or false.")
    return value


def _split(training: PublishedTraining, report: KeyReport, place: str) -> RatioRule:
    train, val = training.train_rate, training.val_rate
    test = max(0.0, round(1 - train - val, 6))
    for key in ("train_rate", "val_rate"):
        if key in training.model_fields_set:
            report.honour(f"{place}.{key}", f"{getattr(training, key):g}, {test:g} left to test")
        else:
            report.assume(f"No {key}: {getattr(training, key):g}, as published.")
    return RatioRule(ratios=(train, val, test))


def _per_axis(value: Any) -> Any:
    return [value] * 3 if isinstance(value, int) else value
