"""From a tree of DICOM studies to nnU-Net's raw format."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veloxseg.datasets.cases import Part
from veloxseg.datasets.converters.case_writing import LABEL
from veloxseg.datasets.converters.dicom_labels import LabelSource, find_label, read_label
from veloxseg.datasets.converters.dicom_matching import match_series
from veloxseg.datasets.converters.dicom_names import Naming, name_cases
from veloxseg.datasets.converters.dicom_rules import DicomRules
from veloxseg.datasets.converters.preparing import registration_settings, registration_step
from veloxseg.datasets.converters.writing import (
    Alignment,
    SourceCase,
    begin_dataset,
    describe_dataset,
    finish_dataset,
    is_written,
    write_cases,
)
from veloxseg.datasets.problems import Problem, raise_problems
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, GeometryError, ImageReadError, VeloxSegError
from veloxseg.volumes.dicom.files import show_path
from veloxseg.volumes.dicom.index import BROKEN, DicomIndex, DicomSeries, DicomStudy, index_dicom
from veloxseg.volumes.dicom.reading import ImageFile, check_slices, read_series
from veloxseg.volumes.volume import Grid, Volume, describe_difference, same_grid


def convert_dicom(
    source: Path,
    dataset: str,
    *,
    workspace: Workspace,
    rules: DicomRules,
    reference: str | None = None,
    naming: Naming | None = None,
    interpolate_gaps: bool = False,
    register: Sequence[str] = (),
    affine: bool = False,
    index: DicomIndex | None = None,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Convert a study, or a tree of studies, of any file names: each study becomes a case.

    Headers of all files are read first, and every problem of every study is reported before
    anything is written. CT becomes HU, PET SUV by body weight, other images their rescaled values;
    labels are drawn from structure sets or taken from segmentations. Run again after an
    interruption, it goes on where it stopped.

    Args:
        source: Folder with the files, in any arrangement; what is no DICOM is passed over.
        dataset: ``DatasetNNN_Name``.
        workspace: Where nnU-Net's folders are.
        rules: Which series become which channels, and which regions which labels; without labels,
            test images are written (``imagesTs``).
        reference: Channel whose grid all images of a case are put on; None: they share one.
        naming: How cases and patients are called; None: ``PATIENT_DATE``, as they are.
        interpolate_gaps: Whether missing slices are filled by interpolation instead of refused.
        register: Channels to register to the reference, with which the label stays; they may have
            a frame of reference of their own.
        affine: Whether registration allows for scaling and shear, too.
        index: What :func:`veloxseg.volumes.dicom.index.index_dicom` found in ``source``; None: it
            is called here.
        num_workers: Processes that read headers, and read and write cases.
        progress: Called after each case with the number done and the number of all.
        tell: Called with what was found, in words.

    Returns:
        The dataset's folder.

    Raises:
        DatasetError: a study does not fit the rules or cannot be named, or the dataset exists with
            other settings.
        GeometryError: slices make no stack, or images lie on different grids without a reference.
        ImageReadError: there is no such folder, or a file cannot be read.
        OSError: a file cannot be written.
    """
    name = workspace.new_dataset_name(dataset)
    naming = naming or Naming()
    _check_reference(rules, reference)
    description = describe_dataset(
        list(rules.channels), rules.label_values or None, optional=rules.optional
    )
    folder = workspace.raw / name
    part: Part = "Tr" if rules.labels else "Ts"
    prepare = registration_step(
        folder,
        part=part,
        channels=list(rules.channels),
        register=register,
        reference=reference,
        affine=affine,
    )
    index = index or index_dicom(source, num_workers=num_workers)
    _tell_index(index, tell)
    _require_studies(index, source)
    plans, problems = _plan_cases(
        index,
        rules,
        reference=reference,
        register=register,
        naming=naming,
        interpolate_gaps=interpolate_gaps,
        is_done=lambda case: is_written(folder, case, description, part=part),
    )
    raise_problems(show_path(source), problems)
    settings = {
        "source": str(source.resolve()),
        "rules": rules.model_dump(mode="json", exclude_defaults=True),
        "reference": reference,
        "case_name": naming.pattern,
        "patients_hashed": naming.fingerprint,
        "interpolate_gaps": interpolate_gaps,
        "labels": description.labels,
        **registration_settings(register, affine=affine),
    }

    def report(done: int) -> None:
        if progress is not None:
            progress(done, len(plans))

    begin_dataset(folder, description, part=part, settings=settings)
    write_cases(
        folder,
        list(plans),
        _StudiesOfCases(
            source=source,
            plans=plans,
            rules=rules,
            interpolate_gaps=interpolate_gaps,
            tell_places=naming.key is None,
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


@dataclass(frozen=True, kw_only=True)
class _Channel:
    """The files of one channel of a case, and what to say of them."""

    files: tuple[ImageFile, ...]
    suv: bool
    name: str
    notes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a case is read from."""

    channels: Mapping[str, _Channel]
    label: LabelSource | None
    patient: str | None
    notes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _StudiesOfCases:
    """Reads a case from the series of its study.

    Attributes:
        source: Folder that sources are told relative to.
        plans: Case name to what it is read from.
        rules: How labels are made.
        interpolate_gaps: Whether missing slices are filled.
        tell_places: Whether folders and UIDs may be recorded: not if patients' identities are
            hashed, since they name them, too.
    """

    source: Path
    plans: Mapping[str, _Plan]
    rules: DicomRules
    interpolate_gaps: bool
    tell_places: bool

    def __call__(self, case: str) -> SourceCase:
        """Read the images of a case, and its label if labels are wanted."""
        plan = self.plans[case]
        images: dict[str, Volume] = {}
        notes = dict(plan.notes)
        sources: dict[str, str | list[str]] = {}
        for channel, files in plan.channels.items():
            image = read_series(
                files.files,
                where=f"{channel}, {files.name}",
                suv=files.suv,
                interpolate_gaps=self.interpolate_gaps,
            )
            images[channel] = image.volume
            notes[channel] = {**files.notes, **({"done": list(image.notes)} if image.notes else {})}
            sources[channel] = self._folders(path for path, _ in files.files)
        label = None
        if plan.label is not None:
            grid = images[plan.label.channel].grid
            label, notes[LABEL] = read_label(plan.label, self.rules, grid)
            sources[LABEL] = show_path(plan.label.path.relative_to(self.source))
        if not self.tell_places:
            sources = {}
        return SourceCase(
            images=[images.get(channel) for channel in self.rules.channels],
            label=label,
            patient=plan.patient,
            sources=sources,
            notes=notes,
        )

    def _folders(self, paths: Any) -> list[str]:
        parents = {path.parent.relative_to(self.source) for path in paths}
        return sorted(show_path(parent) for parent in parents)


def _plan_cases(
    index: DicomIndex,
    rules: DicomRules,
    *,
    reference: str | None,
    register: Sequence[str],
    naming: Naming,
    interpolate_gaps: bool,
    is_done: Callable[[str], bool],
) -> tuple[dict[str, _Plan], list[Problem]]:
    plans = {}
    problems = []
    for case, study in name_cases(index.studies, naming).items():
        try:
            matched = match_series(study, rules, register=register)
            label = find_label(study, matched, rules, reference=reference) if rules.labels else None
            _require_label_stays(label, register)
            plans[case] = _plan(study, matched, label, rules=rules, naming=naming, index=index)
            if not is_done(case):
                _require_whole_files(matched, index)
                _check_case(
                    plans[case], matched, reference=reference, interpolate_gaps=interpolate_gaps
                )
        except VeloxSegError as error:
            problems.append(Problem(case=case, severity="error", message=f"Case {case}: {error}"))
    return plans, problems


def _plan(
    study: DicomStudy,
    matched: Mapping[str, DicomSeries],
    label: LabelSource | None,
    *,
    rules: DicomRules,
    naming: Naming,
    index: DicomIndex,
) -> _Plan:
    used = {id(series) for series in matched.values()}
    folders = {one.path.parent for series in matched.values() for one in series.slices}
    passed_over = Counter(
        reason for path, reason in index.passed_over.items() if path.parent in folders
    )
    notes = {
        "not_matched": [_title(one) for one in study.series if id(one) not in used],
        "passed_over": dict(sorted(passed_over.items())),
    }
    return _Plan(
        channels={
            channel: _Channel(
                files=tuple((one.path, one.frame) for one in series.slices),
                suv=series.tags["Modality"] == "PT" and rules.channels[channel].suv,
                name=str(series),
                notes=_describe_series(series, tell_uid=naming.key is None),
            )
            for channel, series in matched.items()
        },
        label=label,
        patient=naming.patient_of(study),
        notes={what: note for what, note in notes.items() if note},
    )


def _describe_series(series: DicomSeries, *, tell_uid: bool) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "modality": series.tags["Modality"],
        "description": series.tags["SeriesDescription"],
        "slices": len(series.slices),
    }
    if tell_uid:
        notes["series_uid"] = series.uid
    if series.siblings and tell_uid:
        notes["mixed_with"] = list(series.siblings)
    return notes


def _title(series: DicomSeries) -> str:
    return (
        f"{series.tags['Modality']} '{series.tags['SeriesDescription']}', "
        f"{len(series.slices)} slices"
    )


def _require_whole_files(matched: Mapping[str, DicomSeries], index: DicomIndex) -> None:
    """Refuse broken files beside slices: a stack that lacks its first or last looks sound."""
    channels = {
        one.path.parent: channel for channel, series in matched.items() for one in series.slices
    }
    for path, reason in index.passed_over.items():
        hidden = path.name.startswith(".")
        if reason in BROKEN and path.parent in channels and not hidden:
            raise ImageReadError(
                f"{show_path(path)}: {reason}, among the slices of {channels[path.parent]}. "
                "Expected whole files, since a slice may be lost. Copy or export it again, or "
                "move it away."
            )


def _check_case(
    plan: _Plan,
    matched: Mapping[str, DicomSeries],
    *,
    reference: str | None,
    interpolate_gaps: bool,
) -> None:
    """Refuse at once what would be refused after hours: gaps, conflicts, headers, grids."""
    grids: dict[str, Grid] = {}
    for channel, files in plan.channels.items():
        grids[channel] = check_slices(
            matched[channel].slices,
            where=f"{channel}, {files.name}",
            suv=files.suv,
            interpolate_gaps=interpolate_gaps,
        ).grid
    if reference is not None:
        return
    (first, grid), *others = grids.items()
    for channel, other in others:
        if not same_grid(grid, other):
            raise GeometryError(
                f"{describe_difference(first, grid, channel, other)}. All channels of a case must "
                f"share one grid. Choose the one to take: --reference {first}"
            )


def _require_label_stays(label: LabelSource | None, register: Sequence[str]) -> None:
    if label is not None and label.drawn_on in register:
        raise DatasetError(
            f"{show_path(label.path)} is drawn on {label.drawn_on}, which is to be registered. "
            "Expected it on a channel that stays where it is. Take that one as the reference, and "
            "register the others to it."
        )


def _check_reference(rules: DicomRules, reference: str | None) -> None:
    if reference is not None and (reference not in rules.channels or reference in rules.optional):
        raise DatasetError(
            f"The reference is '{reference}'. Expected a channel that every case has: "
            f"{', '.join(name for name in rules.channels if name not in rules.optional)}."
        )


def _require_studies(index: DicomIndex, source: Path) -> None:
    if not index.studies:
        raise DatasetError(
            f"{show_path(source)}: {index.num_files} files, none of them a DICOM image that is "
            f"placed in a patient ({_count(index) or 'no file'}). Expected a study or a tree of "
            "studies. Check the path."
        )


def _tell_index(index: DicomIndex, tell: Callable[[str], None] | None) -> None:
    if tell is None:
        return
    num_series = sum(len(study.series) for study in index.studies)
    tell(f"{index.num_files} files: {len(index.studies)} studies with {num_series} series")
    if index.passed_over:
        tell(f"Passed over: {_count(index)}")
    mixed = {one.uid for study in index.studies for one in study.series if one.siblings}
    if mixed:
        tell(f"Mixed series, split by orientation, size or frame of reference: {len(mixed)}")


def _count(index: DicomIndex) -> str:
    counts = Counter(index.passed_over.values())
    return ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()))
