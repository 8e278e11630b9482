"""The course of a training run as a picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from veloxseg.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAIN, _VALIDATION, _FAINT = "#3267b1", "#d1495b", "#8a94a0"


@dataclass(frozen=True, kw_only=True)
class TrainingHistory:
    """What a run recorded, one value an epoch; NaN where an epoch has none.

    Attributes:
        train_loss: Mean loss on training patches.
        validation_loss: Mean loss on validation patches.
        validation_dice: nnU-Net's pseudo Dice: mean foreground Dice over validation patches, not
            over whole cases.
        learning_rate: At the start of the epoch.
        epoch_seconds: Wall time.

    Raises:
        ValueError: the lists are of different lengths, or empty.
    """

    train_loss: Sequence[float]
    validation_loss: Sequence[float]
    validation_dice: Sequence[float]
    learning_rate: Sequence[float]
    epoch_seconds: Sequence[float]

    def __post_init__(self) -> None:
        """Check that all lists cover the same epochs."""
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1 or not self.num_epochs:
            raise ValueError(f"Expected one value an epoch in every list, got {lengths}.")

    @property
    def num_epochs(self) -> int:
        """How many epochs were trained."""
        return len(self.train_loss)


def draw_training_curve(history: TrainingHistory, output: Path) -> Path:
    """Draw losses, pseudo Dice and learning rate over epochs as a PNG, whole or not at all.

    Returns:
        ``output``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    epochs = range(1, history.num_epochs + 1)
    mark = "o" if history.num_epochs == 1 else ""
    losses.plot(epochs, history.train_loss, color=_TRAIN, marker=mark, label="training")
    losses.plot(epochs, history.validation_loss, color=_VALIDATION, marker=mark, label="validation")
    losses.set_ylabel("loss")
    losses.set_ylim(top=_highest_of_interest(history))
    losses.legend(frameon=False)
    losses.spines["right"].set_visible(False)
    scores.plot(epochs, history.validation_dice, color=_VALIDATION, marker=mark)
    scores.set_ylabel("pseudo Dice, validation patches", color=_VALIDATION)
    scores.set_ylim(0, 1)
    rates = scores.twinx()
    rates.plot(epochs, history.learning_rate, color=_FAINT, linestyle="--", marker=mark)
    rates.set_ylabel("learning rate", color=_FAINT)
    rates.set_ylim(bottom=0)
    rates.spines["top"].set_visible(False)
    for axes in (losses, scores):
        _plain(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(_duration(history), x=0.01, ha="left", fontsize=11)
    with atomic_path(output) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    return output


def _highest_of_interest(history: TrainingHistory) -> float | None:
    """The highest loss after the first tenth of the epochs: the start would flatten the rest."""
    start = history.num_epochs // 10
    losses = [*history.train_loss[start:], *history.validation_loss[start:]]
    finite = [loss for loss in losses if math.isfinite(loss)]
    if start == 0 or not finite:
        return None
    return max(finite) + 0.1 * (max(finite) - min(finite)) + 1e-6


def _plain(axes: "Axes") -> None:
    axes.set_xlabel("epoch")
    axes.grid(axis="y", color="#e4e8ec", linewidth=0.8)
    axes.spines["top"].set_visible(False)


def _duration(history: TrainingHistory) -> str:
    recorded = [seconds for seconds in history.epoch_seconds if seconds == seconds]
    minutes = sum(recorded) / 60
    epochs = f"{history.num_epochs} epoch" + ("s" if history.num_epochs > 1 else "")
    return f"{epochs} in {minutes:.1f} minutes"
