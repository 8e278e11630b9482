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
from veloxseg.network.plans import NETWORK_CLASS_NAME
from veloxseg.planning.files import CONFIGURATION, PLANS_NAME
from veloxseg.planning.rules import DEFAULT_MEMORY_GB, MemoryTarget, modality_groups, plan_network
from veloxseg.planning.structures import smallest_structure_mm


class VeloxSegPlanner(ExperimentPlanner):  # type: ignore[misc]
    """Plans a VeloxSeg network for a dataset; spacing, normalisation and resampling are nnU-Net's.

    Writes one configuration, ``3d_fullres``.

    Args:
        dataset_name_or_id: An nnU-Net dataset whose fingerprint is extracted.
        gpu_memory_target_in_gb: Memory of a training batch of two.
        overwrite_target_spacing: mm, (Z, Y, X) before transposition.
    """

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = DEFAULT_MEMORY_GB,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = PLANS_NAME,
        overwrite_target_spacing: list[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self.lowres_creation_threshold = 0.0  # no cascade
        self.structure_mm: tuple[float, float, float] | None = None

    def plan_experiment(self) -> dict[str, Any]:
        """Plan, and write the plans file.

        Raises:
            DatasetError: the labels are missing.
            PlanError: the dataset is not three-dimensional.
        """
        labels = [Path(case["label"]) for case in self.dataset.values()]
        if not labels:
            raise DatasetError(f"{self.raw_dataset_folder}: no training cases to plan for.")
        values = [v for v in self._label_manager().all_labels if v != 0]
        self.structure_mm = smallest_structure_mm(labels, values)
        return super().plan_experiment()  # type: ignore[no-any-return]

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
        assert self.structure_mm is not None
        forward, _ = self.determine_transpose()
        structure = np.asarray(self.structure_mm)[forward] / np.asarray(spacing)
        channel_names = self.dataset_json.get("channel_names") or self.dataset_json["modality"]
        network = plan_network(
            median_shape=[float(extent) for extent in median_shape],
            spacing_zyx=[float(s) for s in spacing],
            structure_zyx=[float(s) for s in structure],
            in_channels=modality_groups(list(channel_names.values())),
            num_classes=self._label_manager().num_segmentation_heads,
            target=MemoryTarget.from_gb(self.UNet_vram_target_GB),
        )
        kwargs = network.to_json()
        del kwargs["num_classes"]  # nnU-Net's label manager counts the outputs
        schemes, masked = self.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        data_fn, data_kwargs, seg_fn, seg_kwargs = self.determine_resampling()
        probabilities_fn, probabilities_kwargs = self.determine_segmentation_softmax_export_fn()
        return {
            "data_identifier": data_identifier,
            "preprocessor_name": self.preprocessor_name,
            "batch_size": self.UNet_min_batch_size,
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
        }

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
