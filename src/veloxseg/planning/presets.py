"""Presets: the published plans of datasets, as data files beside this module.

What a file holds beyond what is known of the published work is named in its ``not_stated``.
"""

import json
from importlib.resources import files
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from veloxseg.datasets.description import DatasetDescription
from veloxseg.datasets.splits import SplitRule
from veloxseg.errors import PlanError
from veloxseg.network.config import NetworkConfig
from veloxseg.planning.given import GivenPlan, count_outputs, listed
from veloxseg.planning.recipe import TrainingRecipe

_FOLDER = files("veloxseg.planning") / "preset_data"
_ENDING = ".json"

_Millimetres = Annotated[float, Field(gt=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PresetChannel(_Frozen):
    """A channel that a preset expects.

    Attributes:
        name: As our converters write it.
        aliases: What else it may be called. Case and signs in a name do not matter.
    """

    name: str
    aliases: tuple[str, ...] = ()

    def matches(self, name: str) -> bool:
        """Whether a dataset's channel is this one."""
        return _plain(name) in {_plain(own) for own in (self.name, *self.aliases)}


class PresetTarget(_Frozen):
    """Something that a preset's network may segment; the number of classes decides, not the names.

    Attributes:
        names: Usual names of the labels or regions, without the background.
        regions: Whether they are nnU-Net's regions, which overlap.
        published: Whether the published network segmented this.
    """

    names: tuple[str, ...] = Field(min_length=1)
    regions: bool = False
    published: bool = False

    @property
    def num_outputs(self) -> int:
        """Outputs of the network: regions do without the background."""
        return len(self.names) + (not self.regions)

    def __str__(self) -> str:
        count = len(self.names)
        kind = ("region" if self.regions else "label") + ("s" if count > 1 else "")
        return f"{count} {kind} ({listed(self.names)})"


class Preset(_Frozen):
    """A plan for datasets of one kind.

    Attributes:
        title: What it is for.
        source: Where its numbers are from.
        channels: Expected channels, in the order of the network's input.
        in_channels: Channels of each modality, as in ``NetworkConfig``. Within a modality a
            dataset may have its channels in any order.
        targets: What may be segmented.
        spacing_zyx: Target spacing, mm.
        network: The other fields of ``NetworkConfig``, all axes (Z, Y, X).
        batch_size: Patches in a training step.
        overlap: Share of a patch that its neighbours cover too, in prediction.
        split: How the cases are split.
        training: How the network is trained.
        not_stated: Field (with dots where nested) to what was chosen for want of a statement.
    """

    title: str
    source: str
    channels: tuple[PresetChannel, ...] = Field(min_length=1)
    in_channels: tuple[int, ...]
    targets: tuple[PresetTarget, ...] = Field(min_length=1)
    spacing_zyx: tuple[_Millimetres, _Millimetres, _Millimetres]
    network: dict[str, Any]
    batch_size: int = Field(ge=1)
    overlap: float = Field(ge=0, lt=1)
    split: SplitRule
    training: TrainingRecipe
    not_stated: dict[str, str]

    @model_validator(mode="after")
    def _check(self) -> "Preset":
        if sum(self.in_channels) != len(self.channels):
            raise ValueError(
                f"in_channels {list(self.in_channels)} are not the {len(self.channels)} channels"
            )
        for target in self.targets:
            self.network_for(target)
        content = self.model_dump()
        for place in self.not_stated:
            inner: Any = content
            for step in place.split("."):
                if not isinstance(inner, dict) or step not in inner:
                    raise ValueError(f"not_stated names {place}, which there is not")
                inner = inner[step]
        return self

    def network_for(self, target: PresetTarget) -> NetworkConfig:
        """The sizes of the network, checked.

        Raises:
            PlanError: it cannot be built.
        """
        try:
            return NetworkConfig(
                in_channels=self.in_channels, num_classes=target.num_outputs, **self.network
            )
        except TypeError as error:  # a field that is unknown, missing or doubled
            raise PlanError(f"network: {error}") from error


def list_presets() -> tuple[str, ...]:
    """Names of all presets."""
    names = (file.name for file in _FOLDER.iterdir())
    return tuple(sorted(name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING)))


def read_preset(name: str) -> Preset:
    """Read and check a preset.

    Raises:
        PlanError: there is none of that name; the message lists those there are.
    """
    if name not in list_presets():
        raise PlanError(
            f"There is no preset '{name}'. Expected one of {listed(list_presets())}. Without "
            "--preset the plan follows from the dataset."
        )
    return validate_preset(json.loads((_FOLDER / f"{name}{_ENDING}").read_text()), where=name)


def validate_preset(content: Any, *, where: str) -> Preset:
    """Check the content of a preset's file.

    Raises:
        PlanError: an unknown or missing key, a wrong value, or a network that cannot be built.
    """
    try:
        return Preset.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise PlanError(f"Preset {where}: {place or 'content'}: {first['msg']}.") from error


def preset_plan(name: str, description: DatasetDescription) -> GivenPlan:
    """What a preset fixes for a dataset.

    Args:
        name: One of ``list_presets()``.
        description: The dataset's; its channels and labels must be the preset's.

    Returns:
        The plan, in our (Z, Y, X) order; its network has as many outputs as the dataset needs.

    Raises:
        PlanError: there is no such preset, or the dataset has other channels or labels.
    """
    preset = read_preset(name)
    _require_channels(name, preset, description)
    target = _matching_target(name, preset, description)
    notes = [f"Our choice for {place}: {note}." for place, note in preset.not_stated.items()]
    if not target.published:
        published = " or ".join(str(t) for t in preset.targets if t.published)
        notes.insert(
            0, f"The dataset has {target}; the published network segmented {published or 'others'}."
        )
    return GivenPlan(
        origin=f"Preset {name}",
        network=preset.network_for(target),
        spacing=preset.spacing_zyx,
        batch_size=preset.batch_size,
        overlap=preset.overlap,
        recipe=preset.training,
        split=preset.split,
        notes=tuple(notes),
    )


def _require_channels(name: str, preset: Preset, description: DatasetDescription) -> None:
    found = list(description.channels)
    place = 0
    fits = len(found) == len(preset.channels)
    for size in preset.in_channels:
        group = preset.channels[place : place + size]
        own = found[place : place + size]
        fits = fits and all(any(channel.matches(c) for c in own) for channel in group)
        place += size
    if fits:
        return
    expected = listed(
        channel.name + (f" (or {' / '.join(channel.aliases)})" if channel.aliases else "")
        for channel in preset.channels
    )
    order = ", in this order" if len(preset.in_channels) > 1 else ""
    raise PlanError(
        f"Preset {name} ({preset.title}): the dataset's channels are {listed(found)}. Expected "
        f"{expected}{order}. Name or order them so when the dataset is converted (dataset.json "
        "and file names alike), or plan by the dataset alone: veloxseg plan without --preset."
    )


def _matching_target(name: str, preset: Preset, description: DatasetDescription) -> PresetTarget:
    outputs = count_outputs(description)
    for target in preset.targets:
        if (target.regions, target.num_outputs) == (description.has_regions, outputs):
            return target
    names = [label for label in description.labels if label not in ("background", "ignore")]
    kind = "regions" if description.has_regions else "labels"
    raise PlanError(
        f"Preset {name} ({preset.title}): the dataset has {len(names)} {kind} ({listed(names)}). "
        f"Expected {' or '.join(str(target) for target in preset.targets)}. Join or part labels "
        "when the dataset is converted (nnU-Net's regions join them in dataset.json alone), or "
        "plan by the dataset alone: veloxseg plan without --preset."
    )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
