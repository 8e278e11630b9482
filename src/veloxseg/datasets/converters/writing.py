"""Writing a dataset in nnU-Net's raw format: case by case, in parallel, and resumable.

A converter describes the dataset, begins it, writes its cases, and finishes it. Every file is
written whole or not at all, the record of a case (:mod:`veloxseg.datasets.converters.manifest`)
after its images, and dataset.json last of all: a conversion that was stopped at any moment goes on
where it stopped, and one that was finished changes no file.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json, write_json
from veloxseg.datasets.cases import Part, find_cases
from veloxseg.datasets.converters.aligning import Alignment
from veloxseg.datasets.converters.case_writing import FILE_ENDING, LABEL, CaseWriter, is_written
from veloxseg.datasets.converters.manifest import settings_path
from veloxseg.datasets.converters.source_case import Load, Prepare, SourceCase
from veloxseg.datasets.description import (
    FILE_NAME,
    DatasetDescription,
    read_description,
    validate_description,
)
from veloxseg.errors import DatasetError
from veloxseg.workers import results_of

__all__ = [
    "FILE_ENDING",
    "Alignment",
    "SourceCase",
    "begin_dataset",
    "describe_dataset",
    "finish_dataset",
    "is_written",
    "write_cases",
]

_UNKNOWN_LABELS = {"background": 0}
_FOLDERS = ("images", "labels", "conversion_")


def describe_dataset(
    channels: Sequence[str],
    label_names: Mapping[str, int | Sequence[int]] | None,
    *,
    optional: Sequence[str] = (),
    regions_class_order: Sequence[int] | None = None,
    **extra: Any,
) -> DatasetDescription:
    """Description of a dataset to be written.

    Args:
        channels: Names of the channels in their order.
        label_names: Name to value, or to the values of a region; ``background`` is added if absent;
            None if unknown.
        optional: Names of channels that a case may lack.
        regions_class_order: With regions: the value to write for each, later ones over earlier
            ones, in the order of ``label_names``.
        extra: Further keys for dataset.json, such as ``licence``.

    Raises:
        DatasetError: the values are not consecutive from 0 (background) and at most 255, a name in
            ``optional`` is no channel, or the regions lack their order.
    """
    _require_distinct(channels)
    labels: dict[str, Any] = {**_UNKNOWN_LABELS, **(label_names or {})}
    if regions_class_order is None:
        labels = _in_order(labels)
    content = {
        "channel_names": {str(index): channel for index, channel in enumerate(channels)},
        "labels": labels,
        "numTraining": 0,
        "file_ending": FILE_ENDING,
        "optional": list(optional),
        "regions_class_order": regions_class_order,
    }
    return validate_description(extra | content, where="The dataset to be written")


def begin_dataset(
    folder: Path, description: DatasetDescription, *, part: Part, settings: Mapping[str, Any]
) -> None:
    """Start or resume: refuse to mix cases of different making in one dataset.

    ``settings`` (JSON values: source, channels, ...) are kept as ``conversion_Tr.json`` or
    ``conversion_Ts.json``, so that a dataset says what it was made from. They may be corrected
    until the first case is written; ``labels`` later too, since they only name what is there.
    What a run that was killed has left half-written is removed.

    Raises:
        DatasetError: cases were written with other settings, files are there that no conversion
            has written, or dataset.json has other channels or labels.
    """
    if (folder / FILE_NAME).is_file():
        _require_same(folder, read_description(folder), description)
    record = settings_path(folder, part)
    before = read_json(record) if record.is_file() else {}
    changed = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
    if _has_files(folder, part):
        if not record.is_file():
            raise DatasetError(
                f"{folder}: images{part} or labels{part} hold files that no conversion has "
                f"written: there is no {record.name}. Expected a folder without them, since files "
                "of the same names would be lost. Use another dataset number, or move them away."
            )
        if not _only_names_more(changed, before, settings):
            raise DatasetError(
                f"{record}: the conversion was begun with other settings: "
                + "; ".join(f"{k} was {before.get(k)}, is {settings.get(k)}" for k in changed)
                + ". Use the same ones to resume, another dataset number for another dataset, or "
                "remove the folder to start anew."
            )
    for place in (folder, *(folder / f"{what}{part}" for what in _FOLDERS)):
        for half_written in place.glob(".????????.partial.*"):
            half_written.unlink(missing_ok=True)
    if changed:
        write_json(record, dict(settings))


def write_cases(
    folder: Path,
    names: Sequence[str],
    load: Load,
    *,
    description: DatasetDescription,
    part: Part,
    progress: Callable[[int], None],
    alignment: Alignment | None = None,
    prepare: Prepare | None = None,
    num_workers: int = 1,
) -> None:
    """Write the cases that are not there yet, one at a time in each process.

    Args:
        folder: The dataset's folder.
        names: The cases.
        load: Reads a case by its name. With several workers it must be picklable: a frozen
            dataclass with ``__call__``, not a closure.
        description: Channels and labels that the cases must have.
        part: ``Tr`` or ``Ts``.
        progress: Called with the number of cases that are there, once for those that were there
            before and after each case.
        alignment: The grid that the images of a case are put on; None: they share one.
        prepare: Changes a case before that, as by registration, and adds to its notes what it did;
            picklable, too.
        num_workers: Number of processes; 1 works in this one. They are spawned, so a script that
            asks for several must begin its work below ``if __name__ == "__main__"``.

    Raises:
        ImageReadError, GeometryError, DatasetError: a case cannot be used; it is named.
        OSError: a file cannot be written. Cases written before stay; run again to resume.
    """
    waiting = [name for name in names if not is_written(folder, name, description, part=part)]
    before = len(names) - len(waiting)
    if before:
        progress(before)
    writer = CaseWriter(
        folder=folder,
        description=description,
        part=part,
        load=load,
        prepare=prepare,
        alignment=alignment or Alignment(),
    )
    results_of(
        writer, waiting, num_workers=num_workers, progress=lambda done, _: progress(before + done)
    )


def finish_dataset(folder: Path, description: DatasetDescription, *, part: Part) -> None:
    """Write dataset.json, last of all; one that is there keeps what a person added.

    Raises:
        DatasetError: the training cases in the folder are not complete.
    """
    path = folder / FILE_NAME
    existing = read_description(folder) if path.is_file() else None
    wanted = existing
    if wanted is None or wanted.labels == _UNKNOWN_LABELS:
        num_training = wanted.num_training if wanted is not None else 0
        wanted = description.model_copy(update={"num_training": num_training})
    if part == "Tr":
        num_training = len(find_cases(folder, wanted))
        wanted = wanted.model_copy(update={"num_training": num_training})
    if wanted != existing:
        write_json(path, wanted.to_json())


def _in_order(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Labels without regions in the order of their values, which must have no gap."""
    values = sorted(labels.values())
    if values != list(range(len(values))) or labels["background"] != 0 or len(values) > 256:
        raise DatasetError(
            f"The labels are {dict(labels)}. Expected background = 0 and consecutive values from 1 "
            "on, 255 at most, one for each name. Correct --labels, and renumber the label files if "
            "their values have gaps."
        )
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def _require_distinct(channels: Sequence[str]) -> None:
    if not channels or len(set(channels)) < len(channels) or LABEL in channels:
        raise DatasetError(
            f"The channels are {', '.join(channels) or 'none'}. Expected one or more, each name "
            f"once, none of them '{LABEL}'. Rename them."
        )


def _has_files(folder: Path, part: Part) -> bool:
    """Whether an image or a label was finished; half-written ones are hidden."""
    return any(any((folder / f"{what}{part}").glob("[!.]*")) for what in ("images", "labels"))


def _only_names_more(
    changed: Sequence[str], before: Mapping[str, Any], settings: Mapping[str, Any]
) -> bool:
    """Whether nothing but names of labels changed, and every value named before has one still."""
    if set(changed) - {"labels"}:
        return False
    named_before, named_now = (
        {str(value) for value in labels.values()}
        for labels in (before.get("labels", {}), settings.get("labels", {}))
    )
    return not changed or named_before <= named_now


def _require_same(folder: Path, old: DatasetDescription, new: DatasetDescription) -> None:
    if set(new.optional) - set(old.optional):
        raise DatasetError(
            f"{folder / FILE_NAME}: the dataset exists with optional channels "
            f"{list(old.optional)}, but is to be written with {list(new.optional)}. Add them to "
            "its key 'optional', or use another dataset number."
        )
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
