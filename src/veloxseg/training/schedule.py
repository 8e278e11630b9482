"""How far a training is, and the learning rate there."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


class _Optimizer(Protocol):
    param_groups: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Linear warm-up, then a cosine down to a small final rate.

    The published schedule (10 of 300 epochs from zero to 2.5e-4, then down to 6e-6), scaled to any
    peak and any length.

    Attributes:
        optimizer: Whose learning rate is set.
        peak: The rate after the warm-up.
        warmup: Fraction of the training that warms up.
        final_ratio: The last rate over the peak.
    """

    optimizer: _Optimizer
    peak: float
    warmup: float = 10 / 300
    final_ratio: float = 6e-6 / 2.5e-4

    def rate(self, fraction: float) -> float:
        """Learning rate when ``fraction`` (0 to 1) of the training is done."""
        if fraction < self.warmup:
            return self.peak * max(fraction / self.warmup, 1e-3)
        done = min((fraction - self.warmup) / (1 - self.warmup), 1.0)
        low = self.peak * self.final_ratio
        return low + (self.peak - low) * (1 + math.cos(math.pi * done)) / 2

    def advance(self, fraction: float) -> None:
        """Set the optimizer's learning rate for ``fraction`` of the training done."""
        _set_rate(self.optimizer, self.rate(fraction))

    def step(self, epoch: int) -> None:
        """Do nothing: nnU-Net calls this every epoch, the trainer calls ``advance`` every step."""


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """nnU-Net's schedule: the peak times (1 - done)^0.9, step by step instead of by epoch.

    Attributes:
        optimizer: Whose learning rate is set.
        peak: The first rate.
    """

    optimizer: _Optimizer
    peak: float

    def rate(self, fraction: float) -> float:
        """Learning rate when ``fraction`` (0 to 1) of the training is done."""
        return self.peak * float((1 - min(fraction, 1.0)) ** 0.9)

    def advance(self, fraction: float) -> None:
        """Set the optimizer's learning rate for ``fraction`` of the training done."""
        _set_rate(self.optimizer, self.rate(fraction))

    def step(self, epoch: int) -> None:
        """Do nothing, as ``WarmupCosine``."""


def _set_rate(optimizer: _Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


@dataclass(kw_only=True)
class Stopwatch:
    """Time that goes on where an earlier session stopped.

    Attributes:
        spent: Seconds used by earlier sessions of the same run.
        clock: What tells the time; the wall's. ``time.process_time`` counts the time of this
            process alone, of all its threads together.
    """

    spent: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _started: float | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the clock of this session."""
        self._started = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds used so far, earlier sessions included."""
        running = 0.0 if self._started is None else self.clock() - self._started
        return self.spent + running


@dataclass(kw_only=True)
class Budget(Stopwatch):
    """A budget of time that survives interruptions.

    Attributes:
        seconds: The time that training may take in all.
    """

    seconds: float

    @property
    def fraction(self) -> float:
        """Fraction used, at most 1."""
        return min(self.elapsed / self.seconds, 1.0)

    @property
    def epoch_seconds(self) -> float:
        """Length of an epoch: forty in a run, none shorter than 5 s or longer than 5 min."""
        return min(max(self.seconds / 40, 5.0), 300.0)
