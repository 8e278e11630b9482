"""The training stage as a function: one fold, on one CPU process or on several GPUs."""

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from veloxseg.atomic import read_json
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import VeloxSegError
from veloxseg.installation import num_cores
from veloxseg.planning.files import CONFIGURATION
from veloxseg.planning.peer_plans import VELOXSEG, network_plans, network_plans_name
from veloxseg.quiet import printing_to_log
from veloxseg.training.readiness import (
    check_fold,
    check_preprocessed,
    check_unspoilt,
    set_apart,
)
from veloxseg.training.record import read_record
from veloxseg.training.runs import FINAL

if TYPE_CHECKING:
    from veloxseg.training.device import Device

TRAINER_NAME = "VeloxSegTrainer"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train one fold.

    Attributes:
        dataset: Full name of a planned and preprocessed dataset.
        fold: Number of a fold, or "all" for training on every case.
        network: The plan's, or another one by name, trained by a plan derived from it.
        minutes: Wall-clock budget that the whole schedule fills; None trains ``epochs``.
        epochs: Epochs of the plan's steps, when there is no budget; None is the plan's number.
        learning_rate: Peak of the schedule; None is the plan's.
        resume: Go on from the fold's last checkpoint. What is None is as the run recorded it.
        overwrite: Train anew where the fold has been trained.
        device: Where to train; "auto" takes a GPU if there is one.
        num_gpus: Processes of distributed training, one a GPU.
        num_workers: Processes that augment patches; 0 does it in the training process. None leaves
            two cores to training on a CPU, one on a GPU.
        seed: Of weights, patches, augmentation and dropout. Without workers on a CPU the
            same seed gives the same losses.
    """

    dataset: str
    fold: int | str
    network: str = VELOXSEG
    minutes: float | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    resume: bool = False
    overwrite: bool = False
    device: "Device" = "auto"
    num_gpus: int = 1
    num_workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minutes is not None and self.minutes <= 0:
            raise VeloxSegError(f"--minutes is {self.minutes}: expected a positive number.")
        counts = (self.epochs, self.num_gpus)
        if any(c is not None and c < 1 for c in counts) or (self.num_workers or 0) < 0:
            raise VeloxSegError(
                f"Expected at least one epoch and GPU and no negative number of workers; got "
                f"{self.epochs} epochs, {self.num_gpus} GPUs, {self.num_workers} workers."
            )


def train(settings: TrainingSettings, *, workspace: Workspace, console: Console) -> Path:
    """Train one fold, then validate it by whole cases.

    Args:
        settings: What to train and how; the dataset by number or name.
        workspace: nnU-Net's folders, with the plan and the preprocessed cases.
        console: Where progress is shown.

    Returns:
        The fold's results folder, with ``checkpoint_final.pth`` and ``validation/summary.json``.

    Raises:
        DatasetError: the dataset is missing or not preprocessed.
        PlanError: no plan, no such network, or the results folder belongs to another plan.
        VeloxSegError: the device is not there, or the fold is trained already.
        KeyboardInterrupt: stopped; the checkpoint is written, ``resume`` goes on.
    """
    from veloxseg.training.device import choose_device

    workspace.export()
    name = workspace.dataset_name(settings.dataset)
    plans = network_plans(workspace, name, settings.network)
    cases = check_preprocessed(workspace, name, plans)
    splits = workspace.preprocessed / name / "splits_final.json"
    if left := check_fold(splits, settings.fold, cases):
        console.print(f"{splits}: {len(left)} cases are in no part of fold {settings.fold}.")
    if settings.fold == "all" and (apart := set_apart(splits)):
        console.print(f"{splits}: {len(apart)} cases set apart for testing are trained on too.")
    folder = fold_folder(workspace, name, settings.fold, network=settings.network)
    check_unspoilt(folder, plans, resume=settings.resume, overwrite=settings.overwrite)
    if settings.resume:
        settings = _as_recorded(settings, read_record(folder))
    _check_gpus(settings, plans)
    device = choose_device(settings.device, num_gpus=settings.num_gpus)
    _set_workers(settings, device)
    if settings.num_gpus > 1:
        _train_on_gpus(settings, name)
    else:
        with _interrupted_by_termination():
            _train_in_process(settings, name, device, console)
    return folder


def run_folder(workspace: Workspace, name: str, *, network: str = VELOXSEG) -> Path:
    """The results folder of a dataset's run, above its folds."""
    plans_name = network_plans_name(network)
    return workspace.results / name / f"{TRAINER_NAME}__{plans_name}__{CONFIGURATION}"


def fold_folder(
    workspace: Workspace, name: str, fold: int | str, *, network: str = VELOXSEG
) -> Path:
    """The results folder of one fold."""
    return run_folder(workspace, name, network=network) / f"fold_{fold}"


