"""The training stage as a function: one fold, on one CPU process or on several GPUs."""

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from veloxseg.atomic import read_json
from veloxseg.datasets.splits import SPLITS_FILE
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import VeloxSegError
from veloxseg.installation import num_cores
from veloxseg.planning.files import CONFIGURATION
from veloxseg.planning.peer_plans import VELOXSEG, network_plans, network_plans_name
from veloxseg.quiet import printing_to_log
from veloxseg.training.observer import ProgressObserver
from veloxseg.training.readiness import (
    check_fold,
    check_preprocessed,
    check_unspoilt,
    set_apart,
)
from veloxseg.training.record import add_to_record, read_record, write_record
from veloxseg.training.runs import FINAL, has_begun
from veloxseg.training.schedule import Budget
from veloxseg.training.seeding import process_seed, set_seed
from veloxseg.training.settings import TrainingSettings, as_recorded, refuse_gpus
from veloxseg.training.termination import interrupted_by_termination

TRAINER_NAME = "VeloxSegTrainer"


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
        VeloxSegError: the device is not there or not the budget's, or the fold is trained already.
        KeyboardInterrupt: stopped; the checkpoint is written, ``resume`` goes on.
    """
    from veloxseg.training.device import choose_device

    workspace.export()
    name = workspace.dataset_name(settings.dataset)
    plans = network_plans(workspace, name, settings.network)
    cases = check_preprocessed(workspace, name, plans)
    splits = workspace.preprocessed / name / SPLITS_FILE
    if left := check_fold(splits, settings.fold, cases, raw=workspace.raw / name):
        _say(console, f"{splits}: {len(left)} cases are in no part of fold {settings.fold}.")
    if settings.fold == "all" and (apart := set_apart(splits)):
        _say(console, f"{splits}: {len(apart)} cases set apart for testing are trained on too.")
    folder = fold_folder(workspace, name, settings.fold, network=settings.network)
    check_unspoilt(folder, plans, resume=settings.resume, overwrite=settings.overwrite)
    if settings.resume and not has_begun(folder):
        _say(console, f"{folder}: no checkpoint yet, so the training begins.")
        settings = replace(settings, resume=False)
    if settings.resume:
        settings = as_recorded(settings, read_record(folder))
    _check_gpus(settings, plans)
    device = choose_device(settings.device, num_gpus=settings.num_gpus)
    if settings.cpu_minutes is not None and device.type != "cpu":
        refuse_gpus()
    _set_workers(settings, device)
    if settings.num_gpus > 1:
        _train_on_gpus(settings, name)
    else:
        with interrupted_by_termination():
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


def _check_gpus(settings: TrainingSettings, plans: Mapping[str, Any]) -> None:
    batch_size = plans["configurations"][CONFIGURATION]["batch_size"]
    if settings.num_gpus > batch_size:
        raise VeloxSegError(
            f"--num-gpus {settings.num_gpus}: the plan's batch of {batch_size} cannot be split so "
            f"far. Use at most {batch_size}."
        )


def _set_workers(settings: TrainingSettings, device: Any) -> None:
    """Tell nnU-Net, which reads this when it starts its loaders."""
    workers = 0 if settings.cpu_minutes is not None else settings.num_workers
    if workers is None:
        busy = 2 if device.type == "cpu" else settings.num_gpus
        workers = max(0, min(12, (num_cores() - busy) // settings.num_gpus))
    os.environ["nnUNet_n_proc_DA"] = str(workers)


def _train_in_process(
    settings: TrainingSettings, name: str, device: Any, console: Console | None, *, rank: int = 0
) -> None:
    set_seed(process_seed(settings.seed, rank=rank))
    with printing_to_log() if console else nullcontext():
        trainer = _make_trainer(settings, name, device)
        trainer.initial_lr = settings.learning_rate or trainer.initial_lr
        trainer.num_epochs = settings.epochs or trainer.num_epochs
        trainer.quiet = console is not None
        trainer.budget = _budget(settings)
        if console and not console.quiet:
            trainer.observer = ProgressObserver(console, title=f"fold {settings.fold}")
        folder = Path(trainer.output_folder)
        finished = (folder / FINAL).is_file() and settings.resume
        if settings.resume:
            trainer.load_checkpoint(str(_last_checkpoint(folder)))
            set_seed(process_seed(settings.seed, rank=rank, epoch=trainer.current_epoch))
        if not finished:
            _run(trainer, settings, folder)
        if console:
            _say(console, f"Trained{' before' if finished else ''}: {folder / FINAL}")
        started = time.monotonic()
        with console.status("Validating by whole cases ...") if console else nullcontext():
            trainer.perform_actual_validation()
        if console:
            _say(console, f"Validated in {time.monotonic() - started:.0f} s")


def _run(trainer: Any, settings: TrainingSettings, folder: Path) -> None:
    """Train, and record by what and, where it ends or is stopped, with what use of the machine."""
    if trainer.local_rank == 0:
        if not settings.resume:
            _forget(folder)
        used = trainer.usage.to_json()
        write_record(folder, plans=trainer.plans_manager.plans, **asdict(settings), **used)
    try:
        trainer.run_training()
    except KeyboardInterrupt:
        _record_usage(trainer, folder)
        raise
    _record_usage(trainer, folder)


def _record_usage(trainer: Any, folder: Path) -> None:
    """Of what the last checkpoint has, which a finished or interrupted training has just left."""
    if trainer.local_rank == 0 and trainer.was_initialized:
        add_to_record(folder, trainer.usage.to_json())


def _budget(settings: TrainingSettings) -> Budget | None:
    if settings.cpu_minutes is not None:
        return Budget(seconds=60 * settings.cpu_minutes, clock=time.process_time)
    return None if settings.minutes is None else Budget(seconds=60 * settings.minutes)


def _say(console: Console, line: str) -> None:
    """Print a line as it is: a path may hold brackets, or be longer than the console is wide."""
    console.print(line, markup=False, soft_wrap=True)


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
        _train_in_process(settings, name, torch.device("cuda", rank), console, rank=rank)
    finally:
        cleanup_ddp()
