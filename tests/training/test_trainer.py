"""The trainer on two tiny preprocessed cases: steps, checkpoints, resuming, what it refuses."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tiny_training import CONFIG, Recorder, make_trainer, read, tiny_plans
from veloxseg.errors import PlanError, VeloxSegError
from veloxseg.network import VeloxSeg
from veloxseg.training.schedule import Budget
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

# nnU-Net's simple storage maps its files read-only, which PyTorch mentions once
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")


def test_a_training_runs_its_epochs_and_leaves_a_final_checkpoint_and_a_curve(trained):
    results = Path(trained.output_folder)
    recorder = trained.observer
    assert len(recorder.losses) == 6
    assert recorder.fractions == pytest.approx([i / 6 for i in range(6)])
    assert [epoch for epoch, _ in recorder.epochs] == [1, 2]
    assert all(0 <= dice <= 1 for _, dice in recorder.epochs)
    assert np.isfinite(recorder.losses).all()
    assert (results / "progress.png").stat().st_size > 1000
    assert not (results / "checkpoint_latest.pth").exists()
    checkpoint = read(results / "checkpoint_final.pth")
    assert checkpoint["current_epoch"] == 2
    assert checkpoint["trainer_name"] == "VeloxSegTrainer"
    assert json.loads((results.parent / "plans.json").read_text()) == tiny_plans()


def test_a_checkpoint_keeps_the_bare_network_apart_from_the_training_only_parts(trained):
    checkpoint = read(Path(trained.output_folder) / "checkpoint_final.pth")
    bare = VeloxSeg(CONFIG)
    bare.load_state_dict(checkpoint["network_weights"])  # strict: all of it and nothing else
    names = {key.split(".")[0] for key in checkpoint["distillation_weights"]}
    assert names == {"heads", "teachers"}
    model = trained.network
    for key, value in bare.state_dict().items():
        assert torch.equal(model.network.state_dict()[key], value)


def test_a_checkpoint_restores_weights_optimizer_epoch_and_log(trained):
    other = make_trainer(seed=1)
    other.load_checkpoint(str(Path(trained.output_folder) / "checkpoint_final.pth"))
    assert other.current_epoch == 2
    for key, value in trained.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[key], value), key
    ours, theirs = other.optimizer.state_dict(), trained.optimizer.state_dict()
    assert ours["state"].keys() == theirs["state"].keys()
    assert torch.equal(ours["state"][0]["exp_avg"], theirs["state"][0]["exp_avg"])
    log = other.logger.get_checkpoint()
    assert log["train_losses"] == trained.logger.get_checkpoint()["train_losses"]


def test_the_checkpoint_of_another_trainer_is_refused(trained, folder):
    path = Path(trained.output_folder) / "checkpoint_final.pth"
    checkpoint = read(path)
    foreign = {k: v for k, v in checkpoint.items() if k != "distillation_weights"}
    with pytest.raises(PlanError, match="does not fit"):
        make_trainer().load_checkpoint(foreign)
    smaller = dict(checkpoint["network_weights"])
    smaller.pop(next(iter(smaller)))
    with pytest.raises(PlanError, match="does not fit"):
        make_trainer().load_checkpoint({**checkpoint, "network_weights": smaller})


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(folder):
    losses = []
    for seed in (3, 3, 4):
        trainer = make_trainer(seed=seed)
        trainer.num_epochs = 1
        trainer.observer = Recorder()
        trainer.run_training()
        losses.append(trainer.observer.losses)
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_an_interruption_leaves_a_checkpoint_that_starts_the_epoch_again(folder):
    trainer = make_trainer()
    trainer.num_epochs = 3
    trainer.observer = Recorder(stop_after=5)  # in the second epoch
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    latest = Path(trainer.output_folder) / "checkpoint_latest.pth"
    checkpoint = read(latest)
    assert checkpoint["current_epoch"] == 1
    assert {len(values) for values in checkpoint["logging"].values()} == {1}
    again = make_trainer()
    again.num_epochs = 3
    again.load_checkpoint(str(latest))
    again.observer = Recorder()
    again.run_training()
    assert len(again.observer.losses) == 6  # two epochs of three were left
    assert len(again.logger.get_checkpoint()["train_losses"]) == 3


def test_a_budget_ends_the_training_and_is_remembered(folder):
    now = SimpleNamespace(seconds=0.0)
    trainer = make_trainer()
    trainer.budget = Budget(seconds=20.0, clock=lambda: now.seconds)

    class Clock(Recorder):
        def stepped(self, *, fraction, loss):
            super().stepped(fraction=fraction, loss=loss)
            now.seconds += 2.0

    trainer.observer = Clock()
    trainer.run_training()
    assert trainer.observer.fractions == pytest.approx([i / 10 for i in range(10)])
    assert trainer.optimizer.param_groups[0]["lr"] < 0.1 * trainer.initial_lr
    checkpoint = read(Path(trainer.output_folder) / "checkpoint_final.pth")
    assert checkpoint["seconds_spent"] == 20.0
    again = make_trainer()
    again.budget = Budget(seconds=80.0)
    again.load_checkpoint(checkpoint)
    assert again.budget.fraction == 0.25


def test_losses_that_stay_not_finite_stop_the_training_and_leave_the_weights(folder):
    trainer = make_trainer()
    trainer.initialize()
    image = torch.full((2, 2, *CONFIG.patch_size), float("nan"))
    targets = [torch.zeros(2, 1, *extent) for extent in (CONFIG.patch_size, *CONFIG.grids[1:])]
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    batch = {"data": image, "target": targets}
    for _ in range(19):
        assert np.isnan(trainer.train_step(batch)["loss"])  # passed over
    with pytest.raises(VeloxSegError, match="loss was nan for 20 steps"):
        trainer.train_step(batch)
    for key, value in trainer.network.state_dict().items():
        assert torch.equal(value, before[key])


def test_the_targets_of_deep_supervision_come_on_the_grids_of_the_heads(folder):
    trainer = make_trainer()
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    extents = [tuple(target.shape[2:]) for target in batch["target"]]
    assert extents == [CONFIG.patch_size, *CONFIG.grids[1:]]
    assert batch["data"].shape == (2, 2, *CONFIG.patch_size)
    trainer.on_train_end()


def test_validation_patches_and_whole_cases_never_run_the_teachers(folder):
    trainer = make_trainer()
    trainer.initialize()
    for teacher in trainer.network.teachers:
        teacher.register_forward_hook(lambda *_: pytest.fail("a teacher ran"))
    targets = [torch.ones(2, 1, *extent) for extent in (CONFIG.patch_size, *CONFIG.grids[1:])]
    network, loss = trainer.network, trainer.loss
    with torch.no_grad():
        result = trainer.validation_step(
            {"data": torch.randn(2, 2, *CONFIG.patch_size), "target": targets}
        )
    assert np.isfinite(result["loss"])
    assert trainer.network is network
    assert trainer.loss is loss


def test_regions_and_the_ignore_label_reach_the_objective(folder):
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    trainer = make_trainer(labels=labels, regions_class_order=[1, 2])
    trainer.initialize()
    assert trainer.loss.segmentation_loss.use_ignore_label
    assert trainer.network.network.config.num_classes == 2


def test_a_plan_of_another_network_is_refused(folder):
    plans = tiny_plans()
    plans["configurations"]["3d_fullres"]["architecture"] = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 4],
            "conv_op": "torch.nn.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 2,
            "strides": [[1, 1, 1], [2, 2, 2]],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
        },
        "_kw_requires_import": ["conv_op"],
    }
    with pytest.raises(PlanError, match="names PlainConvUNet"):
        make_trainer(plans).initialize()


def test_a_mask_cut_short_leaves_no_summary(folder):
    trainer = make_trainer()
    validation = Path(trainer.output_folder) / "validation"
    validation.mkdir(parents=True)
    mask = validation / "case_0.nii.gz"
    write_volume(mask, Volume(data=np.ones((4, 5, 6), np.uint8), spacing_zyx=(1.0, 1.0, 1.0)))
    (validation / "summary.json").write_text("{}")
    trainer._check_masks(validation)
    mask.write_bytes(mask.read_bytes()[:-12])
    with pytest.raises(OSError, match="not written whole"):
        trainer._check_masks(validation)
    assert not (validation / "summary.json").exists()
