"""The trainer on two tiny preprocessed cases: steps, checkpoints, resuming, what it refuses."""

import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import PlanError, VeloxSegError
from veloxseg.network import NetworkConfig, VeloxSeg
from veloxseg.training.record import check_same_plan, plan_hash, write_record
from veloxseg.training.schedule import Budget
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

# nnU-Net's simple storage maps its files read-only, which PyTorch mentions once
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")

NAME = "Dataset123_Tiny"
CONFIG = NetworkConfig(
    patch_size=(8, 16, 16),
    in_channels=(1, 1),
    num_classes=2,
    stem_stride=(1, 2, 2),
    strides=((2, 2, 2),),
    conv_channels=(8, 8),
    attention_channels=(8, 8),
    conv_depths=(1, 1),
    attention_depths=(1, 1),
    group_widths=(4, 8),
    conv_expansion=(1, 1),
    attention_expansion=(1, 1),
    big_windows=((2, 2, 2), (2, 2, 2)),
    small_windows=((1, 1, 1), (1, 1, 1)),
    num_heads=(1, 1),
    head_channels=(4, 4),
)


def tiny_plans() -> dict:
    kwargs = CONFIG.to_json()
    del kwargs["num_classes"]
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": NAME,
        "plans_name": "VeloxSegPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [12, 20, 20],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "VeloxSegPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "tiny",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(CONFIG.patch_size),
                "median_image_size_in_voxels": [12.0, 20.0, 20.0],
                "spacing": [1.0, 1.0, 1.0],
                "normalization_schemes": ["ZScoreNormalization"] * 2,
                "use_mask_for_norm": [False, False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": resampling,
                "architecture": {
                    "network_class_name": "veloxseg.network.plans.build_network",
                    "arch_kwargs": kwargs,
                    "_kw_requires_import": [],
                },
                "batch_dice": False,
            }
        },
    }


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Root of a workspace that holds two preprocessed cases of two channels."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "restored after the test")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    Workspace.resolve(tmp_path).export()
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetNumpy

    cases = tmp_path / "nnUNet_preprocessed" / NAME / "tiny"
    cases.mkdir(parents=True)
    (cases.parent / "dataset_fingerprint.json").write_text("{}")
    random = np.random.default_rng(0)
    for identifier in ("a", "b"):
        data = random.normal(size=(2, 12, 20, 20)).astype(np.float32)
        seg = np.zeros((1, 12, 20, 20), dtype=np.int8)
        seg[:, 4:9, 6:14, 6:14] = 1
        data[:, seg[0] == 1] += 3
        places = np.argwhere(seg == 1)
        properties = {"class_locations": {1: places}, "spacing": [1.0, 1.0, 1.0]}
        nnUNetDatasetNumpy.save_case(data, seg, properties, str(cases / identifier))
    return tmp_path


def make_trainer(plans=None, *, labels=None, seed=0, **description):
    from veloxseg.training.trainer import VeloxSegTrainer

    torch.manual_seed(seed)
    np.random.seed(seed)
    plans = {**copy.deepcopy(plans or tiny_plans()), "continue_training": False}
    dataset = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": labels or {"background": 0, "lesion": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **description,
    }
    trainer = VeloxSegTrainer(plans, "3d_fullres", "all", dataset, torch.device("cpu"))
    trainer.quiet = True
    trainer.num_epochs = 2
    trainer.num_iterations_per_epoch = 3
    trainer.num_val_iterations_per_epoch = 1
    return trainer


class Recorder:
    """Keeps the losses, and stops the training as Ctrl-C does after some steps."""

    def __init__(self, stop_after=None):
        self.losses, self.epochs, self.fractions, self.stop_after = [], [], [], stop_after

    def stepped(self, *, fraction, loss):
        self.losses.append(loss)
        self.fractions.append(fraction)
        if len(self.losses) == self.stop_after:
            raise KeyboardInterrupt

    def epoch_ended(self, *, epoch, dice):
        self.epochs.append((epoch, dice))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.fixture
def trained(folder, capsys):
    trainer = make_trainer()
    trainer.observer = Recorder()
    trainer.run_training()
    return trainer


def read(path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=False)


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
    from veloxseg.training.trainer import VeloxSegTrainer

    plans = {**tiny_plans(), "continue_training": False}
    dataset = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": labels,
        "regions_class_order": [1, 2],
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    trainer = VeloxSegTrainer(plans, "3d_fullres", "all", dataset, torch.device("cpu"))
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


def test_a_plans_hash_depends_on_its_content_and_not_on_the_order_of_its_keys_or_its_reasons():
    plans = tiny_plans()
    backwards = dict(reversed(list(copy.deepcopy(plans).items())))
    assert list(backwards) != list(plans)
    assert plan_hash(backwards) == plan_hash(plans)
    assert len(plan_hash(plans)) == 64
    told = [{"what": "batch", "value": "2", "why": "the smallest"}]
    backwards["configurations"]["3d_fullres"]["decisions"] = told  # words, which train nothing
    assert plan_hash(backwards) == plan_hash(plans)
    plans["configurations"]["3d_fullres"]["batch_size"] = 3
    assert plan_hash(plans) != plan_hash(backwards)


def test_a_results_folder_of_another_plan_is_refused(tmp_path):
    plans = tiny_plans()
    check_same_plan(tmp_path, plans)  # nothing there yet
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "fold_0").mkdir()
    other = {**plans, "transpose_forward": [2, 1, 0]}
    check_same_plan(tmp_path, other)  # nothing trained yet
    (tmp_path / "fold_0" / "checkpoint_best.pth").touch()
    check_same_plan(tmp_path, plans)
    with pytest.raises(PlanError, match="another plan") as error:
        check_same_plan(tmp_path, other)
    assert plan_hash(plans)[:12] in str(error.value)
    assert plan_hash(other)[:12] in str(error.value)


def test_training_in_the_folder_of_another_plan_is_refused(trained):
    plans = tiny_plans()
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 1.0, 1.0]
    with pytest.raises(PlanError, match="another plan"):
        make_trainer(plans).run_training()


def test_a_record_holds_settings_versions_and_the_plans_hash(tmp_path):
    write_record(tmp_path, plans=tiny_plans(), seed=7, minutes=None)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["seed"] == 7
    assert record["plan_sha256"] == plan_hash(tiny_plans())
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert isinstance(record["command"], list)
    write_record(tmp_path, plans=tiny_plans(), resume=True)
    resumed = json.loads((tmp_path / "run.json").read_text())
    assert resumed["earlier_commands"] == [record["command"]]


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


def with_recipe(**recipe) -> dict:
    plans = tiny_plans()
    plans["configurations"]["3d_fullres"]["training"] = recipe
    return plans


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
