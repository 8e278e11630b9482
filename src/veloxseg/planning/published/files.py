"""The published JSON configurations as they are: one of a model, one of a training.

Their axes are (X, Y, Z), as the published code reads arrays.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from veloxseg.atomic import read_json
from veloxseg.errors import PlanError, VeloxSegError
from veloxseg.planning.given import listed

MODEL_KEYS = {
    "in_ch": "in_channels",
    "n_classes": "num_classes",
    "input_size": "patch_size",
    "patch_size": "stem_stride",
    "base_ch": "conv_channels",
    "attn_base_ch": "attention_channels",
    "conv_depths": "conv_depths",
    "depths": "attention_depths",
    "kernel_sizes": "kernel_sizes",
    "min_dim_group": "group_widths",
    "conv_expansion_factor": "conv_expansion",
    "ffn_expansion_ratio": "attention_expansion",
    "min_big_window_sizes": "big_windows",
    "min_small_window_sizes": "small_windows",
    "scale_factors": "strides",
    "num_heads": "num_heads",
    "min_dim_head": "head_channels",
    "attn_drop": "attention_dropout",
    "proj_drop": "projection_dropout",
    "conv_drop": "conv_dropout",
    "drop_path": "drop_path",
    "deep_supervision": "head_weights",
}
"""Published key of a model to what it is called in a plan of ours."""

ANY_DATASET = "*"
"""Under which a value that is not given by dataset is kept."""

_Value = TypeVar("_Value")
_Extent = Annotated[int, Field(gt=0)]
_Millimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Rate = Annotated[float, Field(gt=0, le=1)]


class PublishedTraining(BaseModel):
    """A published training configuration; keys that are not named here are in ``model_extra``.

    Attributes:
        patch_size: Dataset to patch in voxels, (X, Y, Z).
        spacing: Dataset to target spacing in mm, (X, Y, Z).
        batch_size: Cases in a training step; two patches are cropped from each.
        epochs: Length of the training, warm-up included.
        optimizer: Name and arguments, in one of the forms that ``named_arguments`` reads.
        warmup_scheduler: Likewise; None: no warm-up.
        train_scheduler: Likewise; None: a constant rate.
        deep_loss_weight: ``deep_Loss_weight``: of each segmentation head, from fine to coarse.
        reconstruction_weight: ``RC_Loss_weight``.
        feature_weight: ``Feature_Loss_weight``, of the knowledge transfer.
        train_rate: Share of the cases to train with.
        val_rate: Share to validate with; the rest is to test with.

    ``model_fields_set`` says which of them the file has.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    patch_size: dict[str, tuple[_Extent, _Extent, _Extent]] = Field(min_length=1)
    spacing: dict[str, tuple[_Millimetres, _Millimetres, _Millimetres]] = Field(min_length=1)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    optimizer: Any
    warmup_scheduler: Any = None
    train_scheduler: Any = None
    deep_loss_weight: tuple[_Weight, ...] | _Weight | None = Field(
        default=None, alias="deep_Loss_weight"
    )
    reconstruction_weight: _Weight = Field(default=0.5, alias="RC_Loss_weight")
    feature_weight: _Weight = Field(default=2.0, alias="Feature_Loss_weight")
    train_rate: _Rate = 0.6
    val_rate: _Rate = 0.2

    @field_validator("patch_size", "spacing", mode="before")
    @classmethod
    def _by_dataset(cls, value: Any) -> Any:
        table = value if isinstance(value, dict) else {ANY_DATASET: value}
        return {
            name: (axes,) * 3
            if isinstance(axes, (int, float))
            else tuple(axes)
            if isinstance(axes, list)  # strict: tuples from here on
            else axes
            for name, axes in table.items()
        }

    @model_validator(mode="after")
    def _check_rates(self) -> "PublishedTraining":
        if self.train_rate + self.val_rate > 1 + 1e-9:
            raise ValueError(
                f"train_rate {self.train_rate:g} and val_rate {self.val_rate:g} are more than 1 "
                "together"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Section:
    """The part of a file that holds a configuration.

    Attributes:
        content: Its keys.
        place: Where it is, for messages and reports: ``model`` or ``model.NAME``.
        beside: Places of keys that stand beside it.
    """

    content: dict[str, Any]
    place: str
    beside: tuple[str, ...] = ()


def read_published_training(path: Path) -> PublishedTraining:
    """Read a published training configuration.

    Raises:
        PlanError: the file cannot be read, a key that must be there is missing, or a value is of a
            wrong type or cannot be.
    """
    return validate_training(training_section(path), where=path)


def training_section(path: Path) -> Section:
    """The training configuration of a file, itself or one level down.

    Raises:
        PlanError: the file cannot be read or holds none.
    """
    return _section(path, "training", known=_TRAINING_KEYS, wanted=None)


def model_section(path: Path, *, wanted: str | None = None) -> Section:
    """The model configuration of a file, itself or one level down under its model's name.

    Args:
        path: The file.
        wanted: Which one to take where there are several.

    Raises:
        PlanError: the file cannot be read, or holds none or several.
    """
    return _section(path, "model", known=MODEL_KEYS, wanted=wanted)


def validate_training(section: Section, *, where: Path) -> PublishedTraining:
    """Check the keys of a published training configuration.

    Raises:
        PlanError: a key is missing, or a value is of a wrong type or cannot be.
    """
    try:
        # As JSON text: strict, a list is an array of numbers and true is no 1.
        return PublishedTraining.model_validate_json(json.dumps(section.content), strict=True)
    except ValidationError as error:
        parts = []
        for one in error.errors():
            place = ".".join(str(step) for step in one["loc"])
            found = "missing" if one["type"] == "missing" else f"is {json.dumps(one['input'])}"
            message = one["msg"].removeprefix("Value error, ")
            parts.append(f"{place} {found} ({message})" if place else message)
        raise PlanError(
            f"{where}: not a published training configuration: {'; '.join(parts[:5])}. Expected "
            f"{listed(_TRAINING_KEYS)}. Correct the file, or take the one that was published."
        ) from error


def value_for(
    table: Mapping[str, _Value], *, dataset: str | None, key: str, where: Path
) -> tuple[str, _Value]:
    """The entry of a table by dataset, and its name there; case and signs do not matter.

    Args:
        table: Dataset to value.
        dataset: Which one; None takes the only one.
        key: What the table is called, for the message.
        where: The file, for the message.

    Raises:
        PlanError: there is none of that name, or none is named and there are several.
    """
    if ANY_DATASET in table:
        return ANY_DATASET, table[ANY_DATASET]
    if dataset is None and len(table) == 1:
        return next(iter(table.items()))
    for name, value in table.items():
        if dataset is not None and plain(name) == plain(dataset):
            return name, value
    found = f"nothing for '{dataset}'" if dataset is not None else "several datasets"
    raise PlanError(
        f"{where}: {key} has {found}. Expected one of {listed(table)}. Name the dataset as it is "
        "called there."
    )


def plain(name: str) -> str:
    """A name without case and signs."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _section(path: Path, kind: str, *, known: Collection[str], wanted: str | None) -> Section:
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise PlanError(f"{path}: no such file. Expected a published {kind}'s JSON.") from None
    except (VeloxSegError, OSError) as error:
        raise PlanError(f"{path}: not the JSON of a published {kind} ({error})") from error
    if isinstance(content, dict):
        telling = set(known) - {"patch_size"}  # both kinds have it
        if telling & content.keys():
            return Section(content=content, place=kind)
        inner = {
            name: value
            for name, value in content.items()
            if isinstance(value, dict) and telling & value.keys()
        }
        if inner:
            only = len(inner) == 1
            name, value = value_for(
                inner, dataset=None if only else wanted, key=f"the {kind}", where=path
            )
            beside = tuple(f"{kind}.{other}" for other in content if other != name)
            return Section(content=value, place=f"{kind}.{name}", beside=beside)
    raise PlanError(
        f"{path}: no published {kind} configuration. Expected keys such as "
        f"{listed(list(known)[:6])}, as they are or one level down. Give the model's file first, "
        "the training's second."
    )


_TRAINING_KEYS = tuple(
    field.alias or name for name, field in PublishedTraining.model_fields.items()
)
