"""Optimizers and schedules, against PyTorch's and nnU-Net's own."""

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from veloxseg.planning.recipe import TrainingRecipe
from veloxseg.training.optimisation import make_optimizer, make_schedule
from veloxseg.training.schedule import Polynomial, WarmupCosine


def weights():
    return [torch.nn.Parameter(torch.ones(3))]


def test_nnunets_recipe_gets_nnunets_optimizer():
    recipe = TrainingRecipe(optimizer="sgd", schedule="poly", weight_decay=3e-5)
    optimizer = make_optimizer(weights(), recipe, learning_rate=0.01)
    assert isinstance(optimizer, torch.optim.SGD)
    defaults = optimizer.defaults
    assert (defaults["lr"], defaults["momentum"], defaults["nesterov"]) == (0.01, 0.99, True)
    assert defaults["weight_decay"] == 3e-5
    assert isinstance(make_schedule(optimizer, recipe, learning_rate=0.01), Polynomial)


def test_without_a_word_it_is_adamw_and_the_published_schedule():
    recipe = TrainingRecipe()
    optimizer = make_optimizer(weights(), recipe, learning_rate=1e-3)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["weight_decay"] == recipe.weight_decay
    assert isinstance(make_schedule(optimizer, recipe, learning_rate=1e-3), WarmupCosine)


@pytest.mark.parametrize("epoch", [0, 1, 250, 999])
def test_the_polynomial_is_nnunets_at_the_start_of_each_epoch(epoch):
    ours, theirs = (torch.optim.SGD(weights(), lr=0.01) for _ in range(2))
    Polynomial(optimizer=ours, peak=0.01).advance(epoch / 1000)
    PolyLRScheduler(theirs, 0.01, 1000).step(epoch)
    assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])


def test_the_polynomial_ends_at_zero_and_stays_there():
    schedule = Polynomial(optimizer=torch.optim.SGD(weights(), lr=1.0), peak=1.0)
    assert schedule.rate(1.0) == 0
    assert schedule.rate(1.1) == 0
