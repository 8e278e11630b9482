"""The commands on five tiny phantoms: how they work together, not how well the network learns."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import same_grid

Command = Callable[..., subprocess.CompletedProcess[str]]

_LOSSES = """
import sys
from pathlib import Path
from rich.console import Console
from veloxseg.datasets.workspace import Workspace
from veloxseg.training import launch

class Losses(list):
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def epoch_ended(self, **_): pass
    def stepped(self, *, fraction, loss): self.append(loss)

make = launch._make_trainer
for seed in (0, 0, 1):
    losses = Losses()
    def make_short(*arguments):
        trainer = make(*arguments)
        trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 3, 1
        trainer.perform_actual_validation = lambda: None
        type(trainer).observer = property(lambda self: losses, lambda self, _: None)
        return trainer
    launch._make_trainer = make_short
    settings = launch.TrainingSettings(
        dataset="100", fold=4, epochs=1, num_workers=0, device="cpu", seed=seed, overwrite=True
    )
    launch.train(settings, workspace=Workspace.resolve(None), console=Console(stderr=True))
    print(",".join(map(repr, losses)))
"""


def test_run_leaves_checkpoint_curve_record_and_figures_of_whole_cases(trained: Path) -> None:
    summary = json.loads((trained / "validation" / "summary.json").read_text())
    record = json.loads((trained / "run.json").read_text())
    assert (trained / "checkpoint_final.pth").is_file()
    assert (trained / "progress.png").read_bytes().startswith(b"\x89PNG")
    assert len(summary["metric_per_case"]) == 1
    assert record["seed"] == 0
    assert record["minutes"] == 0.4
    assert record["versions"]["nnunetv2"].startswith("2.")
    assert len(record["plan_sha256"]) == 64


def test_run_again_does_nothing_again(trained: Path, root: Path, command: Command) -> None:
    def times() -> dict[Path, float]:
        files = [*root.rglob("*.pth"), *root.rglob("*Plans.json"), *root.rglob("*.pkl")]
        return {file: file.stat().st_mtime for file in files}

    before = times()
    done = command("veloxseg", "run", "100", "--minutes", "0.4")
    assert len(before) > 5
    assert times() == before
    assert "check, plan: done before" in done.stderr
    assert "train: done before\n" in done.stderr
    longer = command("veloxseg", "run", "100", "--minutes", "5").stderr
    assert times() == before
    assert "done before, with 0.4 minutes" in longer
    assert "veloxseg train Dataset100_Tiny 0 --minutes 5 --overwrite" in longer


def test_run_exports_a_bundle_that_predicts_and_is_evaluated(
    trained: Path, root: Path, command: Command, tmp_path: Path
) -> None:
    raw = root / "nnUNet_raw" / "Dataset100_Tiny"
    masks = tmp_path / "masks"
    bundle = trained / "Dataset100_Tiny.veloxseg"
    command("veloxseg", "predict", "-m", bundle, "-i", raw / "imagesTr", "-o", masks)
    for image in raw.glob("imagesTr/*_0000.nii.gz"):
        mask = read_volume(masks / image.name.replace("_0000", ""))
        assert same_grid(mask, read_volume(image))
        assert set(np.unique(mask.data)) <= {0, 1}
    assert not list(masks.glob(".*"))
    figures = tmp_path / "summary.json"
    command("veloxseg", "evaluate", masks, raw / "labelsTr", "-o", figures)
    summary = json.loads(figures.read_text())
    assert len(summary["metric_per_case"]) == 5
    assert {"Dice", "HD95_mm", "volume_ml"} <= summary["foreground_mean"].keys()


def test_a_results_folder_of_another_plan_is_refused(
    trained: Path, root: Path, command: Command
) -> None:
    plans = root / "nnUNet_preprocessed" / "Dataset100_Tiny" / "VeloxSegPlans.json"
    original = plans.read_text()
    try:
        plans.write_text(original.replace('"batch_size": 2', '"batch_size": 3'))
        assert plans.read_text() != original
        done = command("veloxseg", "train", "100", "1", "--minutes", "0.1", code=2)
    finally:
        plans.write_text(original)
    assert "another plan" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fold_trained_before_is_not_trained_over_unasked(trained: Path, command: Command) -> None:
    before = (trained / "checkpoint_final.pth").read_bytes()
    done = command("veloxseg", "train", "100", "0", "--minutes", "0.1", code=2)
    assert "--resume" in done.stderr
    assert (trained / "checkpoint_final.pth").read_bytes() == before


def test_ctrl_c_leaves_a_checkpoint_from_which_resume_goes_on(
    trained: Path, command: Command, environment: dict[str, str]
) -> None:
    fold = trained.with_name("fold_1")
    program = str(Path(sys.executable).with_name("veloxseg"))
    words = ["train", "100", "1", "--device", "cpu", "--num-workers", "0"]
    process = subprocess.Popen(
        [program, *words, "--minutes", "3"], env=environment, stderr=subprocess.PIPE, text=True
    )
    _wait_for_second_epoch(fold, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "veloxseg train 100 1" in errors
    assert "--resume" in errors
    stopped = torch.load(fold / "checkpoint_latest.pth", weights_only=False)
    assert not (fold / "checkpoint_final.pth").exists()
    assert stopped["current_epoch"] >= 1
    assert stopped["seconds_spent"] > 5

    # A budget that is used up but for a second: one epoch more, if the time spent is remembered.
    minutes = (stopped["seconds_spent"] + 1) / 60
    command("veloxseg", *words, "--minutes", minutes, "--resume")
    final = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert final["current_epoch"] == stopped["current_epoch"] + 1
    assert final["seconds_spent"] > stopped["seconds_spent"]
    assert (fold / "validation" / "summary.json").is_file()


@pytest.mark.slow  # the trainer's own test is the quick one
def test_the_same_seed_gives_the_same_first_losses(trained: Path, command: Command) -> None:
    first, again, other = command("python", "-c", _LOSSES).stdout.split()
    assert len(first.split(",")) == 3
    assert first == again
    assert first != other


def _wait_for_second_epoch(fold: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not any("Epoch 1" in log.read_text() for log in fold.glob("training_log_*.txt")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < end
        time.sleep(0.2)
    time.sleep(1)
