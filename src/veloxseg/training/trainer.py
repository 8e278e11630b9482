"""nnU-Net's trainer with the network, objective and schedule of a VeloxSeg plan."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from veloxseg.atomic import atomic_path
from veloxseg.errors import ImageReadError, PlanError, VeloxSegError
from veloxseg.network import DistillationModel, TrainingModel
from veloxseg.planning.optional import absent_channels
from veloxseg.planning.recipe import TrainingRecipe, recipe_of
from veloxseg.training.allocator import keep_freed_memory
from veloxseg.training.augmentation import AXIAL_ROTATION, rotated_extent, rotation_transforms
from veloxseg.training.channel_dropout import drop_channels
from veloxseg.training.curve import TrainingHistory, draw_training_curve
from veloxseg.training.objective import Objective
from veloxseg.training.observer import Observer, SilentObserver
from veloxseg.training.optimisation import make_optimizer, make_schedule
from veloxseg.training.record import check_same_plan
from veloxseg.training.schedule import Budget, Polynomial, WarmupCosine
from veloxseg.training.usage import Usage
from veloxseg.volumes.reading import read_volume

_MAX_BAD_STEPS = 20


class VeloxSegTrainer(nnUNetTrainer):  # type: ignore[misc]
    """Trains the network of a VeloxSeg plan; folds, augmentation, DDP and validation are nnU-Net's.

    A checkpoint's ``network_weights`` are those of the bare network, all that nnU-Net's predictor
    needs; the training-only modules are beside them as ``distillation_weights``.

    How it trains is the plan's recipe (``planning/recipe.py``).

    Attributes:
        recipe: Of the plan's configuration.
        budget: When set, the schedule fills this time instead of ``num_epochs``.
        usage: Steps, time and memory so far, earlier sessions included.
        observer: Is told how training goes.
        quiet: Write nnU-Net's messages to its log file only.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  (nnU-Net's signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.recipe: TrainingRecipe = recipe_of(self.configuration_manager.configuration)
        self.initial_lr = self.recipe.learning_rate
        self.weight_decay = self.recipe.weight_decay
        self.num_epochs = self.recipe.epochs
        self.num_iterations_per_epoch = self.recipe.steps_per_epoch
        self.oversample_foreground_percent = self.recipe.foreground_share
        self.save_every = 5
        self.budget: Budget | None = None
        self.usage = Usage()
        self.observer: Observer = SilentObserver()
        self.quiet = False
        self._bad_steps = 0
        self._curve_drawn = -math.inf
        names = dataset_json.get("channel_names", {})
        optional = dataset_json.get("optional", [])
        self._optional = sorted(int(index) for index, name in names.items() if name in optional)
        self._absent: dict[str, tuple[int, ...]] = {}
        self.logger.plot_progress_png = self._draw_curve  # nnU-Net's takes seconds every epoch

    # Network, objective and optimizer

    def initialize(self) -> None:
        """Build the network as nnU-Net does; off a CPU its weights take PyTorch's usual layout."""
        super().initialize()
        if self.device.type == "cpu":
            keep_freed_memory()
        else:
            self.network.to(memory_format=torch.contiguous_format)

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """Build the plan's network, in training without teachers where its recipe has none."""
        network = nnUNetTrainer.build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        teachers = recipe_of(configuration_manager.configuration).teachers
        if isinstance(network, DistillationModel) and teachers == "off":
            return DistillationModel(network.network, teachers=False)
        return network  # type: ignore[no-any-return]

    def _build_loss(self) -> Objective:
        model = self._model()
        return Objective(
            in_channels=model.in_channels,
            num_heads=len(model.head_scales),
            regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            batch_dice=self.configuration_manager.batch_dice,
            ddp=self.is_ddp,
            reconstruction_weight=self.recipe.reconstruction_weight,
            sdkt_weight=self.recipe.sdkt_weight,
            head_weights=self.recipe.head_weights,
            detach_teachers=self.recipe.teachers == "detached",
        )

    def _get_deep_supervision_scales(self) -> list[list[float]]:
        return [list(scales) for scales in self._model().head_scales]

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Do nothing: which outputs there are is a matter of which module is called."""

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, WarmupCosine | Polynomial]:
        """The recipe's."""
        optimizer = make_optimizer(
            self.network.parameters(), self.recipe, learning_rate=self.initial_lr
        )
        schedule = make_schedule(optimizer, self.recipe, learning_rate=self.initial_lr)
        return optimizer, schedule

    # Patches

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        """nnU-Net's, or what the published augmentation needs: no mirroring, small rotations."""
        if self.recipe.augmentation == "nnunet":
            return super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        loaded = rotated_extent(
            self.configuration_manager.patch_size, axial_axis=self._axial_axis()
        )
        return (-AXIAL_ROTATION, AXIAL_ROTATION), False, np.array(loaded), None

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Any:
        """nnU-Net's augmentation, or the published one."""
        if self.recipe.augmentation == "nnunet":
            return super().get_training_transforms(*args, **kwargs)
        manager = self.label_manager
        targets = self.get_validation_transforms(
            self._get_deep_supervision_scales(),
            foreground_labels=manager.foreground_labels,
            regions=manager.foreground_regions if manager.has_regions else None,
            ignore_label=manager.ignore_label,
        )
        patch_size = self.configuration_manager.patch_size
        return rotation_transforms(patch_size, targets, axial_axis=self._axial_axis())

    def _axial_axis(self) -> int:
        """Of the patch: nnU-Net's transposition may have moved the images' first axis."""
        return int(list(self.plans_manager.transpose_forward).index(0))

    # Steps

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step on nnU-Net's batch: forward, objective, backward, clipped gradients.

        Raises:
            VeloxSegError: the loss was not finite for many steps in a row.
        """
        image = batch["data"].to(self.device, non_blocking=True)
        if self._optional:
            image = drop_channels(
                image,
                optional=self._optional,
                absent=[self._absent_channels(case) for case in batch["keys"]],
                rate=self.recipe.channel_dropout,
            )
        targets = [target.to(self.device, non_blocking=True) for target in batch["target"]]
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            loss = self.loss(self.network(image), targets, image).total
        value = loss.detach().cpu().numpy()
        self._count_bad_steps(value)
        if not np.isfinite(value) and not self.is_ddp:
            return {"loss": value}  # the weights stay as they are
        if self.grad_scaler is not None:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.optimizer.step()
        return {"loss": value}

    def _absent_channels(self, case: str) -> tuple[int, ...]:
        """Channels that a preprocessed case lacks, as its properties say."""
        if case not in self._absent:
            properties = load_pickle(f"{self.preprocessed_dataset_folder}/{case}.pkl")
            self._absent[case] = absent_channels(properties)
        return self._absent[case]

    def _count_bad_steps(self, loss: float) -> None:
        self._bad_steps = 0 if np.isfinite(loss) else self._bad_steps + 1
        if self._bad_steps >= _MAX_BAD_STEPS:
            raise VeloxSegError(
                f"{self.output_folder}: the loss was {loss} for {_MAX_BAD_STEPS} steps up to epoch "
                f"{self.current_epoch}. Look for NaN or huge intensities with: veloxseg check, or "
                "lower --learning-rate. The last checkpoint is kept."
            )

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's step, on the segmentation alone: the teachers do not run."""
        with self._replaced(network=self._model().segment, loss=self.loss.segmentation):
            return super().validation_step(batch)  # type: ignore[no-any-return]

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's validation by whole cases, with the bare network.

        Raises:
            OSError: a mask was cut short, for one by a full disk; no summary is left.
        """
        with self._replaced(network=self._model().network):
            super().perform_actual_validation(save_probabilities)
        if self.local_rank == 0:
            self._check_masks(Path(self.output_folder) / "validation")

    def _check_masks(self, folder: Path) -> None:
        """Read the masks again: nnU-Net is not told of a full disk, and reads zeros from it."""
        for mask in sorted(folder.glob(f"*{self.dataset_json['file_ending']}")):
            try:
                read_volume(mask)
            except ImageReadError as error:
                (folder / "summary.json").unlink(missing_ok=True)
                raise OSError(
                    f"{mask}: not written whole ({error}). Make space on the disk and validate "
                    "again with --resume."
                ) from error

    # The loop

    def run_training(self) -> None:
        """Train until the epochs or the budget are used up; Ctrl-C leaves a checkpoint."""
        check_same_plan(Path(self.output_folder_base), self.plans_manager.plans)
        try:
            self.on_train_start()
            self.usage.start()
            if self.budget is not None:
                self.budget.start()
            with self.observer:
                while self._fraction() < 1:
                    self._run_epoch()
        except KeyboardInterrupt:
            if self.was_initialized:
                self._save_interrupted()
            raise
        self._curve_drawn = -math.inf
        self._draw_curve(self.output_folder)
        self.on_train_end()

    def _run_epoch(self) -> None:
        self.on_epoch_start()
        self.lr_scheduler.advance(self._fraction())
        self.on_train_epoch_start()
        steps: list[dict[str, Any]] = []
        started = self._spent()
        while not self._epoch_is_over(len(steps), self._spent() - started):
            fraction = self._fraction(len(steps))
            self.lr_scheduler.advance(fraction)
            steps.append(self.train_step(next(self.dataloader_train)))
            self.usage.steps += 1
            self.observer.stepped(fraction=fraction, loss=float(steps[-1]["loss"]))
        self.on_train_epoch_end(steps)
        validation_steps = self.num_val_iterations_per_epoch
        if self.budget is not None:
            validation_steps = max(2, len(steps) // 10)
        with torch.no_grad():
            self.on_validation_epoch_start()
            self.on_validation_epoch_end(
                [self.validation_step(next(self.dataloader_val)) for _ in range(validation_steps)]
            )
        self.on_epoch_end()
        dice = self.logger.get_value("mean_fg_dice", step=-1)
        self.observer.epoch_ended(epoch=self.current_epoch, dice=float(dice))

    def _spent(self) -> float:
        return self.budget.elapsed if self.budget is not None else 0.0

    def _fraction(self, steps_of_epoch: int = 0) -> float:
        if self.budget is not None:
            return self._shared(self.budget.fraction)
        epochs = self.current_epoch + steps_of_epoch / self.num_iterations_per_epoch
        return float(epochs / self.num_epochs)

    def _epoch_is_over(self, steps: int, seconds: float) -> bool:
        if self.budget is None:
            return bool(steps >= self.num_iterations_per_epoch)
        over = seconds >= self.budget.epoch_seconds or self.budget.fraction >= 1
        return steps > 0 and bool(self._shared(float(over)))

    def _shared(self, value: float) -> float:
        """The first process's value, in all processes: their clocks differ."""
        if not self.is_ddp:
            return value
        tensor = torch.tensor(value, device=self.device, dtype=torch.float32)
        distributed.broadcast(tensor, src=0)
        return float(tensor)

    # Checkpoints

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint, whole or not at all."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        weights = self._model().state_dict()
        bare = {k.removeprefix("network."): v for k, v in weights.items() if _is_bare(k)}
        checkpoint = {
            "network_weights": bare,
            "distillation_weights": {k: v for k, v in weights.items() if not _is_bare(k)},
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "seconds_spent": self.budget.elapsed if self.budget else None,
            "usage": self.usage.to_json(),
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
        }
        with atomic_path(Path(filename)) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # what PyTorch makes of a full disk
                raise OSError(
                    f"{filename}: the checkpoint could not be written ({error}). "
                    "Check the space left on the disk; the last checkpoint is kept."
                ) from error

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Go on from a checkpoint of this trainer.

        Raises:
            PlanError: its weights do not fit the plan's network.
        """
        if not self.was_initialized:
            self.initialize()
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = torch.load(checkpoint, map_location=self.device, weights_only=False)
        assert isinstance(checkpoint, dict)
        weights = {f"network.{k}": v for k, v in checkpoint["network_weights"].items()}
        try:
            self._model().load_state_dict({**weights, **checkpoint["distillation_weights"]})
        except (KeyError, RuntimeError) as error:
            raise PlanError(
                f"{self.output_folder}: its checkpoint does not fit the network of the plan. It is "
                f"another plan's or another trainer's. ({str(error)[:200]})"
            ) from error
        self.my_init_kwargs = checkpoint["init_args"]
        self.current_epoch = checkpoint["current_epoch"]
        self.logger.load_checkpoint(checkpoint["logging"])
        self._best_ema = checkpoint["_best_ema"]
        self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
        if self.budget is not None:
            self.budget.spent = checkpoint["seconds_spent"] or 0.0
        if "usage" in checkpoint:
            self.usage.go_on_from(checkpoint["usage"])

    def _save_interrupted(self) -> None:
        """Keep the state of an unfinished epoch: resuming starts that epoch again."""
        for values in self.logger.get_checkpoint().values():
            del values[self.current_epoch :]
        self.current_epoch -= 1  # save_checkpoint adds one, as after a whole epoch
        self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_latest.pth"))
        self.current_epoch += 1

    # Around nnU-Net

    def print_to_log_file(
        self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True
    ) -> None:
        """Write to the log file, and to the console unless the trainer is quiet."""
        super().print_to_log_file(
            *args,
            also_print_to_console=also_print_to_console and not getattr(self, "quiet", False),
            add_timestamp=add_timestamp,
        )

    def _model(self) -> TrainingModel:
        model = self.network
        if isinstance(model, DistributedDataParallel):
            model = model.module
        if isinstance(model, OptimizedModule):
            model = model._orig_mod
        if not isinstance(model, TrainingModel):
            raise PlanError(
                f"{type(self).__name__} trains the network of a VeloxSeg plan, and this plan names "
                f"{type(model).__name__}. Make one with: veloxseg plan, and train with "
                "-p VeloxSegPlans."
            )
        return model

    @contextmanager
    def _replaced(self, **attributes: Any) -> Iterator[None]:
        before = {name: getattr(self, name) for name in attributes}
        try:
            for name, value in attributes.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def _draw_curve(self, folder: str) -> None:
        """Draw ``progress.png`` in place of nnU-Net's, at most twice a minute."""
        if monotonic() - self._curve_drawn < 30 or self.local_rank != 0:
            return
        log = self.logger.get_checkpoint()
        epochs = min(len(log["train_losses"]), len(log["mean_fg_dice"]), len(log["lrs"]))
        if epochs == 0:
            return
        stamps = zip(log["epoch_end_timestamps"], log["epoch_start_timestamps"], strict=False)
        seconds = [end - start for end, start in stamps]
        history = TrainingHistory(
            train_loss=log["train_losses"][:epochs],
            validation_loss=log["val_losses"][:epochs],
            validation_dice=log["mean_fg_dice"][:epochs],
            learning_rate=log["lrs"][:epochs],
            epoch_seconds=seconds[:epochs],
        )
        draw_training_curve(history, Path(folder) / "progress.png")
        self._curve_drawn = monotonic()


def _is_bare(key: str) -> bool:
    return key.startswith("network.")
