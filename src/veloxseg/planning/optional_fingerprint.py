"""nnU-Net's dataset fingerprint where cases may lack channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from veloxseg.atomic import write_json
from veloxseg.datasets.cases import Case, find_cases
from veloxseg.datasets.description import read_description
from veloxseg.errors import PlanError
from veloxseg.workers import results_of


@dataclass(frozen=True, kw_only=True)
class _Analysis:
    """What nnU-Net's extractor finds in a case, with intensities by the channel's number."""

    shape_after_crop: tuple[int, ...]
    spacing: tuple[float, ...]
    intensities: dict[int, npt.NDArray[Any]]
    relative_size: float


class OptionalFingerprintExtractor(DatasetFingerprintExtractor):  # type: ignore[misc]
    """Extracts nnU-Net's fingerprint; a channel's statistics are of the cases that have it.

    Where all cases have all channels, the fingerprint is nnU-Net's to the bit.
    """

    def run(self, overwrite_existing: bool = False) -> dict[str, Any]:
        """Write ``dataset_fingerprint.json``, and return its content.

        Raises:
            DatasetError: a process was killed.
            PlanError: no training case has foreground in a channel.
        """
        folder = Path(self.input_folder)
        description = read_description(folder)
        cases = find_cases(folder, description)
        first_image = str(cases[0].files[0])
        analyse = _Analyser(
            reader=determine_reader_writer_from_dataset_json(self.dataset_json, first_image),
            num_samples=int(self.num_foreground_voxels_for_intensitystats // len(cases)),
        )
        analyses = results_of(analyse, cases, num_workers=self.num_processes)
        fingerprint = {
            "spacings": [analysis.spacing for analysis in analyses],
            "shapes_after_crop": [analysis.shape_after_crop for analysis in analyses],
            "foreground_intensity_properties_per_channel": {
                str(index): _statistics(index, channel, analyses)
                for index, channel in enumerate(description.channels)
            },
            "median_relative_size_after_cropping": np.median(
                [analysis.relative_size for analysis in analyses], 0
            ),
        }
        recursive_fix_for_json_export(fingerprint)
        file = Path(str(nnUNet_preprocessed)) / self.dataset_name / "dataset_fingerprint.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        if overwrite_existing or not file.is_file():
            write_json(file, fingerprint)
        return fingerprint


@dataclass(frozen=True, kw_only=True)
class _Analyser:
    """Runs nnU-Net's analysis on the channels that a case has."""

    reader: type[BaseReaderWriter]
    num_samples: int

    def __call__(self, case: Case) -> _Analysis:
        files = [str(path) for path in case.present.values()]
        shape, spacing, intensities, _, relative_size = DatasetFingerprintExtractor.analyze_case(
            files, str(case.label), self.reader, self.num_samples
        )
        return _Analysis(
            shape_after_crop=shape,
            spacing=spacing,
            intensities=dict(zip(case.present, intensities, strict=True)),
            relative_size=relative_size,
        )


def _statistics(index: int, channel: str, analyses: Sequence[_Analysis]) -> dict[str, float]:
    found = [analysis.intensities[index] for analysis in analyses if index in analysis.intensities]
    values = np.concatenate(found) if found else np.empty(0)
    if values.size == 0:
        raise PlanError(
            f"{len(found)} training cases have a {channel} image, none of them with foreground. "
            "Expected one at least, to learn its intensities from. Add it, or leave the channel "
            "out of dataset.json."
        )
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    return {
        "mean": float(np.mean(values)),
        "median": float(median),
        "std": float(np.std(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }
