"""How to train one fold, and what must not be asked for together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from veloxseg.errors import VeloxSegError
from veloxseg.planning.peer_plans import VELOXSEG

if TYPE_CHECKING:
    from veloxseg.training.device import Device


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train one fold.

    Attributes:
        dataset: Full name of a planned and preprocessed dataset.
        fold: Number of a fold, or "all" for training on every case.
        network: The plan's, or another one by name, trained by a plan derived from it.
        minutes: Wall-clock budget that the whole schedule fills; None trains ``epochs``.
        cpu_minutes: The same in CPU time of the training process, all its threads together, so
            that other work on the machine takes no steps: two threads spend it in half the time.
            On a CPU, without workers.
        epochs: Epochs of the plan's steps, when there is no budget; None is the plan's number.
        learning_rate: Peak of the schedule; None is the plan's.
        resume: Go on from the fold's last checkpoint, if there is one. What is None is then as the
            run recorded it.
        overwrite: Train anew where the fold has been trained.
        device: Where to train; "auto" takes a GPU if there is one.
        num_gpus: Processes of distributed training, one a GPU.
        num_workers: Processes that augment patches; 0 does it in the training process. None leaves
            two cores to training on a CPU, one on a GPU; with ``cpu_minutes`` it is 0.
        seed: Of weights, patches, augmentation and dropout. Without workers on a CPU the
            same seed gives the same losses. On several GPUs each draws patches of its own.
    """

    dataset: str
    fold: int | str
    network: str = VELOXSEG
    minutes: float | None = None
    cpu_minutes: float | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    resume: bool = False
    overwrite: bool = False
    device: "Device" = "auto"
    num_gpus: int = 1
    num_workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for option, minutes in (("--minutes", self.minutes), ("--cpu-minutes", self.cpu_minutes)):
            if minutes is not None and not 0 < minutes < math.inf:
                raise VeloxSegError(f"{option} is {minutes}: expected a positive number.")
        counts = (self.epochs, self.num_gpus)
        if any(c is not None and c < 1 for c in counts) or (self.num_workers or 0) < 0:
            raise VeloxSegError(
                f"Expected at least one epoch and GPU and no negative number of workers; got "
                f"{self.epochs} epochs, {self.num_gpus} GPUs, {self.num_workers} workers."
            )
        if sum(b is not None for b in (self.minutes, self.cpu_minutes, self.epochs)) > 1:
            raise VeloxSegError(
                "--cpu-minutes, --minutes and --epochs each say how long to train. Give one."
            )
        if self.cpu_minutes is not None:
            self._check_cpu_minutes()

    def _check_cpu_minutes(self) -> None:
        if self.num_workers:
            raise VeloxSegError(
                f"--num-workers {self.num_workers} with --cpu-minutes: the time of processes that "
                "augment would not be counted. Leave --num-workers out; the training process "
                "augments then."
            )
        if self.num_gpus > 1 or self.device in ("cuda", "mps"):
            refuse_gpus()


def as_recorded(settings: TrainingSettings, record: Mapping[str, Any]) -> TrainingSettings:
    """What a resumed run is not told, it takes from its record.

    Raises:
        VeloxSegError: it is given a budget by another clock than it was begun with, or a seed.
    """
    seed = record.get("seed", settings.seed)
    if settings.seed not in (0, seed):  # 0 is what was not given
        raise VeloxSegError(
            f"--seed {settings.seed} with --resume: the training was begun with seed {seed}, and "
            "goes on with it. Leave --seed out."
        )
    if settings.learning_rate is None:
        settings = replace(settings, learning_rate=record.get("learning_rate"))
    settings = replace(settings, seed=seed)
    minutes, cpu_minutes = record.get("minutes"), record.get("cpu_minutes")
    if settings.minutes and cpu_minutes:
        _refuse_other_clock("--minutes", begun_with="--cpu-minutes")
    if settings.cpu_minutes and minutes:
        _refuse_other_clock("--cpu-minutes", begun_with="--minutes")
    if settings.minutes or settings.cpu_minutes or settings.epochs:
        return settings
    epochs = None if minutes or cpu_minutes else record.get("epochs")
    return replace(settings, minutes=minutes, cpu_minutes=cpu_minutes, epochs=epochs)


def refuse_gpus() -> NoReturn:
    """Say why a budget of CPU time is none on a GPU.

    Raises:
        VeloxSegError: always.
    """
    raise VeloxSegError(
        "--cpu-minutes counts what one process computes on the CPU, and a GPU would train beside "
        "it. Use --device cpu, or --minutes for time on the wall."
    )


def _refuse_other_clock(option: str, *, begun_with: str) -> NoReturn:
    raise VeloxSegError(
        f"{option} with --resume: the run was begun with {begun_with}, and what it has spent was "
        f"counted by that clock. Leave {option} out: the run goes on with its own budget."
    )
