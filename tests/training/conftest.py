from pathlib import Path

import pytest

from tiny_training import Recorder, make_trainer, write_tiny_dataset
from veloxseg.datasets.workspace import Workspace


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Root of a workspace that holds two preprocessed cases of two channels."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "restored after the test")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    Workspace.resolve(tmp_path).export()
    write_tiny_dataset(tmp_path)
    return tmp_path


@pytest.fixture
def trained(folder, capsys):
    trainer = make_trainer()
    trainer.observer = Recorder()
    trainer.run_training()
    return trainer
