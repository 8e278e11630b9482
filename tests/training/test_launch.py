import os

import pytest
import torch

from veloxseg.errors import VeloxSegError
from veloxseg.training import launch
from veloxseg.training.launch import TrainingSettings
from veloxseg.training.record import read_record, write_record


def settings(**changes):
    return TrainingSettings(dataset="4", fold=0, **changes)


def test_a_resumed_run_takes_what_it_is_not_told_from_its_record(tmp_path):
    begun = {"minutes": 30.0, "epochs": None, "learning_rate": 1e-3}
    write_record(tmp_path, plans={}, **begun)
    resumed = launch._as_recorded(settings(resume=True), read_record(tmp_path))
    assert (resumed.minutes, resumed.epochs, resumed.learning_rate) == (30.0, None, 1e-3)


def test_what_a_resumed_run_is_told_counts():
    record = {"minutes": 30.0, "epochs": None, "learning_rate": 1e-3}
    longer = launch._as_recorded(settings(resume=True, minutes=60), record)
    assert (longer.minutes, longer.learning_rate) == (60, 1e-3)
    by_epochs = launch._as_recorded(settings(resume=True, epochs=5, learning_rate=2e-3), record)
    assert (by_epochs.minutes, by_epochs.epochs, by_epochs.learning_rate) == (None, 5, 2e-3)


def test_a_run_without_a_record_is_resumed_with_the_defaults(tmp_path):
    resumed = launch._as_recorded(settings(resume=True), read_record(tmp_path))
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


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"epochs": 0}, {"num_workers": -1}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(VeloxSegError, match=r"[Ee]xpected"):
        settings(**wrong)
