"""A published training configuration as our recipe, key by key."""

from typing import Any

from pydantic import ValidationError

from veloxseg.errors import PlanError
from veloxseg.planning.published.files import PublishedTraining
from veloxseg.planning.published.key_report import KeyReport
from veloxseg.planning.published.named_arguments import Argument, NamedArguments, named_arguments
from veloxseg.planning.recipe import TrainingRecipe

CROPS_PER_CASE = 2
"""Patches that the published training crops from a case: one around foreground, one not."""

WARMUP_EPOCHS = 10
"""Published."""

FINAL_LEARNING_RATE = 6e-6
"""Published."""

_ADAMW = {  # PyTorch's defaults, which the trainer keeps
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "amsgrad": False,
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
}
_SCHEDULER = {  # what says nothing that the schedule does not do
    "last_epoch": -1,
    "verbose": False,
    "interval": "epoch",
    "by_epoch": True,
    "end_factor": 1,
    "multiplier": 1,
}
_RATE = ("lr", "learning_rate", "base_lr", "max_lr", "init_lr")
_DECAY = ("weight_decay", "wd")
_WARMUP_LENGTH = (
    "total_iters",
    "total_epoch",
    "total_epochs",
    "warmup_epochs",
    "num_warmup_epochs",
    "num_epochs",
    "epochs",
    "warmup_t",
    "warmup_iters",
)
_WARMUP_FACTOR = ("start_factor", "warmup_factor", "warmup_ratio")
_WARMUP_RATE = ("warmup_lr", "warmup_lr_init", "start_lr", "init_lr", "warmup_start_lr")
_COSINE_LENGTH = ("T_max", "t_max", "t_initial", "total_epochs", "max_epochs", "epochs")
_FINAL_RATE = ("eta_min", "min_lr", "lr_min", "final_lr", "end_lr")
_SMALL_START = 0.01
_CURVED = ("cosine", "exp", "constant", "poly", "lambda", "step")


