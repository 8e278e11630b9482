"""Writing a dataset in nnU-Net's raw format, case by case and resumable."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from veloxseg.atomic import write_json
from veloxseg.datasets.cases import Part, find_cases
from veloxseg.datasets.converters.aligning import align_images, align_label
from veloxseg.datasets.description import (
    FILE_NAME,
    DatasetDescription,
    read_description,
    validate_description,
)
from veloxseg.errors import DatasetError
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

FILE_ENDING = ".nii.gz"
_UNKNOWN_LABELS = {"background": 0}


@dataclass(frozen=True, kw_only=True)
class SourceCase:
    """The images of one case as they are at the source.

    Attributes:
        images: One volume (Z, Y, X) a channel, each on a grid of its own.
        label: The label's volume, None for a test case.
    """

    images: Sequence[Volume]
    label: Volume | None


def describe_dataset(
    channels: Sequence[str], label_names: Mapping[str, int] | None, **extra: Any
) -> DatasetDescription:
    """Description of a dataset to be written.

    Args:
        channels: Names of the channels in their order.
        label_names: Name to value, ``background`` added if absent; None if unknown.
        extra: Further keys for dataset.json, such as ``licence``.

    Raises:
        DatasetError: the values are not consecutive from 0 (background) and at most 255.
    """
    labels = _UNKNOWN_LABELS | dict(label_names or {})
    values = sorted(labels.values())
    if values != list(range(len(values))) or labels["background"] != 0 or len(values) > 256:
        raise DatasetError(
            f"The labels are {labels}. Expected background = 0 and consecutive values from 1 on, "
            "255 at most, one for each name. Correct --labels, and renumber the label files if "
            "their values have gaps."
        )
    content = {
        "channel_names": {str(index): channel for index, channel in enumerate(channels)},
        "labels": dict(sorted(labels.items(), key=lambda item: item[1])),
        "numTraining": 0,
        "file_ending": FILE_ENDING,
    }
    return validate_description(extra | content, where="The dataset to be written")


def begin_dataset(
    folder: Path, description: DatasetDescription, *, part: Part, settings: Mapping[str, Any]
) -> None:
    """Start or resume: refuse to mix cases of different making in one dataset.

    ``settings`` (JSON values: source, channels, ...) are kept as ``conversion_Tr.json`` or
    ``conversion_Ts.json``, so that a dataset says what it was made from. They may be corrected
    until the first case is written; ``labels`` later too, since they only name what is there.

    Raises:
        DatasetError: cases were written with other settings, or dataset.json has other channels
            or labels.
    """
    if (folder / FILE_NAME).is_file():
        _require_same(folder, read_description(folder), description)
    record = folder / f"conversion_{part}.json"
    before = json.loads(record.read_text()) if record.is_file() else {}
    changed = [key for key in settings if before.get(key) != settings[key]]
    if before and _has_files(folder, part) and not _only_names_more(changed, before, settings):
        raise DatasetError(
            f"{record}: the conversion was begun with other settings: "
            + "; ".join(f"{key} was {before.get(key)}, is {settings[key]}" for key in changed)
            + ". Use the same ones to resume, another dataset number for another dataset, or "
            "remove the folder to start anew."
        )
    if changed:
        write_json(record, dict(settings))


def write_cases(
    folder: Path,
    names: Sequence[str],
    load: Callable[[str], SourceCase],
    *,
    description: DatasetDescription,
    part: Part,
    reference: str | None,
    progress: Callable[[int], None],
) -> None:
    """Write the cases that are not there yet.

    Args:
        folder: The dataset's folder.
        names: The cases.
        load: Reads a case by its name.
        description: Channels and labels that the cases must have.
        part: ``Tr`` or ``Ts``.
        reference: Channel whose grid all images of a case are put on; None: they share one.
        progress: Called after each case with the number done.

    Raises:
        ImageReadError, GeometryError, DatasetError: a case cannot be used; it is named.
        OSError: a file cannot be written. Cases written before stay; run again to resume.
    """
    for done, name in enumerate(names, start=1):
        if not is_written(folder, name, description, part=part):
            case = load(name)
            images = align_images(name, description.channels, case.images, reference=reference)
            if case.label is not None:
                label = align_label(
                    name,
                    case.label,
                    images[0],
                    image_name=reference or description.channels[0],
                    resampled=reference is not None,
                )
                _require_named_values(name, label, description)
                write_volume(_label_path(folder, name, part), label)
            for path, image in zip(
                _image_paths(folder, name, description, part), images, strict=True
            ):
                write_volume(path, image)
        progress(done)


def is_written(folder: Path, name: str, description: DatasetDescription, *, part: Part) -> bool:
    """Whether all files of a case are there."""
    wanted = _image_paths(folder, name, description, part)
    if part == "Tr":
        wanted.append(_label_path(folder, name, part))
    return all(path.is_file() for path in wanted)


def finish_dataset(folder: Path, description: DatasetDescription, *, part: Part) -> None:
    """Write dataset.json, last of all; one that is there keeps what a person added.

    Raises:
        DatasetError: the training cases in the folder are not complete.
    """
    existing = read_description(folder) if (folder / FILE_NAME).is_file() else None
    if existing is None or existing.labels == _UNKNOWN_LABELS:
        num_training = existing.num_training if existing is not None else 0
        existing = description.model_copy(update={"num_training": num_training})
    if part == "Tr":
        num_training = len(find_cases(folder, existing))
        existing = existing.model_copy(update={"num_training": num_training})
    write_json(folder / FILE_NAME, existing.to_json())


def _image_paths(
    folder: Path, name: str, description: DatasetDescription, part: Part
) -> list[Path]:
    return [
        folder / f"images{part}" / f"{name}_{index:04d}{FILE_ENDING}"
        for index in range(description.num_channels)
    ]


def _label_path(folder: Path, name: str, part: Part) -> Path:
    return folder / f"labels{part}" / f"{name}{FILE_ENDING}"


def _has_files(folder: Path, part: Part) -> bool:
    """Whether an image or a label was finished; half-written ones are hidden."""
    return any(any((folder / f"{what}{part}").glob("[!.]*")) for what in ("images", "labels"))


def _only_names_more(
    changed: Sequence[str], before: Mapping[str, Any], settings: Mapping[str, Any]
) -> bool:
    """Whether nothing but names of labels changed, and every value named before has one still."""
    if set(changed) - {"labels"}:
        return False
    return not changed or set(before["labels"].values()) <= set(settings["labels"].values())


def _require_same(folder: Path, old: DatasetDescription, new: DatasetDescription) -> None:
    labels_known = _UNKNOWN_LABELS not in (old.labels, new.labels)
    for what, before, now in (
        ("channels", list(old.channels), list(new.channels)),
        ("labels", old.labels, new.labels if labels_known else old.labels),
        ("file ending", old.file_ending, new.file_ending),
    ):
        if before != now:
            raise DatasetError(
                f"{folder / FILE_NAME}: the dataset exists with {what} {before}, but is to be "
                f"written with {now}. Use the same {what}, or another dataset number."
            )


def _require_named_values(case: str, label: Volume, description: DatasetDescription) -> None:
    found = [int(value) for value in np.unique(label.data)]
    unknown = sorted(set(found) - set(description.label_values))
    if unknown:
        raise DatasetError(
            f"Case {case}: the label has values {unknown}, which have no name. "
            f"Expected {description.labels}. Name them (--labels) or correct the label file."
        )
