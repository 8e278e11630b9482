"""How a planned network is trained: the part of a plan that nnU-Net's plans have no keys for.

A configuration of a VeloxSeg plan carries it as ``training``; nnU-Net's own code passes it by.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veloxseg.errors import PlanError

RECIPE_KEY = "training"

Teachers = Literal["on", "detached", "off"]
Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "poly"]


class TrainingRecipe(BaseModel):
    """Optimiser, schedule, objective and patches of a training.

    Attributes:
        optimizer: ``adamw``, or nnU-Net's ``sgd`` with Nesterov's momentum of 0.99.
        schedule: ``cosine``: the published one; ``poly``: nnU-Net's, (1 - done)^0.9.
        learning_rate: Peak of the schedule.
        final_ratio: The last learning rate over the peak, of the cosine.
        warmup: Share of the training in which the rate rises from zero, linearly, before the
            cosine.
        weight_decay: Of the optimizer.
        epochs: Length of a training without a budget.
        steps_per_epoch: Training steps of an epoch.
        reconstruction_weight: Weight of L_rec.
        sdkt_weight: Weight of L_sdkt.
        head_weights: Weight of each segmentation head, from the full patch to the coarsest grid;
            they are normalised to a sum of 1. None halves from head to head.
        teachers: ``on``: the knowledge transfer moves teachers and student, as published;
            ``detached``: the student alone; ``off``: no reconstruction decoder runs.
        foreground_share: Share of a batch's patches that are put around foreground (nnU-Net: 0.33).
        augmentation: ``nnunet``: nnU-Net's; ``rotation``: the published one, a rotation by up to
            15 degrees about the axial axis in half of the patches, and nothing else.
        channel_dropout: Probability that an optional channel which a case has is left out of a
            training sample; one channel always stays.

    Source: VeloxSeg (ICLR 2026) for the published values, which presets hold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Optimizer = "adamw"
    schedule: Schedule = "cosine"
    learning_rate: float = Field(default=2.5e-3, gt=0)
    final_ratio: float = Field(default=6e-6 / 2.5e-4, ge=0, le=1)
    warmup: float = Field(default=10 / 300, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    epochs: int = Field(default=300, ge=1)
    steps_per_epoch: int = Field(default=250, ge=1)
    reconstruction_weight: float = Field(default=0.5, ge=0)
    sdkt_weight: float = Field(default=2.0, ge=0)
    head_weights: tuple[float, ...] | None = None
    teachers: Teachers = "on"
    foreground_share: float = Field(default=0.33, ge=0, le=1)
    augmentation: Literal["nnunet", "rotation"] = "nnunet"
    channel_dropout: float = Field(default=0.3, ge=0, lt=1)


def recipe_of(configuration: Mapping[str, Any]) -> TrainingRecipe:
    """The recipe of a plan's configuration; the default one where it has none.

    Raises:
        PlanError: it has unknown keys or values that cannot be.
    """
    try:
        return TrainingRecipe.model_validate(configuration.get(RECIPE_KEY, {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise PlanError(
            f"The plan's {RECIPE_KEY}.{place} is {first.get('input')!r}: {first['msg']}. "
            "Plan the dataset again: veloxseg plan."
        ) from error
