"""A folder of predictions against a folder of references: every case, and the means.

The JSON is nnU-Net's ``summary.json`` with more in it, so nnU-Net's own tools read it. They differ
in two corners: what is undefined (`veloxseg.evaluation.metrics` says when) is ``null`` instead of
the illegal token NaN, and ``foreground_mean`` leaves out a label that is undefined throughout
instead of becoming undefined itself.
"""

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

from veloxseg import __version__
from veloxseg.atomic import write_json
from veloxseg.bundle.reading import open_bundle
from veloxseg.datasets.description import FILE_NAME, DatasetDescription, read_description
from veloxseg.errors import DatasetError, VeloxSegError
from veloxseg.evaluation.case_evaluation import EvaluationSettings, evaluate_cases
from veloxseg.evaluation.csv_file import write_csv
from veloxseg.evaluation.destination import require_file
from veloxseg.evaluation.label_set import (
    Label,
    find_description,
    foreground_names,
    ignored_value,
    names_of_values,
)
from veloxseg.evaluation.methods import Methods, find_methods, method_folders, values_found
from veloxseg.evaluation.provenance import ModelRecord, Provenance
from veloxseg.evaluation.records import records_folder
from veloxseg.evaluation.results import CaseResult, Metrics, Summary
from veloxseg.evaluation.subsets import find_subsets
from veloxseg.evaluation.summary_json import summary_to_json
from veloxseg.installation import module_version
from veloxseg.models.finding import resolve_model

__all__ = ["CaseResult", "Metrics", "Summary", "evaluate_folder"]

TOLERANCE_MM = 1.0
"""How far apart two surfaces may be and still agree, unless something else is said."""


