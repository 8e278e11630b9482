"""nnU-Net's experiment planner with VeloxSeg's rules: fingerprint in, plans JSON out."""

from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.label_handling.label_handling import get_labelmanager_class_from_plans

from veloxseg.atomic import write_json
from veloxseg.errors import DatasetError, PlanError
from veloxseg.network.config import NetworkConfig
from veloxseg.network.plans import NETWORK_CLASS_NAME
from veloxseg.planning.files import (
    CONFIGURATION,
    DECISIONS_KEY,
    OPTIONS,
    PLANS_NAME,
    STRUCTURES_KEY,
)
from veloxseg.planning.given import GivenPlan
from veloxseg.planning.network_plan import DatasetNumbers, Decision, plan_network
from veloxseg.planning.recipe import RECIPE_KEY, Teachers, TrainingRecipe
from veloxseg.planning.rules import Size
from veloxseg.planning.structures import TURNING_READER, StructureSizes, measure_structures
from veloxseg.planning.target import DEFAULT_TARGET, parse_target
from veloxseg.planning.training_rules import decide_training


class VeloxSegPlanner(ExperimentPlanner):  # type: ignore[misc]
    """Plans a VeloxSeg network for a dataset; spacing, normalisation and resampling are nnU-Net's.

    Writes one configuration, ``3d_fullres``.

    Args:
        dataset_name_or_id: An nnU-Net dataset whose fingerprint is extracted.
        gpu_memory_target_in_gb: Memory of a training step; None: of the default target.
        overwrite_target_spacing: mm, (Z, Y, X) before transposition.

    Attributes:
        target: What training may take.
        size: Width of the network.
        teachers: What the reconstruction decoders do in training; None: by the rule.
        given: A plan that fixes network, spacing, axes and recipe, in place of the rules.
        given_decisions: What to say of the given plan.
        options: Those that the command was given, for the record.
    """

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float | None = None,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = PLANS_NAME,
        overwrite_target_spacing: list[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb or DEFAULT_TARGET.memory_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self.lowres_creation_threshold = 0.0  # no cascade
        self.target = DEFAULT_TARGET
        if gpu_memory_target_in_gb is not None:
            self.target = parse_target(f"{gpu_memory_target_in_gb:g}gb")
        self.size: Size = "B"
        self.teachers: Teachers | None = None
        self.given: GivenPlan | None = None
        self.given_decisions: tuple[Decision, ...] = ()
        self.options = ""

    def plan_experiment(self) -> dict[str, Any]:
        """Plan, and write the plans file.

        Raises:
            DatasetError: the labels are missing.
            PlanError: the dataset is not three-dimensional.
        """
        if not self.dataset:
            raise DatasetError(f"{self.raw_dataset_folder}: no training cases to plan for.")
        return super().plan_experiment()  # type: ignore[no-any-return]

    def determine_fullres_target_spacing(self) -> Any:
        """nnU-Net's, or the given plan's; mm, (Z, Y, X)."""
        if self.given is not None:
            return np.array(self.given.spacing_zyx)
        return super().determine_fullres_target_spacing()

    def determine_transpose(self) -> Any:
        """nnU-Net's order of the axes, or the given plan's."""
        if self.given is not None:
            forward = list(self.given.transpose_forward)
            return forward, [forward.index(axis) for axis in range(3)]
        return super().determine_transpose()

    def get_plans_for_configuration(
        self,
        spacing: Any,
        median_shape: Any,
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict[str, Any],
    ) -> dict[str, Any]:
        """Plan one configuration; nothing for nnU-Net's 2-D one."""
        if len(spacing) == 2:
            return {}
        network, batch_size, recipe, decisions = self._choose(spacing, median_shape)
        kwargs = network.to_json()
        del kwargs["num_classes"]  # nnU-Net's label manager counts the outputs
        schemes, masked = self.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        data_fn, data_kwargs, seg_fn, seg_kwargs = self.determine_resampling()
        probabilities_fn, probabilities_kwargs = self.determine_segmentation_softmax_export_fn()
        return {
            "data_identifier": data_identifier,
            "preprocessor_name": self.preprocessor_name,
            "batch_size": batch_size,
            "patch_size": list(network.patch_size),
            "median_image_size_in_voxels": median_shape,
            "spacing": spacing,
            "normalization_schemes": schemes,
            "use_mask_for_norm": masked,
            "resampling_fn_data": data_fn.__name__,
            "resampling_fn_seg": seg_fn.__name__,
            "resampling_fn_data_kwargs": data_kwargs,
            "resampling_fn_seg_kwargs": seg_kwargs,
            "resampling_fn_probabilities": probabilities_fn.__name__,
            "resampling_fn_probabilities_kwargs": probabilities_kwargs,
            "architecture": {
                "network_class_name": NETWORK_CLASS_NAME,
                "arch_kwargs": kwargs,
                "_kw_requires_import": [],
            },
            RECIPE_KEY: recipe.model_dump(mode="json"),
            DECISIONS_KEY: [decision.to_json() for decision in (*self._asked(), *decisions)],
            **({} if self.given is None else {"overlap": self.given.overlap}),
        }

    def _asked(self) -> tuple[Decision, ...]:
        if not self.options:
            return ()
        return (Decision(what=OPTIONS, value=self.options, why="given to veloxseg plan"),)

    def _choose(
        self, spacing: Any, median_shape: Any
    ) -> tuple[NetworkConfig, int, TrainingRecipe, tuple[Decision, ...]]:
        if self.given is not None:
            given = self.given
            return given.network, given.batch_size, given.recipe, self.given_decisions
        forward, _ = self.determine_transpose()
        structure = np.asarray(self._structures().percentile_10_mm)[forward] / np.asarray(spacing)
        names = self.dataset_json.get("channel_names") or self.dataset_json["modality"]
        recipe, training = decide_training(self.target, teachers=self.teachers)
        plan = plan_network(
            DatasetNumbers(
                median_shape=[float(extent) for extent in median_shape],
                spacing=[float(step) for step in spacing],
                structure=[float(extent) for extent in structure],
                channel_names=list(names.values()),
                num_classes=self._label_manager().num_segmentation_heads,
                num_cases=len(self.dataset),
            ),
            target=self.target,
            size=self.size,
            teachers=recipe.teachers != "off",
        )
        decisions = (*self._nnunet_decisions(spacing), *plan.decisions, *training)
        return plan.network, plan.batch_size, recipe, decisions

    def _nnunet_decisions(self, spacing: Any) -> tuple[Decision, ...]:
        """What nnU-Net's own rules have chosen."""
        schemes, _ = self.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        given = self.overwrite_target_spacing is not None
        return (
            Decision(
                what="spacing",
                value=" x ".join(f"{step:.4g}" for step in spacing) + " mm",
                why="given"
                if given
                else "nnU-Net's: the median of the cases, finer along an axis of thick slices",
            ),
            Decision(
                what="normalisation",
                value=", ".join(schemes),
                why="nnU-Net's, by the channels' names",
            ),
        )

    def _structures(self) -> StructureSizes:
        """From the fingerprint; measured where nnU-Net's own command made it."""
        if STRUCTURES_KEY in self.dataset_fingerprint:
            return StructureSizes.from_json(self.dataset_fingerprint[STRUCTURES_KEY])
        values = [value for value in self._label_manager().all_labels if value != 0]
        labels = [Path(case["label"]) for case in self.dataset.values()]
        turned = self.determine_reader_writer().__name__ == TURNING_READER
        return measure_structures(labels, values, turned=turned)

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Write the plans file, whole or not at all, with our configuration alone.

        Raises:
            PlanError: nnU-Net found the dataset two-dimensional.
        """
        if CONFIGURATION not in plans["configurations"]:
            raise PlanError(
                f"{self.dataset_name}: its median case has a single slice. VeloxSeg needs 3-D "
                "volumes; use nnU-Net's 2d configuration for single slices."
            )
        del plans["configurations"]["2d"]
        recursive_fix_for_json_export(plans)
        folder = Path(str(nnUNet_preprocessed)) / self.dataset_name
        write_json(folder / f"{self.plans_identifier}.json", plans)

    def _label_manager(self) -> Any:
        manager = get_labelmanager_class_from_plans({"label_manager": "LabelManager"})
        return manager(self.dataset_json["labels"], self.dataset_json.get("regions_class_order"))
