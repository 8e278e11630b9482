"""A plan that is given instead of derived: what a preset or a published configuration fixes."""

from dataclasses import dataclass
from typing import Any

from veloxseg.datasets.description import DatasetDescription
from veloxseg.datasets.splits import FoldRule, RatioRule
from veloxseg.errors import PlanError
from veloxseg.network.config import Axes, NetworkConfig
from veloxseg.planning.recipe import TrainingRecipe

Spacing = tuple[float, float, float]

ZYX: Axes = (0, 1, 2)
"""Our own order: the network reads arrays as they are."""

XYZ: Axes = (2, 1, 0)
"""The order of the published code: the network reads (Z, Y, X) arrays turned to (X, Y, Z)."""


@dataclass(frozen=True, kw_only=True)
class GivenPlan:
    """All that a plan needs beside a dataset's fingerprint.

    Attributes:
        origin: What gave it, for messages.
        network: Sizes; its axes are those of the array after ``transpose_forward``.
        spacing: Target spacing in mm, axes as the network's: what nnU-Net's plans call ``spacing``.
        transpose_forward: Axis i of the network's input is axis ``transpose_forward[i]`` of the
            (Z, Y, X) array.
        batch_size: Patches in a training step.
        overlap: Share of a patch that its neighbours cover too, in prediction.
        recipe: How the network is trained.
        split: How the cases are split.
        notes: What the plan's user should know, one sentence each.
    """

    origin: str
    network: NetworkConfig
    spacing: Spacing
    transpose_forward: Axes = ZYX
    batch_size: int
    overlap: float
    recipe: TrainingRecipe
    split: FoldRule | RatioRule
    notes: tuple[str, ...] = ()

    @property
    def spacing_zyx(self) -> Spacing:
        """Target spacing in mm, (Z, Y, X)."""
        z, y, x = (self.spacing[self.transpose_forward.index(axis)] for axis in range(3))
        return (z, y, x)


def count_outputs(description: DatasetDescription) -> int:
    """Outputs that a dataset's network has: one a region, or one a label with the background."""
    if description.has_regions:
        return len([name for name in description.labels if name not in ("background", "ignore")])
    return len(set(description.label_values) - {description.ignore_label})


def require_fit(given: GivenPlan, description: DatasetDescription) -> None:
    """Check that a given network has the inputs and outputs of a dataset.

    Raises:
        PlanError: it has not; the message names both.
    """
    channels, outputs = sum(given.network.in_channels), count_outputs(description)
    if channels != description.num_channels:
        raise PlanError(
            f"{given.origin}: its network reads {channels} channels (modalities of "
            f"{listed(given.network.in_channels)}), the dataset has {description.num_channels} "
            f"({listed(description.channels)}). Expected as many. Take the configuration of such "
            "a dataset, or plan by the dataset alone: veloxseg plan."
        )
    if given.network.num_classes != outputs:
        kind = "regions" if description.has_regions else "labels, background included"
        raise PlanError(
            f"{given.origin}: its network has {given.network.num_classes} outputs, the dataset "
            f"{outputs} {kind} ({listed(description.labels)}). Expected as many. Set the number "
            "of classes in the configuration, or join labels when the dataset is converted."
        )


def listed(values: Any) -> str:
    """Values as a list in a sentence."""
    return ", ".join(str(value) for value in values)
