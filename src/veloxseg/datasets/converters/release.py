"""Converting a published dataset whose files are named in one of a few known ways."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from veloxseg.datasets.converters.case_files import CaseFiles
from veloxseg.datasets.converters.case_names import safe_case_names
from veloxseg.datasets.converters.naming import Naming, find_parts, recognise
from veloxseg.datasets.converters.preparing import registration_settings, registration_step
from veloxseg.datasets.converters.source_case import Load
from veloxseg.datasets.converters.writing import (
    Alignment,
    begin_dataset,
    describe_dataset,
    finish_dataset,
    write_cases,
)
from veloxseg.datasets.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Release:
    """What all releases of a dataset have in common.

    Attributes:
        namings: The ways its files are named.
        label_names: Name to value, or to the values of a region.
        regions_class_order: With regions, the value to write for each.
        reference: Channel on whose grid the label lies, and to which others may be registered.
        alignment: The grid that the images of a case are put on.
    """

    namings: Sequence[Naming]
    label_names: Mapping[str, int | Sequence[int]]
    regions_class_order: Sequence[int] | None = None
    reference: str
    alignment: Alignment


def convert_release(
    source: Path,
    dataset: str,
    *,
    workspace: Workspace,
    release: Release,
    settings: Mapping[str, Any],
    wrap: Callable[[Load], Load] | None = None,
    register: Sequence[str] = (),
    affine: bool = False,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Convert training and test cases of a release; which naming it has is recognised.

    Cases without any label become test cases. Run again after an interruption, it goes on where it
    stopped.

    Args:
        source: The release's folder.
        dataset: ``DatasetNNN_Name``.
        workspace: Where nnU-Net's folders are.
        release: Its namings, labels and grid.
        settings: What else the conversion depends on, as JSON values.
        wrap: Puts checks around what reads a case; the result must be picklable.
        register: Channels to register to the release's reference; none for those as they are.
        affine: Whether registration allows for scaling and shear, too.
        num_workers: Processes that read and write cases.
        progress: Called after each case with the number done and the number of all.

    Returns:
        The dataset's folder.

    Raises:
        DatasetError: no naming or more than one is recognised, files lack their counterparts, a
            label value or voxel is wrong, or the dataset exists with other settings.
        GeometryError: the images of a case do not lie where the release has them.
        ImageReadError: a file cannot be read.
        OSError: a file cannot be written.
    """
    folder = workspace.raw / workspace.new_dataset_name(dataset)
    naming = recognise(source, release.namings)
    parts = find_parts(source, naming, written=workspace.raw)
    description = describe_dataset(
        list(naming.channels),
        release.label_names,
        regions_class_order=release.regions_class_order,
    )
    alignment = release.alignment
    if register:
        alignment = replace(alignment, reference=release.reference)
    total = sum(len(files) for files in parts.values())
    before = 0
    for part, files in parts.items():
        names = safe_case_names(files)
        named = naming.of_part(part)
        prepare = registration_step(
            folder,
            part=part,
            channels=list(naming.channels),
            register=register,
            reference=release.reference,
            affine=affine,
        )
        load = _reader(source, named, {names[case]: files[case] for case in files}, release)

        def report(done: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        begin_dataset(
            folder,
            description,
            part=part,
            settings={
                "source": str(source.resolve()),
                "naming": naming.name,
                "channels": [f"{name}={text}" for name, text in naming.channels.items()],
                "labels": description.to_json()["labels"],
                **settings,
                **registration_settings(register, affine=affine),
            },
        )
        write_cases(
            folder,
            list(names.values()),
            load if wrap is None else wrap(load),
            description=description,
            part=part,
            alignment=alignment,
            prepare=prepare,
            num_workers=num_workers,
            progress=report,
        )
        before += len(files)
    finish_dataset(folder, description, part="Tr" if "Tr" in parts else "Ts")
    return folder


def _reader(
    source: Path, naming: Naming, files: Mapping[str, Mapping[str, Path]], release: Release
) -> Load:
    return CaseFiles(
        source=source,
        files=files,
        patients={case: naming.patient_of(source, paths, case) for case, paths in files.items()},
        channels=list(naming.channels),
        label_values=naming.label_values,
        label_on=release.reference,
    )
