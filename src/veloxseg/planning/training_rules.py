"""How a planned network is trained, by the machine that trains it."""

from veloxseg.planning.network_plan import Decision
from veloxseg.planning.recipe import Teachers, TrainingRecipe
from veloxseg.planning.target import Target

CPU_LEARNING_RATE = 5e-3
"""Peak on a CPU, where a training has thousands of steps, not tens of thousands."""


def decide_training(
    target: Target, *, teachers: Teachers | None = None
) -> tuple[TrainingRecipe, tuple[Decision, ...]]:
    """The recipe of a planned training, and why it is so.

    Args:
        target: What trains it.
        teachers: What the reconstruction decoders do; None: by the rule.
    """
    if target.counts_steps:
        recipe = TrainingRecipe(learning_rate=CPU_LEARNING_RATE, teachers="off")
        why = (
            "on a CPU their part of a step buys more as further steps of the network: measured at "
            "budgets of ten minutes, not at longer ones (docs/planning.md)"
        )
        rate_why = (
            "at budgets of ten minutes better than 2.5e-3; 1e-2 is better on one dataset, worse on "
            "another (docs/planning.md)"
        )
    else:
        recipe = TrainingRecipe()
        why = "as published: reconstruction decoders teach texture, at no cost in inference"
        rate_why = "the published rate times ten, for nnU-Net's augmentation; not measured on a GPU"
    if teachers is not None:
        recipe, why = recipe.model_copy(update={"teachers": teachers}), "given"
    decisions = (
        Decision(what="teachers", value=recipe.teachers, why=why),
        Decision(what="learning rate", value=f"{recipe.learning_rate:g}", why=rate_why),
    )
    return recipe, decisions
