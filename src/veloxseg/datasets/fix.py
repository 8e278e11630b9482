"""A mended copy of a dataset: what is safe is mended, what is not is left out and said."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json, write_json
from veloxseg.datasets.check import CheckReport
from veloxseg.datasets.checking.grids import NEARLY_EQUAL_VOXELS
from veloxseg.datasets.converters.manifest import record_path, settings_path
from veloxseg.datasets.description import FILE_NAME, read_description
from veloxseg.datasets.fixing.choosing import CaseToWrite, FileToWrite, LeftOut, choose_cases
from veloxseg.datasets.fixing.writing import WriteCase, take_over
from veloxseg.datasets.labels import INTEGER_TOLERANCE
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError
from veloxseg.volumes.nifti_grid import SHEAR_TOLERANCE_VOXELS
from veloxseg.workers import results_of

RECORD = "mending.json"
"""What was done to each file, in the new dataset's folder; written before the first image."""


@dataclass(frozen=True, kw_only=True)
class FixReport:
    """What was done to make a mended copy of a dataset.

    Attributes:
        source: The dataset's folder, which is not touched.
        folder: The new dataset's folder.
        cases: The cases that were taken, with what was mended in each file.
        left_out: The cases that were not.
        num_training_before: What dataset.json said; the new one says how many there are.
    """

    source: Path
    folder: Path
    cases: tuple[CaseToWrite, ...]
    left_out: tuple[LeftOut, ...]
    num_training_before: int

    @property
    def mended(self) -> list[FileToWrite]:
        """The files that are not what they were."""
        return [file for case in self.cases for file in case.files if file.mends]

    @property
    def num_training(self) -> int:
        """Number of training cases in the new dataset."""
        return sum(case.part == "Tr" for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """The record: the same for the same files, without times or the new folder's place."""
        return {
            "source": str(self.source),
            "tolerances": {
                "grids_nearly_equal_voxels": NEARLY_EQUAL_VOXELS,
                "shear_voxels": SHEAR_TOLERANCE_VOXELS,
                "label_integer": INTEGER_TOLERANCE,
            },
            "num_training": {"before": self.num_training_before, "now": self.num_training},
            "files": {file.name: _file_to_json(file) for case in self.cases for file in case.files},
            "left_out": [
                {"case": left.case, "part": left.part, "reasons": list(left.reasons)}
                for left in self.left_out
            ],
        }


def fix_dataset(
    report: CheckReport,
    dataset: str,
    *,
    workspace: Workspace,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FixReport:
    """Write a copy of a checked dataset in which everything is mended that can be mended safely.

    Headers: axes are made perpendicular, qform and sform alike, and a channel or label that misses
    the first channel's grid by ``NEARLY_EQUAL_VOXELS`` at most takes its header over. Labels stored
    as floats become integers. numTraining is counted. No voxel is resampled. Labels with nothing to
    mend are copied; such images are hard links to the originals, copies on another disk. A case
    with an error that cannot be mended so is left out.

    Run again after an interruption, it goes on where it stopped; run again after that, it changes
    nothing.

    Args:
        report: What :func:`veloxseg.datasets.check.check_dataset` found.
        dataset: Name of the new dataset, with a free number: ``Dataset101_Mended``.
        workspace: Where nnU-Net's folders are.
        num_workers: Processes that write cases, as for ``check_dataset``.
        progress: Called after each case with the number done and the number of all.

    Raises:
        DatasetError: dataset.json is broken, no training case can be taken, or the new folder holds
            something else, such as a copy of files that have changed since.
        OSError: a file cannot be written. Cases written before stay; run again to resume.
    """
    folder = workspace.raw / workspace.new_dataset_name(dataset)
    _require_another_folder(report.folder, folder)
    description = read_description(report.folder)
    cases, left_out = choose_cases(report, description)
    fix = FixReport(
        source=report.folder,
        folder=folder,
        cases=tuple(cases),
        left_out=tuple(left_out),
        num_training_before=description.num_training,
    )
    if not fix.num_training:
        reasons = "\n".join(f"  {left.reasons[0]}" for left in left_out[:3])
        raise DatasetError(
            f"{report.folder}: no training case can be taken over, {len(left_out)} were left out."
            f"{chr(10) if reasons else ''}{reasons}\nMend the files by hand, or convert them again."
        )
    _begin(fix)
    results_of(WriteCase(folder=folder), cases, num_workers=num_workers, progress=progress)
    _take_conversion_over(fix)
    _write_description(fix)
    return fix


def _require_another_folder(source: Path, folder: Path) -> None:
    if folder.resolve() == source.resolve():
        raise DatasetError(
            f"{source}: the mended copy would replace the dataset. Nothing is mended in place. "
            "Give a name with a free number: --fix Dataset101_Mended"
        )


def _begin(fix: FixReport) -> None:
    """Write the record, or see that the one there is of the same making."""
    record = fix.folder / RECORD
    remedy = "Remove the folder, or give another name with a free number."
    if not record.is_file():
        if fix.folder.is_dir() and any(fix.folder.iterdir()):
            raise DatasetError(
                f"{fix.folder}: it is there and no mended copy. Expected a free name. {remedy}"
            )
        write_json(record, fix.to_json())
    elif read_json(record) != json.loads(json.dumps(fix.to_json())):
        raise DatasetError(
            f"{record}: the mended copy was made of other files, or of {fix.source} before it "
            f"changed. {remedy}"
        )
    for left_behind in fix.folder.glob("*/.*.partial.*"):  # by a run that was killed
        left_behind.unlink()


def _take_conversion_over(fix: FixReport) -> None:
    """Keep what a converter has written of each case: its patient and its sources."""
    for case in fix.cases:
        source = record_path(fix.source, case.name, part=case.part)
        target = record_path(fix.folder, case.name, part=case.part)
        if source.is_file() and not target.is_file():
            take_over(target, source, as_link=False)
    for part in sorted({case.part for case in fix.cases}):
        source, target = settings_path(fix.source, part), settings_path(fix.folder, part)
        if source.is_file() and not target.is_file():
            take_over(target, source, as_link=False)


def _write_description(fix: FixReport) -> None:
    """Write dataset.json, last of all, as it was but for the number of cases."""
    content = read_json(fix.source / FILE_NAME) | {"numTraining": fix.num_training}
    content.pop("dataset", None)  # files named one by one lie where nnU-Net looks for them now
    path = fix.folder / FILE_NAME
    if not path.is_file() or read_json(path) != content:
        write_json(path, content)


def _file_to_json(file: FileToWrite) -> dict[str, Any]:
    state = file.source.stat()
    return {
        "source": str(file.source),
        "num_bytes": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "mended": list(file.mends),
        "done": _or_taken_over(file.done),
    }


def _or_taken_over(done: Sequence[str]) -> list[str]:
    return list(done) or ["taken over as it is"]