def _as_recorded(settings: TrainingSettings, record: Mapping[str, Any]) -> TrainingSettings:
    """What a resumed run is not told, it takes from its record."""
    if settings.learning_rate is None:
        settings = replace(settings, learning_rate=record.get("learning_rate"))
    settings = replace(settings, seed=record.get("seed", settings.seed))
    if settings.minutes or settings.epochs:
        return settings
    return replace(settings, minutes=record.get("minutes"), epochs=record.get("epochs"))


def _check_gpus(settings: TrainingSettings, plans: Mapping[str, Any]) -> None:
    batch_size = plans["configurations"][CONFIGURATION]["batch_size"]
    if settings.num_gpus > batch_size:
        raise VeloxSegError(
            f"--num-gpus {settings.num_gpus}: the plan's batch of {batch_size} cannot be split so "
            f"far. Use at most {batch_size}."
        )


def _set_workers(settings: TrainingSettings, device: Any) -> None:
    """Tell nnU-Net, which reads this when it starts its loaders."""
    workers = settings.num_workers
    if workers is None:
        busy = 2 if device.type == "cpu" else settings.num_gpus
        workers = max(0, min(12, (num_cores() - busy) // settings.num_gpus))
    os.environ["nnUNet_n_proc_DA"] = str(workers)


def _train_in_process(
    settings: TrainingSettings, name: str, device: Any, console: Console | None
) -> None:
    from veloxseg.training.observer import ProgressObserver
    from veloxseg.training.record import write_record
    from veloxseg.training.schedule import Budget

    _seed(settings.seed)
    with printing_to_log() if console else nullcontext():
        trainer = _make_trainer(settings, name, device)
        trainer.initial_lr = settings.learning_rate or trainer.initial_lr
        trainer.num_epochs = settings.epochs or trainer.num_epochs
        trainer.quiet = console is not None
        if settings.minutes is not None:
            trainer.budget = Budget(seconds=60 * settings.minutes)
        if console:
            trainer.observer = ProgressObserver(console, title=f"fold {settings.fold}")
        folder = Path(trainer.output_folder)
        finished = (folder / FINAL).is_file() and settings.resume
        if settings.resume:
            trainer.load_checkpoint(str(_last_checkpoint(folder)))
            _seed(settings.seed + trainer.current_epoch)  # other patches than the first session's
        if not finished:
            if trainer.local_rank == 0:
                if not settings.resume:
                    _forget(folder)
                write_record(folder, plans=trainer.plans_manager.plans, **asdict(settings))
            trainer.run_training()
        if console:
            console.print(f"Trained{' before' if finished else ''}: {folder / FINAL}")
        started = time.monotonic()
        with console.status("Validating by whole cases ...") if console else nullcontext():
            trainer.perform_actual_validation()
        if console:
            console.print(f"Validated in {time.monotonic() - started:.0f} s")


def _make_trainer(settings: TrainingSettings, name: str, device: Any) -> Any:
    from nnunetv2.paths import nnUNet_preprocessed

    from veloxseg.training.trainer import VeloxSegTrainer

    folder = Path(str(nnUNet_preprocessed)) / name
    plans = read_json(folder / f"{network_plans_name(settings.network)}.json")
    plans["continue_training"] = settings.resume
    dataset_json = read_json(folder / "dataset.json")
    return VeloxSegTrainer(plans, CONFIGURATION, settings.fold, dataset_json, device)


def _last_checkpoint(folder: Path) -> Path:
    names = (FINAL, "checkpoint_latest.pth", "checkpoint_best.pth")
    return next(folder / name for name in names if (folder / name).is_file())


def _forget(folder: Path) -> None:
    """Remove what an earlier training left, so that nothing of it passes for the new one's."""
    for left in folder.glob("checkpoint_*.pth"):
        left.unlink()
    shutil.rmtree(folder / "validation", ignore_errors=True)


def _train_on_gpus(settings: TrainingSettings, name: str) -> None:
    from nnunetv2.run.run_training import find_free_network_port
    from torch.multiprocessing.spawn import ProcessRaisedException, spawn

    os.environ["MASTER_ADDR"] = "localhost"
    os.environ.setdefault("MASTER_PORT", str(find_free_network_port()))
    try:
        spawn(_train_rank, args=(settings, name), nprocs=settings.num_gpus)
    except ProcessRaisedException as error:
        raise VeloxSegError(f"A training process failed: {error}") from error


def _train_rank(rank: int, settings: TrainingSettings, name: str) -> None:
    import torch
    from nnunetv2.run.run_training import cleanup_ddp, setup_ddp

    setup_ddp(rank, settings.num_gpus)
    torch.cuda.set_device(rank)
    try:
        console = Console(stderr=True) if rank == 0 else None
        _train_in_process(settings, name, torch.device("cuda", rank), console)
    finally:
        cleanup_ddp()


def _seed(seed: int) -> None:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def _interrupted_by_termination() -> Iterator[None]:
    """A polite kill (a cluster's time limit) leaves a checkpoint, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
