"""From a folder of images, named by a pattern, to nnU-Net's raw format."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from veloxseg.datasets.cases import Part
from veloxseg.datasets.converters.patterns import match_files
from veloxseg.datasets.converters.writing import (
    SourceCase,
    begin_dataset,
    describe_dataset,
    finish_dataset,
    is_written,
    write_cases,
)
from veloxseg.datasets.labels import integer_labels
from veloxseg.datasets.problems import Problem, describe_two_grids, raise_problems
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.reading import read_grid, read_volume
from veloxseg.volumes.volume import same_grid

_LABEL = "label"


def convert_folder(
    source: Path,
    dataset: str,
    *,
    workspace: Workspace,
    channels: Mapping[str, str],
    label: str | None,
    reference: str | None = None,
    label_names: Mapping[str, int] | None = None,
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
            ``{case}`` stands for the case's name, ``*`` for any characters but ``/``.
        label: Pattern of the label files; None converts to test images (``imagesTs``).
        reference: Channel whose grid all images of a case are put on: linearly, the label by
            nearest neighbour, the image's minimum and label 0 outside the field of view. None: all
            images of a case share one grid already.
        label_names: Name to value, consecutive from 1; None names the values found ``label_1``, ...
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
    _check_channels(channels, reference)
    files = _pair(source, dict(channels) | ({} if label is None else {_LABEL: label}))
    if label is not None and label_names is None:
        label_names = _name_values_found(files)
    description = describe_dataset(list(channels), label_names)
    folder = workspace.raw / name
    part: Part = "Ts" if label is None else "Tr"
    settings = {
        "source": str(source.resolve()),
        "channels": [f"{channel}={pattern}" for channel, pattern in channels.items()],
        "label": label,
        "reference": reference,
        "labels": description.labels,
    }

    def load(case: str) -> SourceCase:
        paths = files[case]
        return SourceCase(
            images=[read_volume(paths[channel]) for channel in channels],
            label=None if label is None else read_volume(paths[_LABEL]),
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
        load,
        description=description,
        part=part,
        reference=reference,
        progress=report,
    )
    finish_dataset(folder, description, part=part)
    return folder


def _check_channels(channels: Mapping[str, str], reference: str | None) -> None:
    if not channels or _LABEL in channels:
        raise DatasetError(
            f"The channels are {', '.join(channels) or 'none'}. Expected one or more, "
            f"none of them named '{_LABEL}'. Give each as NAME=PATTERN."
        )
    if reference is not None and reference not in channels:
        raise DatasetError(
            f"The reference is '{reference}'. Expected one of the channels {', '.join(channels)}."
        )


def _pair(source: Path, patterns: Mapping[str, str]) -> dict[str, dict[str, Path]]:
    """Case name -> channel name (or ``label``) -> its one file."""
    if not source.is_dir():
        raise DatasetError(f"{source}: no such folder. Expected the images. Check the path.")
    found = {part: match_files(source, pattern) for part, pattern in patterns.items()}
    for part, by_case in found.items():
        if not by_case:
            some = sorted(path.name for path in source.iterdir())[:5]
            raise DatasetError(
                f"{source}: no file for {part}, whose pattern is '{patterns[part]}'. "
                f"Found there: {', '.join(some) or 'nothing'}. Correct the pattern."
            )
    names = sorted({case for by_case in found.values() for case in by_case})
    problems = []
    for case in names:
        for part, by_case in found.items():
            paths = by_case.get(case, [])
            if len(paths) != 1:
                names_found = ", ".join(str(path.relative_to(source)) for path in paths)
                problems.append(
                    f"Case {case}: {len(paths)} files for {part} match '{patterns[part]}'"
                    f"{': ' if paths else ''}{names_found}. Expected one. "
                    "Correct the pattern, or add or remove files."
                )
    raise_problems(
        str(source),
        [Problem(case=None, severity="error", message=message) for message in problems],
    )
    return {case: {part: by_case[case][0] for part, by_case in found.items()} for case in names}


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
        data = integer_labels(read_volume(paths[_LABEL]).data, where=f"Case {case}: the label")
        values |= {int(value) for value in np.unique(data)}
    found = sorted(values - {0})
    if found != list(range(1, len(found) + 1)):
        raise DatasetError(
            f"The label files hold the values {sorted(values)}. Expected consecutive ones from 0. "
            "Name all values with --labels, including those that do not occur, "
            "or renumber the label files."
        )
    return {f"label_{value}": value for value in found}
