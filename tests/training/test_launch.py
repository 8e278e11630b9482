"""What a training is told, takes from its record, leaves in it and says; on five small cases."""

import io
import os
import sys

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from planned_dataset import NAME, planned_workspace
from veloxseg.cli import app
from veloxseg.errors import VeloxSegError
from veloxseg.training import launch
from veloxseg.training.launch import fold_folder, train
from veloxseg.training.record import read_record, write_record
from veloxseg.training.settings import TrainingSettings, as_recorded

# nnU-Net's simple storage maps its files read-only, which PyTorch mentions once
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")

QUIET = Console(quiet=True)


def settings(**changes):
    return TrainingSettings(dataset="4", fold=0, **changes)


def test_a_resumed_run_takes_what_it_is_not_told_from_its_record(tmp_path):
    begun = {"minutes": 30.0, "epochs": None, "learning_rate": 1e-3, "seed": 7}
    write_record(tmp_path, plans={}, **begun)
    resumed = as_recorded(settings(resume=True), read_record(tmp_path))
    assert (resumed.minutes, resumed.epochs, resumed.learning_rate) == (30.0, None, 1e-3)
    assert resumed.seed == 7


def test_a_resumed_run_takes_its_budget_of_cpu_time_from_its_record(tmp_path):
    write_record(tmp_path, plans={}, cpu_minutes=10.0, minutes=None, epochs=None)
    resumed = as_recorded(settings(resume=True), read_record(tmp_path))
    assert (resumed.cpu_minutes, resumed.minutes, resumed.epochs) == (10.0, None, None)


def test_what_a_resumed_run_is_told_counts():
    record = {"minutes": 30.0, "epochs": None, "learning_rate": 1e-3}
    longer = as_recorded(settings(resume=True, minutes=60), record)
    assert (longer.minutes, longer.learning_rate) == (60, 1e-3)
    by_epochs = as_recorded(settings(resume=True, epochs=5, learning_rate=2e-3), record)
    assert (by_epochs.minutes, by_epochs.epochs, by_epochs.learning_rate) == (None, 5, 2e-3)
    longer = as_recorded(settings(resume=True, cpu_minutes=20), {"cpu_minutes": 10.0})
    assert longer.cpu_minutes == 20


def test_a_run_is_not_resumed_by_another_clock_than_it_was_begun_with():
    with pytest.raises(
        VeloxSegError, match=r"^--minutes with --resume: .*begun with --cpu-minutes"
    ):
        as_recorded(settings(resume=True, minutes=5), {"cpu_minutes": 10.0})
    with pytest.raises(
        VeloxSegError, match=r"^--cpu-minutes with --resume: .*begun with --minutes"
    ):
        as_recorded(settings(resume=True, cpu_minutes=5), {"minutes": 10.0})


def test_another_seed_than_a_run_was_begun_with_is_refused():
    assert as_recorded(settings(resume=True, seed=7), {"seed": 7}).seed == 7
    with pytest.raises(VeloxSegError, match=r"--seed 5 with --resume: .*begun with seed 7"):
        as_recorded(settings(resume=True, seed=5), {"seed": 7})


def test_two_lengths_of_one_training_are_refused():
    with pytest.raises(VeloxSegError, match="Give one"):
        settings(minutes=5, epochs=5)


def test_a_run_without_a_record_is_resumed_with_the_defaults(tmp_path):
    resumed = as_recorded(settings(resume=True), read_record(tmp_path))
    assert (resumed.minutes, resumed.epochs, resumed.learning_rate) == (None, None, None)


def test_training_anew_leaves_nothing_that_passes_for_the_new_training(tmp_path):
    (tmp_path / "validation").mkdir()
    for name in ("checkpoint_latest.pth", "checkpoint_final.pth", "validation/summary.json"):
        (tmp_path / name).touch()
    (tmp_path / "training_log.txt").touch()
    launch._forget(tmp_path)
    left = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert left == ["training_log.txt"]