def evaluate_folder(
    prediction: Path,
    reference: Path,
    *,
    labels: Mapping[str, int | Sequence[int]] | None = None,
    ignore_label: int | None = None,
    subset: bool = False,
    images: Path | None = None,
    name: str | None = None,
    others: Mapping[str, Path] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    resample: bool = False,
    model: Path | str | None = None,
    output: Path | None = None,
    csv: Path | None = None,
    num_workers: int = 1,
    command: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Compare every predicted mask with the reference of the same name.

    Args:
        prediction: Folder of predicted masks, or a trained configuration's folder, whose
            ``fold_N/validation`` hold them: then all folds found are evaluated together.
        reference: Folder of reference masks, such as a dataset's ``labelsTr``.
        labels: Values by name as in nnU-Net's dataset.json; a list of values is a region.
            ``background`` is left out, ``ignore`` names the value to ignore. None takes them from a
            ``dataset.json`` in either folder or beside ``reference``, and without one evaluates
            every positive value found.
        ignore_label: Voxels of this reference value count for nothing, neither in overlap nor in
            surfaces and volumes. None takes it from the labels.
        subset: Allow references without a prediction.
        images: Folder of the images that were predicted from, such as ``imagesTs``: means are
            also taken over the cases that have the same channels.
        name: Of the method that predicted; None takes the folder's name.
        others: Other methods by name, each a folder as ``prediction``: they are evaluated on the
            same cases and compared with it case by case.
        tolerance_mm: How far apart surfaces may be and still agree, for the normalised surface
            Dice.
        resample: Look predictions on other grids up at their references' voxels, by the nearest
            neighbour, instead of refusing them.
        model: The bundle that predicted, to be named in the summary.
        output: Where to write the summary as JSON; None writes nothing. Each case's figures are
            kept in a folder beside it (``summary_cases``): what has been evaluated, and has not
            changed, is not evaluated again.
        csv: Where to write a row for every case and label; None writes nothing.
        num_workers: Processes at most; a few small cases are evaluated in this one.
        command: What was typed, to be named in the summary.
        progress: Called after each case with the number done and the number of all.

    Raises:
        DatasetError: a folder is missing or has no masks, cases lack their counterpart, two folds
            hold one case, a mask holds a value that is no label, images are given and no
            dataset.json names channels, or two methods have one name.
        GeometryError: a prediction does not lie on its reference's grid.
        ImageReadError: a file is no image.
        BundleError: ``model`` is no whole bundle.
        VeloxSegError: the tolerance is negative or no number, or a file to write is a folder or
            named for both JSON and CSV.
    """
    _require_tolerance(tolerance_mm)
    _require_destinations(output, csv)
    folders = method_folders(prediction, name, others or {})
    made_by = None if model is None else _record_of(model)
    description = find_description((prediction, reference, reference.absolute().parent))
    ending = ".nii.gz" if description is None else description.file_ending
    methods = find_methods(folders, reference, ending, subset=subset)
    known = labels if labels is not None or description is None else description.labels
    if ignore_label is None and known is not None:
        ignore_label = ignored_value(known)
    if known is None:
        values = values_found(methods.all_pairs, num_workers=num_workers)
        known = names_of_values(values - {ignore_label})
    label_names = foreground_names(known)
    subsets = {} if images is None else _subsets(images, methods, description)
    settings = EvaluationSettings(
        labels=tuple(label_names),
        ignore_label=ignore_label,
        tolerance_mm=tolerance_mm,
        resample=resample,
    )
    results = evaluate_cases(
        methods.all_pairs,
        settings,
        records=None if output is None else records_folder(output),
        num_workers=num_workers,
        progress=progress,
    )
    summary = replace(
        _summarise(methods, results, label_names),
        subsets=subsets,
        provenance=Provenance(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=command,
            versions=_versions(),
            methods={method: str(folder) for method, folder in folders.items()},
            reference=str(reference),
            tolerance_mm=tolerance_mm,
            resample=resample,
            model=made_by,
        ),
    )
    if output is not None:
        write_json(output, summary_to_json(summary))
    if csv is not None:
        write_csv(csv, summary)
    return summary


def _require_tolerance(tolerance_mm: float) -> None:
    if not 0 <= tolerance_mm < math.inf:
        raise VeloxSegError(
            f"--tolerance {tolerance_mm}: expected how far apart two surfaces may be and still "
            "agree, in mm: 0 or more."
        )


def _require_destinations(output: Path | None, csv: Path | None) -> None:
    if output is not None:
        require_file(output, like="summary.json")
    if csv is not None:
        require_file(csv, like="cases.csv")
        if output is not None and output.resolve() == csv.resolve():
            raise VeloxSegError(
                f"{csv}: the CSV would take the JSON's place. Name another file: --csv cases.csv"
            )


def _summarise(
    methods: Methods, results: Sequence[CaseResult], label_names: Mapping[Label, str]
) -> Summary:
    """The first method's summary, and in it those of the others; results are in their order."""
    left = iter(results)
    main, *others = (
        Summary(
            label_names=label_names,
            cases=list(islice(left, len(methods.pairs[name]))),
            name=name,
            not_predicted=methods.not_predicted,
            cross_validation=masks.cross_validation,
        )
        for name, masks in methods.masks.items()
    )
    return replace(main, others={other.name: other for other in others})


def _subsets(
    images: Path, methods: Methods, description: DatasetDescription | None
) -> dict[str, str]:
    images = images.absolute()  # the parent of the working folder is not that of "."
    if (images.parent / FILE_NAME).is_file():
        description = read_description(images.parent)
    if description is None:
        raise DatasetError(
            f"{images.parent}: no {FILE_NAME}, which names the channels of {images.name}. Expected "
            "it there, or with the masks. Copy it from the training data."
        )
    return find_subsets(images, {pair.name: None for pair in methods.all_pairs}, description)


def _record_of(model: Path | str) -> ModelRecord:
    bundle = open_bundle(resolve_model(model))
    return ModelRecord(name=bundle.manifest.name, sha256=bundle.model_hash(), path=str(model))


def _versions() -> dict[str, str]:
    packages = {package: module_version(package) for package in ("numpy", "scipy")}
    return {"veloxseg": __version__, "python": platform.python_version(), **packages}
