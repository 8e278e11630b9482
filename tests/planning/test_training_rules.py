"""How a planned network is trained."""

import pytest

from veloxseg.planning.recipe import TrainingRecipe
from veloxseg.planning.target import TARGETS, parse_target
from veloxseg.planning.training_rules import decide_training


def test_on_a_cpu_no_step_is_spent_on_teachers():
    recipe, decisions = decide_training(TARGETS["cpu"])
    assert recipe.teachers == "off"
    assert {d.what: d.value for d in decisions} == {"teachers": "off", "learning rate": "0.005"}


@pytest.mark.parametrize("target", ["8gb", "24gb", "11gb"])
def test_on_a_gpu_the_objective_is_the_published_one(target):
    recipe, _ = decide_training(parse_target(target))
    assert recipe == TrainingRecipe()
    assert recipe.teachers == "on"


@pytest.mark.parametrize("target", ["cpu", "8gb"])
@pytest.mark.parametrize("teachers", ["on", "detached", "off"])
def test_teachers_that_are_asked_for_are_given(target, teachers):
    recipe, (first, _) = decide_training(TARGETS[target], teachers=teachers)
    assert recipe.teachers == teachers
    assert (first.value, first.why) == (teachers, "given")