@pytest.mark.parametrize(
    ("cores", "device", "gpus", "workers"),
    [(2, "cpu", 1, "0"), (8, "cpu", 1, "6"), (2, "cuda", 1, "1"), (64, "cuda", 4, "12")],
)
def test_augmentation_gets_the_cores_that_training_leaves(
    monkeypatch, cores, device, gpus, workers
):
    monkeypatch.setattr(launch, "num_cores", lambda: cores)
    monkeypatch.setenv("nnUNet_n_proc_DA", "")
    launch._set_workers(settings(num_gpus=gpus), torch.device(device))
    assert os.environ["nnUNet_n_proc_DA"] == workers


def test_with_a_budget_of_cpu_time_the_training_process_augments(monkeypatch):
    monkeypatch.setattr(launch, "num_cores", lambda: 8)
    monkeypatch.setenv("nnUNet_n_proc_DA", "")
    launch._set_workers(settings(cpu_minutes=1), torch.device("cpu"))
    assert os.environ["nnUNet_n_proc_DA"] == "0"


@pytest.mark.parametrize(
    "wrong",
    [{"minutes": 0}, {"cpu_minutes": -1}, {"minutes": float("nan")}, {"minutes": float("inf")},
     {"epochs": 0}, {"num_workers": -1}],
)  # fmt: skip
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(VeloxSegError, match=r"[Ee]xpected"):
        settings(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"minutes": 5}, "Give one"),
        ({"epochs": 5}, "Give one"),
        ({"num_workers": 2}, "--num-workers 2 with --cpu-minutes: the time of processes"),
        ({"device": "cuda"}, "Use --device cpu, or --minutes"),
        ({"device": "mps"}, "Use --device cpu, or --minutes"),
        ({"num_gpus": 2}, "Use --device cpu, or --minutes"),
    ],
)
def test_a_budget_of_cpu_time_is_refused_where_it_could_not_count(wrong, said):
    with pytest.raises(VeloxSegError, match=said):
        settings(cpu_minutes=10, **wrong)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    return planned_workspace(tmp_path, monkeypatch)


def small(**changes):
    options = {"epochs": 2, "num_workers": 0, "device": "cpu", **changes}
    return TrainingSettings(dataset=NAME, fold=0, **options)


@pytest.fixture
def steps(monkeypatch):
    """Makes epochs of two steps; ``steps[n] = error`` raises in the n-th step from now."""
    make = launch._make_trainer
    errors = {}

    def make_short(*arguments):
        trainer = make(*arguments)
        trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 1
        trainer.perform_actual_validation = lambda: None
        train_step, count = trainer.train_step, iter(range(1, 1000))

        def step(batch):
            if error := errors.pop(next(count), None):
                raise error
            return train_step(batch)

        trainer.train_step = step
        return trainer

    monkeypatch.setattr(launch, "_make_trainer", make_short)
    return errors


def test_a_training_records_its_steps_time_and_memory(workspace, steps):
    folder = train(small(), workspace=workspace, console=QUIET)
    record = read_record(folder)
    assert record["steps"] == 4
    assert record["cpu_seconds"] > 0
    assert 0 < record["wall_seconds"] < 60
    assert record["peak_memory_mb"] is None or record["peak_memory_mb"] > 100  # PyTorch alone
    assert record["epochs"] == 2
    train(small(resume=True), workspace=workspace, console=QUIET)  # it is validated alone
    assert read_record(folder) == record


def test_a_training_that_has_no_checkpoint_begins_when_it_is_to_go_on(workspace, steps):
    said = io.StringIO()
    folder = train(small(resume=True), workspace=workspace, console=Console(file=said))
    assert "no checkpoint yet" in said.getvalue()
    assert read_record(folder)["steps"] == 4


