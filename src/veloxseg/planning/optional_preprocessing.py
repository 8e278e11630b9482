"""nnU-Net's preprocessing where cases may lack channels."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from veloxseg.atomic import read_json
from veloxseg.datasets.cases import Case, find_cases
from veloxseg.datasets.description import FILE_NAME, read_description
from veloxseg.datasets.workspace import Workspace
from veloxseg.planning.files import CONFIGURATION, preprocessed_folder
from veloxseg.planning.optional import ABSENT_KEY, absent_channels
from veloxseg.workers import results_of


class OptionalPreprocessor(DefaultPreprocessor):  # type: ignore[misc]
    """nnU-Net's preprocessor; an image file may be None, and its channel is zero in the end.

    The crop and the mask of the non-zero region are those of the channels that are there. What is
    absent stands in the properties as ``absent_channels``. Where nothing is absent, arrays are
    nnU-Net's to the bit.
    """

    def run_case(
        self,
        image_files: list[str | None],
        seg_file: str | None,
        plans_manager: Any,
        configuration_manager: Any,
        dataset_json: Any,
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Read a case and preprocess it.

        Returns:
            Image (C, Z, Y, X) float32, labels (1, Z, Y, X) and properties.
        """
        if isinstance(dataset_json, str):
            dataset_json = read_json(Path(dataset_json))
        reader = plans_manager.image_reader_writer_class()
        present = [index for index, file in enumerate(image_files) if file is not None]
        stored, properties = reader.read_images([image_files[index] for index in present])
        data = np.zeros((len(image_files), *stored.shape[1:]), stored.dtype)
        data[present] = stored
        properties[ABSENT_KEY] = [i for i, file in enumerate(image_files) if file is None]
        labels = None if seg_file is None else reader.read_seg(seg_file)[0]
        return self.run_case_npy(
            data, labels, properties, plans_manager, configuration_manager, dataset_json
        )

    def run_case_npy(
        self,
        data: Any,
        seg: Any,
        properties: dict[str, Any],
        plans_manager: Any,
        configuration_manager: Any,
        dataset_json: Any,
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Preprocess a case, of which ``properties`` say what is absent, zero in ``data``."""
        data, seg, properties = super().run_case_npy(
            data, seg, properties, plans_manager, configuration_manager, dataset_json
        )
        data[list(absent_channels(properties))] = 0  # normalisation has moved it
        return data, seg, properties


@dataclass(frozen=True, kw_only=True)
class _CaseSaver:
    """Preprocesses a case into a folder."""

    folder: Path
    plans: dict[str, Any]
    dataset_json: dict[str, Any]

    def __call__(self, case: Case) -> None:
        manager = PlansManager(self.plans)
        OptionalPreprocessor(verbose=False).run_case_save(
            str(self.folder / case.name),
            [None if path is None else str(path) for path in case.images],
            str(case.label),
            manager,
            manager.get_configuration(CONFIGURATION),
            self.dataset_json,
        )


def preprocess_optional(
    name: str, plans: dict[str, Any], *, workspace: Workspace, num_workers: int
) -> None:
    """Preprocess the training cases of a dataset with optional channels.

    Leaves what nnU-Net's own preprocessing leaves: the cases and ``gt_segmentations``.

    Raises:
        DatasetError: cases are incomplete, or a process was killed.
    """
    raw = workspace.raw / name
    description = read_description(raw)
    cases = find_cases(raw, description)
    folder = preprocessed_folder(workspace, name, plans)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    dataset_json = read_json(workspace.preprocessed / name / FILE_NAME)
    save = _CaseSaver(folder=folder, plans=plans, dataset_json=dataset_json)
    results_of(save, cases, num_workers=num_workers)
    references = workspace.preprocessed / name / "gt_segmentations"
    references.mkdir(exist_ok=True)
    for case in cases:
        assert case.label is not None  # training cases have one
        shutil.copy2(case.label, references / f"{case.name}{description.file_ending}")
