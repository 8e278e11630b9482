"""What a plan says of its training."""

import pytest

from veloxseg.errors import PlanError
from veloxseg.planning.recipe import TrainingRecipe, recipe_of


def test_a_plan_without_a_recipe_is_trained_by_the_default_one():
    assert recipe_of({"patch_size": [1, 2, 3]}) == TrainingRecipe()


def test_a_recipe_survives_json():
    recipe = TrainingRecipe(learning_rate=1e-4, teachers="off", head_weights=(1.0, 0.5))
    assert recipe_of({"training": recipe.model_dump(mode="json")}) == recipe


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 0),
        ("teachers", "maybe"),
        ("warmup", 1.0),
        ("channel_dropout", 1.0),
        ("momentum", 0.9),
    ],
)
def test_a_wrong_value_or_an_unknown_key_is_named(key, value):
    with pytest.raises(PlanError, match=f"training.{key} is {value!r}"):
        recipe_of({"training": {key: value}})