def test_an_interrupted_training_counts_on_from_the_steps_that_its_checkpoint_has(workspace, steps):
    steps[4] = KeyboardInterrupt()  # in the second epoch, which then begins again
    with pytest.raises(KeyboardInterrupt):
        train(small(epochs=3), workspace=workspace, console=QUIET)
    folder = fold_folder(workspace, NAME, 0)
    stopped = read_record(folder)
    assert stopped["steps"] == 3
    train(small(epochs=None, resume=True), workspace=workspace, console=QUIET)
    record = read_record(folder)
    assert record["steps"] == 3 + 2 * 2
    assert record["wall_seconds"] > stopped["wall_seconds"]
    assert record["cpu_seconds"] > stopped["cpu_seconds"]


def test_steps_after_the_last_checkpoint_of_a_killed_training_are_not_counted(workspace, steps):
    steps[4] = RuntimeError("killed")  # as a kill does, it leaves no checkpoint of its own
    with pytest.raises(RuntimeError, match="killed"):
        train(small(epochs=3), workspace=workspace, console=QUIET)
    folder = fold_folder(workspace, NAME, 0)
    assert not (folder / "checkpoint_latest.pth").exists()
    (best,) = folder.glob("checkpoint_best.pth")  # of the first epoch
    assert torch.load(best, weights_only=False)["usage"]["steps"] == 2
    train(small(epochs=3, resume=True), workspace=workspace, console=QUIET)
    assert read_record(folder)["steps"] == 3 * 2


def test_a_training_ends_when_its_cpu_time_is_spent(workspace, steps):
    cpu_minutes = 1 / 60
    wanted = small(epochs=None, num_workers=None, cpu_minutes=cpu_minutes)
    record = read_record(train(wanted, workspace=workspace, console=QUIET))
    assert record["steps"] > 0
    assert record["cpu_minutes"] == cpu_minutes
    # over by the step and the validation patches that it ends with
    assert 1 <= record["cpu_seconds"] < 20
    checkpoint = torch.load(
        fold_folder(workspace, NAME, 0) / "checkpoint_final.pth", weights_only=False
    )
    assert checkpoint["seconds_spent"] == pytest.approx(record["cpu_seconds"], abs=5)


def test_a_gpu_that_auto_would_take_is_refused_a_budget_of_cpu_time(workspace, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    wanted = small(device="auto", epochs=None, cpu_minutes=1)
    with pytest.raises(VeloxSegError, match="Use --device cpu, or --minutes"):
        train(wanted, workspace=workspace, console=QUIET)


@pytest.mark.usefixtures("steps")
def test_paths_in_brackets_and_long_ones_are_printed_whole(tmp_path, monkeypatch):
    folder = tmp_path / "[bold] data [of 2026]" / ("long " * 20).strip()
    workspace = planned_workspace(folder, monkeypatch)
    written = io.StringIO()
    console = Console(file=written, width=40)
    fold = train(small(epochs=1), workspace=workspace, console=console)
    assert str(fold / "checkpoint_final.pth") in written.getvalue()


def test_an_interrupted_command_says_the_whole_command_to_go_on_with(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "train", interrupted)
    root = tmp_path / "my data"
    words = ["train", "4", "1", "--network", "segresnet", "--cpu-minutes", "30"]
    words += ["--root", str(root)]
    monkeypatch.setattr(sys, "argv", ["veloxseg", *words, "--overwrite"])
    result = CliRunner().invoke(app, [*words, "--overwrite"])
    assert result.exit_code == 130
    told = "veloxseg train 4 1 --network segresnet --cpu-minutes 30 --root"
    assert f"{told} '{root}' --resume" in result.output


def test_the_command_passes_a_budget_of_cpu_time_on(tmp_path, monkeypatch):
    seen = []

    def keep(settings, **_):
        seen.append(settings)
        raise VeloxSegError("enough")

    monkeypatch.setattr(launch, "train", keep)
    words = ["train", "4", "1", "--cpu-minutes", "30", "--root", str(tmp_path)]
    assert CliRunner().invoke(app, words).exit_code == 2
    assert (seen[0].cpu_minutes, seen[0].minutes) == (30.0, None)
    refused = CliRunner().invoke(app, [*words, "--epochs", "3"])
    assert refused.exit_code == 2
    assert "each say how long to train" in " ".join(refused.output.split())
    assert len(seen) == 1
