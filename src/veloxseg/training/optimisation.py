"""Optimizer and schedule of a recipe."""

from collections.abc import Iterable

import torch
from torch import nn

from veloxseg.planning.recipe import TrainingRecipe
from veloxseg.training.schedule import Polynomial, WarmupCosine

SGD_MOMENTUM = 0.99
"""Of Nesterov's momentum, as nnU-Net has it."""


def make_optimizer(
    parameters: Iterable[nn.Parameter], recipe: TrainingRecipe, *, learning_rate: float
) -> torch.optim.Optimizer:
    """The recipe's optimizer.

    Args:
        parameters: What it moves.
        recipe: Says which.
        learning_rate: Peak of the schedule.
    """
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=learning_rate,
            momentum=SGD_MOMENTUM,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        )
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=recipe.weight_decay)


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: TrainingRecipe, *, learning_rate: float
) -> WarmupCosine | Polynomial:
    """The recipe's schedule of an optimizer's learning rate."""
    if recipe.schedule == "poly":
        return Polynomial(optimizer=optimizer, peak=learning_rate)
    return WarmupCosine(
        optimizer=optimizer,
        peak=learning_rate,
        warmup=recipe.warmup,
        final_ratio=recipe.final_ratio,
    )
