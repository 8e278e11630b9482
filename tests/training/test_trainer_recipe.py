"""What a plan's recipe and optional channels make of a training."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_training import CONFIG, Recorder, make_trainer, read, with_recipe
from veloxseg.errors import PlanError

# nnU-Net's simple storage maps its files read-only, which PyTorch mentions once
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")


def test_the_plans_recipe_decides_schedule_objective_and_patches(folder):
    trainer = make_trainer(
        with_recipe(
            learning_rate=1e-3,
            final_ratio=0.5,
            warmup=0.2,
            weight_decay=0.1,
            reconstruction_weight=0.25,
            sdkt_weight=3.0,
            head_weights=[3.0, 1.0],
            teachers="detached",
            foreground_share=0.5,
        )
    )
    trainer.initialize()
    assert trainer.optimizer.defaults["weight_decay"] == 0.1
    schedule = trainer.lr_scheduler
    assert (schedule.peak, schedule.warmup, schedule.final_ratio) == (1e-3, 0.2, 0.5)
    assert trainer.loss.head_weights == (0.75, 0.25)
    assert (trainer.loss.reconstruction_weight, trainer.loss.sdkt_weight) == (0.25, 3.0)
    assert trainer.loss.detach_teachers
    assert trainer.oversample_foreground_percent == 0.5


def test_weights_for_another_number_of_heads_are_refused(folder):
    with pytest.raises(PlanError, match="expected 2 numbers"):
        make_trainer(with_recipe(head_weights=[1.0, 1.0, 1.0])).initialize()


def test_without_teachers_none_is_built_or_kept_and_the_training_runs(folder, capsys):
    trainer = make_trainer(with_recipe(teachers="off"))
    trainer.observer = Recorder()
    trainer.run_training()
    checkpoint = read(Path(trainer.output_folder) / "checkpoint_final.pth")
    assert {key.split(".")[0] for key in checkpoint["distillation_weights"]} == {"heads"}
    assert np.isfinite(trainer.observer.losses).all()
    other = make_trainer(with_recipe(teachers="off"), seed=1)
    other.load_checkpoint(checkpoint)
    for key, value in trainer.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[key], value), key


def test_the_published_augmentation_rotates_about_the_axial_axis_alone(folder, capsys):
    trainer = make_trainer(with_recipe(augmentation="rotation"))
    rotation, dummy, loaded, mirrored = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    assert rotation == pytest.approx((-math.radians(15), math.radians(15)))
    assert not dummy
    assert mirrored is None
    assert trainer.inference_allowed_mirroring_axes is None
    assert loaded[0] == CONFIG.patch_size[0]  # nothing is rotated out of the axial slice
    assert min(loaded[1:]) > CONFIG.patch_size[1]
    trainer.initialize()
    transforms = trainer.get_training_transforms()
    image = torch.zeros(1, 8, 20, 20)
    image[:, 4, :, 10:] = 1  # one slice is marked: it must stay in its slice
    np.random.seed(1)
    seen = [
        transforms(image=image.clone(), segmentation=torch.zeros(1, 8, 20, 20))["image"]
        for _ in range(12)
    ]
    assert {tuple(patch.shape) for patch in seen} == {(1, *CONFIG.patch_size)}
    assert all(not patch[0, [0, 1, 2, 3, 5, 6, 7]].abs().gt(1e-3).any() for patch in seen)
    middles = torch.stack([patch[0, 4] for patch in seen])
    moved = (middles - middles.median(0).values).abs().amax((1, 2)) > 0.1
    assert 0 < moved.sum() < 12  # some are rotated, some are not


def test_optional_channels_are_known_by_their_numbers_in_whatever_order_they_are_written(folder):
    trainer = make_trainer(channel_names={"1": "PET", "0": "CT"}, optional=["PET"])
    assert trainer._optional == [1]


def test_optional_channels_are_dropped_in_training_and_absent_ones_never_seen(folder, capsys):
    trainer = make_trainer(with_recipe(channel_dropout=0.5))
    trainer._optional = [0, 1]
    trainer._absent = {"a": [1], "b": []}
    trainer.initialize()
    seen = []
    trainer.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    for _ in range(20):
        trainer.train_step(
            {
                "data": torch.ones(2, 2, *CONFIG.patch_size),
                "target": [
                    torch.zeros(2, 1, *CONFIG.patch_size),
                    torch.zeros(2, 1, *CONFIG.grids[1]),
                ],
                "keys": ["a", "b"],
            }
        )
    kept = torch.stack(seen).amax((3, 4, 5)) > 0
    assert bool(kept[:, 0, 0].all())  # a's only channel
    assert not kept[:, 0, 1].any()
    assert 0 < kept[:, 1, 0].sum() < 20
    assert bool(kept.any(2).all())
