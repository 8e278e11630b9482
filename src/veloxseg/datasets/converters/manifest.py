"""What went where: one small file a case, beside the images it tells of.

``conversion_Tr.json`` of a dataset holds the settings of its conversion and
``conversion_Tr/CASE.json`` what was done to a case (``Ts`` for test cases). A case's record is
written last of its files: where it is, the case is whole.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from veloxseg.atomic import write_json
from veloxseg.datasets.cases import Part
from veloxseg.errors import DatasetError
from veloxseg.volumes.volume import Grid


class GridRecord(BaseModel):
    """A grid, as :class:`veloxseg.volumes.volume.Grid` has it: mm, LPS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_zyx: tuple[int, int, int]
    spacing_zyx: tuple[float, float, float]
    origin_xyz: tuple[float, float, float]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, grid: Grid) -> "GridRecord":
        """The record of a grid."""
        return cls(
            size_zyx=grid.size_zyx,
            spacing_zyx=grid.spacing_zyx,
            origin_xyz=grid.origin_xyz,
            direction=grid.direction,
        )


class CaseRecord(BaseModel):
    """What a case was made from and what was done to it.

    Attributes:
        case: The case's name.
        patient: Whom it was taken of; None if unknown.
        sources: Channel name (or ``label``) to the file or files it was read from, relative to the
            source folder that the conversion's settings name.
        written: Channel name (or ``label``) to the file, relative to the dataset's folder. An
            optional channel that the case lacks is not there.
        grid: Where the written images lie.
        resampled: Channel name (or ``label``) to the grid it lay on before, for those that were
            brought to ``grid``: images linearly, the label by the nearest voxel.
        label_volume_ml: For a label that was resampled or cropped: label value to its volume in ml
            before and after.
        notes: What the converter did besides, by subject.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    case: str
    patient: str | None
    sources: dict[str, str | list[str]]
    written: dict[str, str]
    grid: GridRecord
    resampled: dict[str, GridRecord]
    label_volume_ml: dict[str, tuple[float, float]] = {}
    notes: dict[str, Any] = {}


def settings_path(folder: Path, part: Part) -> Path:
    """File of the settings that the cases of a dataset were converted with."""
    return folder / f"conversion_{part}.json"


def records_folder(folder: Path, *, part: Part) -> Path:
    """Folder of the records of all cases, and of what is kept beside them."""
    return folder / f"conversion_{part}"


def record_path(folder: Path, case: str, *, part: Part) -> Path:
    """File of a case's record."""
    return records_folder(folder, part=part) / f"{case}.json"


def write_record(folder: Path, record: CaseRecord, *, part: Part) -> None:
    """Write a case's record, whole or not at all: the same bytes for the same case.

    Raises:
        OSError: the file cannot be written.
    """
    content = record.model_dump(mode="json", exclude_defaults=True)
    write_json(record_path(folder, record.case, part=part), content)


def read_record(path: Path) -> CaseRecord:
    """Read a case's record.

    Raises:
        DatasetError: the file is damaged or was written by another version.
        FileNotFoundError: there is none.
    """
    try:
        return CaseRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DatasetError(
            f"{path}: no record of a converted case ({error.error_count()} faults, the first: "
            f"{error.errors()[0]['msg']}). Remove the file and run the conversion again."
        ) from error


def read_records(folder: Path, *, part: Part = "Tr") -> dict[str, CaseRecord]:
    """The records of all cases of a dataset that a converter has written, by case.

    Returns:
        Case name to its record, in the order of the names; empty for a dataset without records.

    Raises:
        DatasetError: a record is damaged.
    """
    paths = records_folder(folder, part=part).glob("[!.]*.json")
    return {path.stem: read_record(path) for path in sorted(paths, key=lambda path: path.stem)}
