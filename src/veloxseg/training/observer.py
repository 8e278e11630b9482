"""Who looks on while a network trains."""

from collections import deque
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Observer(Protocol):
    """Is told how training goes; used as a context for as long as it lasts."""

    def stepped(self, *, fraction: float, loss: float) -> None:
        """A training step is done; ``fraction`` (0 to 1) of the training is behind."""

    def epoch_ended(self, *, epoch: int, dice: float) -> None:
        """Epoch number ``epoch`` ended with this mean foreground Dice on validation patches."""

    def __enter__(self) -> "Observer": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class SilentObserver:
    """Looks on and says nothing."""

    def stepped(self, *, fraction: float, loss: float) -> None:
        """Ignore it."""

    def epoch_ended(self, *, epoch: int, dice: float) -> None:
        """Ignore it."""

    def __enter__(self) -> "SilentObserver":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class ProgressObserver:
    """A bar with the time left, the running loss and the last validation Dice."""

    def __init__(self, console: Console, *, title: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("loss {task.fields[loss]} · Dice {task.fields[dice]}"),
            console=console,
        )
        self._task = self._progress.add_task(title, total=1.0, loss="–", dice="–")
        self._losses: deque[float] = deque(maxlen=50)

    def stepped(self, *, fraction: float, loss: float) -> None:
        """Move the bar; the loss shown is the mean of the last fifty steps."""
        self._losses.append(loss)
        self._progress.update(self._task, completed=fraction, loss=self._mean_loss())

    def epoch_ended(self, *, epoch: int, dice: float) -> None:
        """Show the Dice; where no bar can be drawn, print a line every ten epochs."""
        self._progress.update(self._task, dice=f"{dice:.3f}")
        if not self._progress.console.is_terminal and epoch % 10 == 0:
            done = self._progress.tasks[0].percentage
            self._progress.console.print(
                f"epoch {epoch}: {done:.0f} % done, loss {self._mean_loss()}, Dice {dice:.3f}"
            )

    def _mean_loss(self) -> str:
        return f"{sum(self._losses) / max(len(self._losses), 1):.3f}"

    def __enter__(self) -> "ProgressObserver":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
