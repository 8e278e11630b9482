"""The cases of a dataset and their files, in nnU-Net's naming."""

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from veloxseg.datasets.description import DatasetDescription
from veloxseg.datasets.problems import Problem, raise_problems
from veloxseg.errors import DatasetError

Part = Literal["Tr", "Ts"]
"""Training cases, or test cases, whose labels may be absent."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case of a dataset.

    Attributes:
        name: The case's name: its files' without channel number and ending.
        images: One file a channel, in the channels' order; None for an optional channel that the
            case lacks. One at least is a file.
        label: The label file, None if there is none.
    """

    name: str
    images: tuple[Path | None, ...]
    label: Path | None

    @property
    def present(self) -> dict[int, Path]:
        """Number of each channel the case has, from 0, to its file, in the channels' order."""
        return {index: path for index, path in enumerate(self.images) if path is not None}

    @property
    def absent(self) -> tuple[int, ...]:
        """Numbers of the channels that the case lacks, in rising order."""
        return tuple(index for index, path in enumerate(self.images) if path is None)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case that are there, the label last."""
        images = tuple(self.present.values())
        return images if self.label is None else (*images, self.label)


def find_cases(
    dataset_folder: Path, description: DatasetDescription, *, part: Part = "Tr"
) -> list[Case]:
    """Find the cases of a dataset: ``imagesTr/CASE_0000.nii.gz`` with ``labelsTr/CASE.nii.gz``.

    The file of an optional channel may lack. Where dataset.json names the files itself (nnU-Net's
    key ``dataset``), those are taken; there, no channel can be left out.

    Returns:
        The cases in the order of their names.

    Raises:
        DatasetError: the folder is absent or empty, or files lack their counterparts; all of them
            are reported at once.
    """
    cases, problems = pair_files(dataset_folder, description, part=part)
    raise_problems(str(dataset_folder), problems)
    return cases


def pair_files(
    dataset_folder: Path, description: DatasetDescription, *, part: Part = "Tr"
) -> tuple[list[Case], list[Problem]]:
    """Pair images with labels by name.

    Returns:
        The complete cases in the order of their names, and what is wrong with the others.
    """
    listed = (description.model_extra or {}).get("dataset")
    if listed is not None and part == "Tr":
        return _listed_files(dataset_folder, listed, description)
    images = dataset_folder / f"images{part}"
    labels = dataset_folder / f"labels{part}"
    if not images.is_dir():
        return [], [_problem(None, f"{images}: no such folder. Expected the images. Add it")]
    image_files, problems = _images_by_case(images, description)
    label_files = _labels_by_case(labels, description.file_ending)
    if not image_files and not problems and not label_files:
        return [], [_problem(None, _describe_empty(images, description.file_ending))]
    cases = []
    for name in sorted(image_files.keys() | label_files.keys()):
        found = image_files.get(name, {})
        missing = _missing_files(images, name, set(found), description)
        label = label_files.get(name)
        if label is None and part == "Tr":
            missing.append(
                f"no label {labels / (name + description.file_ending)}. "
                "Add it, or move the images to imagesTs"
            )
        problems += [_problem(name, f"Case {name}: {text}") for text in missing]
        if not missing:
            in_order = tuple(found.get(index) for index in range(description.num_channels))
            cases.append(Case(name=name, images=in_order, label=label))
    return cases, problems


def find_channels(folder: Path, description: DatasetDescription) -> dict[str, tuple[int, ...]]:
    """Find out which channels the cases of a folder of images have.

    Returns:
        Case name to the numbers of its channels, from 0, in rising order.

    Raises:
        DatasetError: there is no such folder, or files are named otherwise.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder. Expected images. Correct the path.")
    found, problems = _images_by_case(folder, description)
    raise_problems(str(folder), problems)
    return {name: tuple(sorted(files)) for name, files in sorted(found.items())}


def _images_by_case(
    folder: Path, description: DatasetDescription
) -> tuple[dict[str, dict[int, Path]], list[Problem]]:
    """Case name -> channel number -> file, and a problem for each file named otherwise."""
    by_case: dict[str, dict[int, Path]] = defaultdict(dict)
    problems = []
    for path in _files(folder, description.file_ending):
        stem = path.name.removesuffix(description.file_ending)
        match = re.fullmatch(r"(.+)_(\d{4})", stem)
        if match is None:
            problems.append(
                _problem(
                    stem,
                    f"{path}: the name has no channel number. Expected {stem}_0000"
                    f"{description.file_ending} for {description.channels[0]}. Rename it",
                )
            )
        elif int(match[2]) >= description.num_channels:
            problems.append(
                _problem(
                    match[1],
                    f"{path}: channel {match[2]}, but dataset.json has {description.num_channels} "
                    f"({', '.join(description.channels)}; the first is 0000). "
                    "Name the channel there or remove the file",
                )
            )
        else:
            by_case[match[1]][int(match[2])] = path
    return by_case, problems


def _labels_by_case(folder: Path, file_ending: str) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.name.removesuffix(file_ending): path for path in _files(folder, file_ending)}


def _missing_files(
    images: Path, name: str, found: set[int], description: DatasetDescription
) -> list[str]:
    if not found:
        return [f"has a label but no image in {images}. Add the images or remove the label"]
    return [
        f"no {channel} image {images / f'{name}_{index:04d}{description.file_ending}'}. "
        f"Expected one file for each channel{_describe_optional(description)}. "
        "Add it, or remove the case"
        for index, channel in enumerate(description.channels)
        if index not in found and index not in description.optional_channels
    ]


def _describe_optional(description: DatasetDescription) -> str:
    if not description.optional:
        return ""
    return f" but the optional ones ({', '.join(description.optional)})"


def _describe_empty(folder: Path, file_ending: str) -> str:
    others = sorted({"".join(path.suffixes[-2:]) for path in _files(folder, "")})
    found = f"files ending in {', '.join(others[:5])}" if others else "no file"
    return (
        f"{folder}: {found}. Expected images CASE_0000{file_ending}. "
        "Convert the images, or correct file_ending in dataset.json"
    )


def _listed_files(
    folder: Path, listed: dict[str, Any], description: DatasetDescription
) -> tuple[list[Case], list[Problem]]:
    """Cases as dataset.json lists them, by paths that are relative to the dataset folder."""
    cases = []
    problems = []
    for name, files in sorted(listed.items()):
        if None in files["images"]:
            problems.append(_problem(name, f"Case {name}: {_describe_null()}"))
            continue
        images = tuple(folder / os.path.expandvars(image) for image in files["images"])
        label = folder / os.path.expandvars(files["label"])
        wrong = [
            f"dataset.json names {path}, which is no file. Correct the path"
            for path in (*images, label)
            if not path.is_file()
        ]
        if len(images) != description.num_channels:
            wrong.append(
                f"dataset.json names {len(images)} images. Expected {description.num_channels}: "
                f"{', '.join(description.channels)}. Correct the list"
            )
        problems += [_problem(name, f"Case {name}: {text}") for text in wrong]
        if not wrong:
            cases.append(Case(name=name, images=images, label=label))
    return cases, problems


def _describe_null() -> str:
    return (
        "dataset.json names null for an image, which nnU-Net cannot read. Expected a file. Where "
        "channels are absent, name the images CASE_0000 in imagesTr instead of listing them"
    )


def _files(folder: Path, file_ending: str) -> list[Path]:
    # Hidden files are half-written ones and what macOS leaves beside every file.
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith(file_ending) and not path.name.startswith(".") and path.is_file()
    )


def _problem(case: str | None, message: str) -> Problem:
    return Problem(case=case, severity="error", message=message + ".")