def published_recipe(
    training: PublishedTraining,
    report: KeyReport,
    *,
    place: str,
    num_heads: int,
    deep_supervision: bool,
) -> TrainingRecipe:
    """Translate a published training.

    Args:
        training: The configuration.
        report: Is told what became of every key that the recipe is made from.
        place: Where the configuration is, to begin the keys' places with.
        num_heads: Segmentation heads of the model.
        deep_supervision: Whether the model has more than the first of them.

    Raises:
        PlanError: a value is of a wrong type or cannot be.
    """
    optimizer = _optimizer(training, report, place)
    peak = optimizer["learning_rate"]
    warmup_epochs = _warmup(training, report, place=place, peak=peak)
    final_rate = _final_rate(training, report, place=place, peak=peak, warmup=warmup_epochs)
    weights: tuple[float, ...] | None = (1.0, *(0.0,) * (num_heads - 1))
    if deep_supervision:
        weights = _head_weights(training, report, place=place, num_heads=num_heads)
    elif "deep_loss_weight" in training.model_fields_set:
        report.refuse(f"{place}.deep_Loss_weight", "the model has deep_supervision false")
    for name, key in (
        ("reconstruction_weight", "RC_Loss_weight"),
        ("feature_weight", "Feature_Loss_weight"),
    ):
        if name in training.model_fields_set:
            report.honour(f"{place}.{key}", f"{getattr(training, name):g}")
        else:
            report.assume(f"No {key}: {getattr(training, name):g}, as published.")
    report.honour(f"{place}.epochs", f"{training.epochs}")
    report.assume("An epoch has 250 steps, as in nnU-Net: the file does not say how many.")
    try:
        return TrainingRecipe(
            **optimizer,
            final_ratio=final_rate / peak,
            warmup=warmup_epochs / training.epochs,
            epochs=training.epochs,
            reconstruction_weight=training.reconstruction_weight,
            sdkt_weight=training.feature_weight,
            head_weights=weights,
            teachers="on",
            foreground_share=1 / CROPS_PER_CASE,
            augmentation="rotation",
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise PlanError(
            f"{place}: {first['loc'][0]} would be {first['input']!r} ({first['msg']}). Correct "
            "the file, or take the one that was published."
        ) from error


def _optimizer(training: PublishedTraining, report: KeyReport, place: str) -> dict[str, Any]:
    place = f"{place}.optimizer"
    named = named_arguments(training.optimizer, place=place)
    if named.name is None:
        report.assume("The optimizer has no name: AdamW, as published.")
    elif named.name.lower() == "adamw":
        report.honour(named.name_place, "AdamW")
    else:
        report.refuse(named.name_place, f"{named.name}: AdamW is taken, as published")
    rate, decay = named.first(*_RATE), named.first(*_DECAY)
    if rate is None:
        raise PlanError(
            f"{place}: no learning rate. Expected one of {', '.join(_RATE)}, such as "
            '{"name": "AdamW", "lr": 2.5e-4, "weight_decay": 0.01}.'
        )
    if not rate.number > 0:
        raise PlanError(f"{rate.place} is {rate.value}: expected a positive number.")
    report.honour(rate.place, f"{rate.number:g}, the peak of the schedule")
    if decay is None:
        report.assume("The optimizer has no weight_decay: 0.01, as published.")
    else:
        report.honour(decay.place, f"{decay.number:g}")
    for argument in named.arguments:
        _report_by_table(argument, _ADAMW, report, "the trainer's AdamW")
    return {
        "learning_rate": rate.number,
        "weight_decay": 0.01 if decay is None else decay.number,
    }


def _warmup(training: PublishedTraining, report: KeyReport, *, place: str, peak: float) -> float:
    """Length of the warm-up in epochs."""
    place = f"{place}.warmup_scheduler"
    published = min(WARMUP_EPOCHS, training.epochs * WARMUP_EPOCHS / 300)
    if "warmup_scheduler" not in training.model_fields_set:
        report.assume(f"No warmup_scheduler: {published:g} epochs, as published.")
        return published
    if training.warmup_scheduler is None:
        report.honour(place, "no warm-up")
        return 0.0
    named = named_arguments(training.warmup_scheduler, place=place)
    if named.name is not None:
        linear = not any(word in named.name.lower() for word in _CURVED)
        tell = report.honour if linear else report.refuse
        tell(named.name_place, f"{named.name}: the rate rises linearly")
    length = named.first(*_WARMUP_LENGTH)
    epochs = published
    if length is None:
        report.refuse(place, f"no length in epochs found; {published:g} epochs are taken")
    elif 0 <= length.number < training.epochs:
        epochs = length.number
        report.honour(length.place, f"{epochs:g} epochs")
    else:
        report.refuse(
            length.place,
            f"{length.value} is not below the {training.epochs} epochs of the training (steps "
            f"instead of epochs?); {published:g} epochs are taken",
        )
    for argument in named.arguments:
        if argument.name in _WARMUP_FACTOR:
            _report_start(argument, argument.number, report)
        elif argument.name in _WARMUP_RATE:
            _report_start(argument, argument.number / peak, report)
        _report_by_table(argument, _SCHEDULER, report, "the linear warm-up")
    return epochs


def _report_start(argument: Argument, share: float, report: KeyReport) -> None:
    if 0 <= share <= _SMALL_START:
        report.equate(argument.place, "the warm-up starts at a thousandth of the peak")
    else:
        report.refuse(
            argument.place, f"{argument.value}: the warm-up starts at a thousandth of the peak"
        )


def _final_rate(
    training: PublishedTraining, report: KeyReport, *, place: str, peak: float, warmup: float
) -> float:
    """The last learning rate; the rate of a cosine from ``peak`` down to it is the schedule."""
    place = f"{place}.train_scheduler"
    published = min(FINAL_LEARNING_RATE, peak)
    if "train_scheduler" not in training.model_fields_set:
        report.assume(f"No train_scheduler: a cosine to {published:g}, as published.")
        return published
    if training.train_scheduler is None:
        report.honour(place, "a constant rate")
        return peak
    named = named_arguments(training.train_scheduler, place=place)
    if not _is_cosine(named, report, published):
        for argument in named.arguments:
            report.refuse(argument.place, f"{argument.value}: belongs to {named.name}")
        return published
    length, final = named.first(*_COSINE_LENGTH), named.first(*_FINAL_RATE)
    remaining = training.epochs - warmup
    if length is not None:
        tell = report.honour if abs(length.number - remaining) < 1e-6 else report.refuse
        tell(
            length.place,
            f"{length.number:g}: the cosine takes the {remaining:g} epochs that follow the warm-up",
        )
    if final is None:
        report.assume("The train_scheduler names no last rate: 0, PyTorch's default.")
    elif not 0 <= final.number <= peak:
        raise PlanError(
            f"{final.place} is {final.value}: expected a rate from 0 to the peak, {peak:g}."
        )
    else:
        report.honour(final.place, f"{final.number:g}, the last rate")
    for argument in named.arguments:
        _report_by_table(argument, _SCHEDULER, report, "the cosine schedule")
    return 0.0 if final is None else final.number


def _is_cosine(named: NamedArguments, report: KeyReport, published: float) -> bool:
    if named.name is None:
        report.assume("The train_scheduler has no name: a cosine, as published.")
        return True
    name = named.name.lower()
    if "cos" in name and "restart" not in name:
        report.honour(named.name_place, f"{named.name}: a cosine, renewed every step")
        return True
    report.refuse(
        named.name_place, f"{named.name}: a cosine to {published:g} is taken, as published"
    )
    return False


def _head_weights(
    training: PublishedTraining, report: KeyReport, *, place: str, num_heads: int
) -> tuple[float, ...] | None:
    """Weights of the heads; None where they halve."""
    place = f"{place}.deep_Loss_weight"
    value = training.deep_loss_weight
    halving = "the weights halve from head to head, as published"
    if value is None:
        if "deep_loss_weight" in training.model_fields_set:
            report.equate(place, f"null: {halving}")
        else:
            report.assume(f"No deep_Loss_weight: {halving}.")
        return None
    if value == 0:
        report.honour(place, "0: the finest head alone")
        return (1.0, *(0.0,) * (num_heads - 1))
    if isinstance(value, tuple) and len(value) == num_heads and sum(value) > 0:
        report.honour(place, "one weight a head, from fine to coarse, scaled to a sum of 1")
        return value
    found = f"{value:g}" if isinstance(value, float) else str(list(value))
    report.refuse(place, f"{found} is not one weight for each of the {num_heads} heads; {halving}")
    return None


def _report_by_table(
    argument: Argument, table: dict[str, Any], report: KeyReport, what: str
) -> None:
    """An argument that nothing has taken so far: the usual value, or one that is not honoured."""
    if argument.name not in table:
        report.refuse(argument.place, f"{argument.value}: {what} has no such setting")
    elif argument.value == table[argument.name]:
        report.equate(argument.place, f"{argument.value}: what {what} does")
    else:
        report.refuse(
            argument.place, f"{argument.value}: {what} has {table[argument.name]} instead"
        )
