"""What a training has used."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from veloxseg.peak_memory import peak_memory_mb
from veloxseg.training.schedule import Stopwatch

Figures = dict[str, float | int | None]


def _cpu() -> Stopwatch:
    return Stopwatch(clock=time.process_time)


@dataclass(kw_only=True)
class Usage:
    """Steps, time and memory of the sessions that a training's weights come from.

    A checkpoint keeps them: what a killed session did after its last checkpoint counts no more
    than its steps do. On several GPUs they are the first process's.

    Attributes:
        steps: Training steps done.
        wall: Time on the wall, from the first step on, whole validation cases apart.
        cpu: Time of this process on the cores, of all its threads, without that of its workers.
        earlier_peak_mb: Peak of memory of earlier sessions; None where the system does not say.
    """

    steps: int = 0
    wall: Stopwatch = field(default_factory=Stopwatch)
    cpu: Stopwatch = field(default_factory=_cpu)
    earlier_peak_mb: float | None = None

    def start(self) -> None:
        """Start the clocks of this session."""
        self.wall.start()
        self.cpu.start()

    def go_on_from(self, figures: Mapping[str, float | int | None]) -> None:
        """Count on from what ``to_json`` gave in an earlier session."""
        self.steps = int(figures["steps"] or 0)
        self.wall.spent = figures["wall_seconds"] or 0.0
        self.cpu.spent = figures["cpu_seconds"] or 0.0
        self.earlier_peak_mb = figures["peak_memory_mb"]

    def to_json(self) -> Figures:
        """Everything so far: ``steps``, ``wall_seconds``, ``cpu_seconds``, ``peak_memory_mb``."""
        peaks = [peak for peak in (peak_memory_mb(), self.earlier_peak_mb) if peak is not None]
        return {
            "steps": self.steps,
            "wall_seconds": round(self.wall.elapsed, 3),
            "cpu_seconds": round(self.cpu.elapsed, 3),
            "peak_memory_mb": max(peaks, default=None),
        }
