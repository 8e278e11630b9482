"""From a folder of images, named by a pattern, to nnU-Net's raw format."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from veloxseg.datasets.cases import Part
from veloxseg.datasets.converters.case_files import CaseFiles
from veloxseg.datasets.converters.case_writing import LABEL
from veloxseg.datasets.converters.pairing import pair_by_pattern
from veloxseg.datasets.converters.patterns import patient_of
from veloxseg.datasets.converters.preparing import registration_settings, registration_step
from veloxseg.datasets.converters.writing import (
    Alignment,
    begin_dataset,
    describe_dataset,
    finish_dataset,
    is_written,
    write_cases,
)
from veloxseg.datasets.labels import integer_labels
from veloxseg.datasets.problems import describe_two_grids
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.reading import read_grid, read_volume
from veloxseg.volumes.volume import same_grid


def convert_folder(
    source: Path,
    dataset: str,
    *,
    workspace: Workspace,
    channels: Mapping[str, str],
    label: str | None,
    reference: str | None = None,
    label_names: Mapping[str, int] | None = None,
    optional: Sequence[str] = (),
    register: Sequence[str] = (),
    affine: bool = False,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Convert images of any names to a dataset in nnU-Net's raw format.

    Files are paired by the case's name. Images become float32, labels uint8, all on one grid.
    Run again after an interruption, it goes on where it stopped.

    Args:
        source: Folder with the images.
        dataset: ``DatasetNNN_Name``.
        workspace: Where nnU-Net's folders are.
        channels: Name of each channel, in order, to the pattern of its files below ``source``:
            ``{case}`` stands for the case's name, ``*`` for any characters but ``/``; with
            ``{patient}``, cases are named ``PATIENT_CASE`` and the patient is recorded.
        label: Pattern of the label files; None converts to test images (``imagesTs``).
        reference: Channel whose grid all images of a case are put on: linearly, the label by
            nearest neighbour, the image's minimum and label 0 outside the field of view. None: all
            images of a case share one grid already.
        label_names: Name to value, consecutive from 1; None names the values found ``label_1``, ...
        optional: Channels whose file a case may lack; every case has one channel at least.
        register: Channels to register to the reference, with which the label stays.
        affine: Whether registration allows for scaling and shear, too.
        num_workers: Processes that read and write cases.
        progress: Called after each case with the number done and the number of all.

    Returns:
        The dataset's folder.

    Raises:
        DatasetError: files lack their counterparts, a pattern, a label value or voxel is wrong, or
            the dataset exists with other settings.
        GeometryError: images of a case lie on different grids and no reference is given.
        ImageReadError: a file cannot be read.
        OSError: a file cannot be written.
    """
    name = workspace.new_dataset_name(dataset)
    _check_arguments(channels, reference, optional)
    patterns = dict(channels) | ({} if label is None else {LABEL: label})
    files = pair_by_pattern(source, patterns, optional=optional)
    if label is not None and label_names is None:
        label_names = _name_values_found(files)
    description = describe_dataset(list(channels), label_names, optional=optional)
    folder = workspace.raw / name
    part: Part = "Ts" if label is None else "Tr"
    settings = {
        "source": str(source.resolve()),
        "channels": [f"{channel}={pattern}" for channel, pattern in channels.items()],
        "label": label,
        "reference": reference,
        "labels": description.labels,
    }
    if optional:
        settings["optional"] = list(optional)
    settings |= registration_settings(register, affine=affine)
    prepare = registration_step(
        folder,
        part=part,
        channels=list(channels),
        register=register,
        reference=reference,
        affine=affine,
    )

    def report(done: int) -> None:
        if progress is not None:
            progress(done, len(files))

    if reference is None:
        for case, paths in files.items():
            if not is_written(folder, case, description, part=part):
                _require_one_grid(case, paths)
    begin_dataset(folder, description, part=part, settings=settings)
    write_cases(
        folder,
        list(files),
        CaseFiles(
            source=source,
            files=files,
            patients=_patients(source, files, patterns),
            channels=list(channels),
        ),
        description=description,
        part=part,
        alignment=Alignment(reference=reference),
        prepare=prepare,
        num_workers=num_workers,
        progress=report,
    )
    finish_dataset(folder, description, part=part)
    return folder


def _check_arguments(
    channels: Mapping[str, str], reference: str | None, optional: Sequence[str]
) -> None:
    if not channels or LABEL in channels:
        raise DatasetError(
            f"The channels are {', '.join(channels) or 'none'}. Expected one or more, "
            f"none of them named '{LABEL}'. Give each as NAME=PATTERN."
        )
    for what, names in (("reference", [reference]), ("optional channel", optional)):
        for name in names:
            if name is not None and name not in channels:
                raise DatasetError(
                    f"The {what} is '{name}'. Expected one of the channels {', '.join(channels)}."
                )
    if reference in optional:
        raise DatasetError(
            f"The reference {reference} is optional. Expected a channel that every case has, since "
            "its grid is taken. Choose another reference."
        )


def _patients(
    source: Path, files: Mapping[str, Mapping[str, Path]], patterns: Mapping[str, str]
) -> dict[str, str | None]:
    patients: dict[str, str | None] = {}
    for case, paths in files.items():
        part, path = next(iter(paths.items()))
        patients[case] = patient_of(source, path, patterns[part])
    return patients


def _require_one_grid(case: str, paths: Mapping[str, Path]) -> None:
    """Compare headers before anything is written, so that a reference can still be chosen."""
    grids = [(part, read_grid(path)) for part, path in paths.items()]
    first_part, first = grids[0]
    for part, grid in grids[1:]:
        if not same_grid(first, grid):
            raise GeometryError(describe_two_grids(case, first_part, first, part, grid))


def _name_values_found(files: Mapping[str, Mapping[str, Path]]) -> dict[str, int]:
    """Read every label before anything is written, so that a gap is found at once."""
    values: set[int] = set()
    for case, paths in files.items():
        data = integer_labels(read_volume(paths[LABEL]).data, where=f"Case {case}: the label")
        values |= {int(value) for value in np.unique(data)}
    found = sorted(values - {0})
    if found != list(range(1, len(found) + 1)):
        raise DatasetError(
            f"The label files hold the values {sorted(values)}. Expected consecutive ones from 0. "
            "Name all values with --labels, including those that do not occur, "
            "or renumber the label files."
        )
    return {f"label_{value}": value for value in found}
