"""From a task of the Medical Segmentation Decathlon to nnU-Net's raw format."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veloxseg.datasets.cases import Part
from veloxseg.datasets.converters.case_writing import LABEL
from veloxseg.datasets.converters.source_case import SourceCase, tell_source
from veloxseg.datasets.converters.writing import (
    begin_dataset,
    describe_dataset,
    finish_dataset,
    write_cases,
)
from veloxseg.datasets.problems import Problem, raise_problems
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError
from veloxseg.validation import describe_faults
from veloxseg.volumes.reading import read_channels, read_volume

_Number = Annotated[str, Field(pattern=r"^[0-9]+$")]
_KEPT = ("name", "description", "reference", "licence", "release")


def convert_msd(
    source: Path,
    dataset: str | None = None,
    *,
    workspace: Workspace,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Convert a task of the Medical Segmentation Decathlon, its test images included.

    The fourth axis of an image holds the channels that its dataset.json names under ``modality``.
    Test images may be left out all together. Run again after an interruption, it goes on where it
    stopped.

    Args:
        source: The task's folder, such as ``Task04_Hippocampus``.
        dataset: ``DatasetNNN_Name``; None takes it from the task: ``Dataset004_Hippocampus``.
        workspace: Where nnU-Net's folders are.
        num_workers: Processes that read and write cases.
        progress: Called after each case with the number done and the number of all.

    Returns:
        The dataset's folder.

    Raises:
        DatasetError: dataset.json is missing or wrong, a file it names is missing, an image has
            another number of channels, or the dataset exists with other settings.
        GeometryError: a label does not lie on its image's grid.
        ImageReadError: a file cannot be read.
        OSError: a file cannot be written.
    """
    task = _read_task(source)
    name = workspace.new_dataset_name(dataset or _default_name(source))
    channels = [task.modality[key] for key in sorted(task.modality, key=int)]
    label_names = {
        "background" if int(value) == 0 else label: int(value)
        for value, label in task.labels.items()
    }
    kept = task.model_extra or {}
    extra = {key: kept[key] for key in _KEPT if key in kept}
    description = describe_dataset(channels, label_names, **extra)
    parts = _find_files(source, task)
    folder = workspace.raw / name
    total = sum(len(cases) for cases in parts.values())
    before = 0

    for part, cases in parts.items():

        def report(done: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        settings = {"source": str(source.resolve()), "channels": channels}
        begin_dataset(folder, description, part=part, settings=settings)
        write_cases(
            folder,
            list(cases),
            _StackedCases(source=source, files=cases, channels=channels),
            description=description,
            part=part,
            num_workers=num_workers,
            progress=report,
        )
        before += len(cases)
    finish_dataset(folder, description, part="Tr")
    return folder


@dataclass(frozen=True, kw_only=True)
class _StackedCases:
    """Reads a case whose channels lie one behind the other in one file."""

    source: Path
    files: Mapping[str, tuple[Path, Path | None]]
    channels: Sequence[str]

    def __call__(self, case: str) -> SourceCase:
        image, label = self.files[case]
        volumes = read_channels(image)
        if len(volumes) != len(self.channels):
            raise DatasetError(
                f"Case {case}: {image} has {len(volumes)} channels. Expected "
                f"{len(self.channels)}: {', '.join(self.channels)}, as its dataset.json says."
            )
        paths = dict.fromkeys(self.channels, image) | ({} if label is None else {LABEL: label})
        return SourceCase(
            images=volumes,
            label=None if label is None else read_volume(label),
            sources={part: tell_source(path, self.source) for part, path in paths.items()},
        )


class _Pair(BaseModel):
    model_config = ConfigDict(frozen=True)

    image: str
    label: str


class _Image(BaseModel):
    model_config = ConfigDict(frozen=True)

    image: str


class _Task(BaseModel):
    """What is needed of a task's dataset.json; other keys are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    modality: dict[_Number, str] = Field(min_length=1)
    labels: dict[_Number, str] = Field(min_length=1)
    training: list[_Pair] = Field(min_length=1)
    test: list[str | _Image] = []


def _read_task(source: Path) -> _Task:
    path = source / "dataset.json"
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such file. Expected a task of the Medical Segmentation Decathlon, such as "
            "Task04_Hippocampus with its dataset.json. Unpack the download and name that folder."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not JSON ({error}). Download it again.") from error
    try:
        return _Task.model_validate(content)
    except ValidationError as error:
        raise DatasetError(
            f"{path}: not in the Decathlon's form ({describe_faults(error)}). "
            'Expected "modality": {"0": "CT"}, "labels": {"0": "background", ...}, "training": '
            '[{"image": ..., "label": ...}]. A dataset of nnU-Net v2 needs no conversion.'
        ) from error


def _default_name(source: Path) -> str:
    match = re.fullmatch(r"Task(\d+)_(\w+)", source.resolve().name)
    if match is None:
        raise DatasetError(
            f"{source}: the folder's name gives no dataset name. Expected TaskNN_Name. "
            "Name the dataset yourself: DatasetNNN_Name."
        )
    return f"Dataset{int(match[1]):03d}_{match[2]}"


def _find_files(source: Path, task: _Task) -> dict[Part, dict[str, tuple[Path, Path | None]]]:
    """Part -> case name -> its image and, for training, its label."""
    training: list[tuple[str, str | None]] = [(pair.image, pair.label) for pair in task.training]
    test: list[tuple[str, str | None]] = [
        (entry if isinstance(entry, str) else entry.image, None) for entry in task.test
    ]
    problems = []
    if not any((source / image).is_file() for image, _ in test):
        test = []
    parts: dict[Part, dict[str, tuple[Path, Path | None]]] = {"Tr": {}}
    if test:
        parts["Ts"] = {}
    for part, entries in zip(parts, (training, test), strict=False):
        for image, label in entries:
            case = Path(image).name.removesuffix(".gz").removesuffix(".nii")
            if case.startswith("."):  # macOS leaves such a file beside every file
                continue
            if case in parts[part]:
                problems.append(f"dataset.json: names the case {case} twice.")
            paths = (source / image, None if label is None else source / label)
            problems += [
                f"Case {case}: no file {path}. Expected it, since dataset.json names it."
                for path in paths
                if path is not None and not path.is_file()
            ]
            parts[part][case] = paths
    raise_problems(
        str(source),
        [
            Problem(case=None, severity="error", message=f"{message} Unpack the download again.")
            for message in problems
        ],
    )
    return parts
