"""A folder of predictions against a folder of references: every case, and the means.

The JSON is nnU-Net's ``summary.json`` with more in it, so nnU-Net's own tools read it. They differ
in two corners: what is undefined (`veloxseg.evaluation.metrics` says when) is ``null`` instead of
the illegal token NaN, and ``foreground_mean`` leaves out a label that is undefined throughout
instead of becoming undefined itself.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veloxseg.atomic import write_json
from veloxseg.datasets.description import FILE_NAME, DatasetDescription, read_description
from veloxseg.datasets.labels import integer_labels
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.evaluation.metrics import confusion, hausdorff_95_mm, volume_ml
from veloxseg.evaluation.subsets import find_subsets
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import Volume, describe_grid, same_grid

Label = int | tuple[int, ...]
"""A label's value, or a region's values; as JSON keys ``1`` and ``(1, 2)``, as nnU-Net has them."""

Metrics = dict[str, float]
"""Dice, IoU, HD95_mm, volume_ml, reference_volume_ml and voxel counts; NaN where undefined."""

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """How well one case was predicted.

    Attributes:
        name: The case, which is its file's name without the ending.
        prediction_file: The mask that was judged.
        reference_file: The mask that it was compared with.
        metrics: For each label its metrics.
    """

    name: str
    prediction_file: Path
    reference_file: Path
    metrics: Mapping[Label, Metrics]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All cases of an evaluation.

    Attributes:
        label_names: Name of each evaluated label or region.
        cases: One result a case, by name.
        subsets: Case to the channels it has, as ``CT+PET``; empty where nobody asked.
    """

    label_names: Mapping[Label, str]
    cases: Sequence[CaseResult]
    subsets: Mapping[str, str] = field(default_factory=dict)

    def mean(self, label: Label) -> Metrics:
        """Means over the cases in which a metric is defined; NaN where it never is."""
        return _means([case.metrics[label] for case in self.cases])

    def foreground_mean(self) -> Metrics:
        """Means over the labels' means; NaN where none is defined."""
        return _means([self.mean(label) for label in self.label_names])

    def num_undefined(self, label: Label) -> dict[str, int]:
        """In how many cases Dice, IoU and HD95 are undefined for a label."""
        return {
            metric: sum(math.isnan(case.metrics[label][metric]) for case in self.cases)
            for metric in ("Dice", "IoU", "HD95_mm")
        }

    def by_subset(self) -> dict[str, "Summary"]:
        """The cases by the channels they have, as ``CT+PET``; nothing where nobody asked."""
        return {
            subset: Summary(
                label_names=self.label_names,
                cases=[case for case in self.cases if self.subsets[case.name] == subset],
            )
            for subset in dict.fromkeys(self.subsets.values())
        }

    def to_json(self) -> dict[str, Any]:
        """Content of ``summary.json``; undefined values are None."""
        labels = list(self.label_names)
        subsets = {
            subset: {"num_cases": len(part.cases), **part._means_to_json()}
            for subset, part in self.by_subset().items()
        }
        return {
            **self._means_to_json(),
            "label_names": {str(label): self.label_names[label] for label in labels},
            "metric_per_case": [
                {
                    "metrics": {str(label): _without_nan(case.metrics[label]) for label in labels},
                    "prediction_file": str(case.prediction_file),
                    "reference_file": str(case.reference_file),
                }
                for case in self.cases
            ],
            "num_undefined": {str(label): self.num_undefined(label) for label in labels},
            **({"subsets": subsets} if subsets else {}),
        }

    def _means_to_json(self) -> dict[str, Any]:
        return {
            "foreground_mean": _without_nan(self.foreground_mean()),
            "mean": {str(label): _without_nan(self.mean(label)) for label in self.label_names},
        }


def evaluate_folder(
    prediction: Path,
    reference: Path,
    *,
    labels: Mapping[str, int | Sequence[int]] | None = None,
    ignore_label: int | None = None,
    subset: bool = False,
    images: Path | None = None,
    output: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Compare every predicted mask with the reference of the same name.

    Args:
        prediction: Folder of predicted masks.
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
        output: Where to write the summary as JSON; None writes nothing.
        progress: Called after each case with the number done and the number of all.

    Raises:
        DatasetError: a folder is missing or has no masks, cases lack their counterpart, a mask
            holds a value that is no label, or images are given and no dataset.json names channels.
        GeometryError: a prediction does not lie on its reference's grid.
        ImageReadError: a file is no image.
    """
    description = _find_description(prediction, reference)
    ending = ".nii.gz" if description is None else description.file_ending
    names = _pair(prediction, reference, ending, subset=subset)
    pairs = [(name, prediction / file, reference / file) for name, file in names.items()]
    known = labels if labels is not None or description is None else description.labels
    if ignore_label is None and known is not None:
        ignore_label = _ignored(known)
    if known is None:
        known = _values_found(pairs, ignore_label)
    label_names = _label_names(known)
    subsets = {} if images is None else _subsets(images, names, description)
    results = []
    for name, predicted, referred in pairs:
        results.append(_evaluate_case(name, predicted, referred, label_names, ignore_label))
        if progress is not None:
            progress(len(results), len(pairs))
    summary = Summary(label_names=label_names, cases=results, subsets=subsets)
    if output is not None:
        write_json(output, summary.to_json())
    return summary


def _find_description(prediction: Path, reference: Path) -> DatasetDescription | None:
    for folder in (prediction, reference, reference.parent):
        if (folder / FILE_NAME).is_file():
            return read_description(folder)
    return None


def _subsets(
    images: Path, names: Iterable[str], description: DatasetDescription | None
) -> dict[str, str]:
    if (images.parent / FILE_NAME).is_file():
        description = read_description(images.parent)
    if description is None:
        raise DatasetError(
            f"{images.parent}: no {FILE_NAME}, which names the channels of {images.name}. Expected "
            "it there, or with the masks. Copy it from the training data."
        )
    return find_subsets(images, names, description)


def _pair(prediction: Path, reference: Path, ending: str, *, subset: bool) -> dict[str, str]:
    """Case names and their files' names; the same in both folders."""
    predicted, referred = _masks(prediction, ending), _masks(reference, ending)
    if strangers := sorted(predicted - referred):
        raise DatasetError(
            f"{reference}: no reference for {_listed(strangers, ending)}, predicted in "
            f"{prediction}. Move these predictions away, or add their references."
        )
    if not subset and (missing := sorted(referred - predicted)):
        raise DatasetError(
            f"{prediction}: no prediction for {_listed(missing, ending)} of {reference}. "
            "Predict them too, or pass over them: --subset."
        )
    return {file.removesuffix(ending): file for file in sorted(predicted)}


def _masks(folder: Path, ending: str) -> set[str]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder. Expected one with masks (*{ending}).")
    files = {
        file.name
        for file in folder.iterdir()
        if file.name.endswith(ending) and not file.name.startswith(".")
    }
    if not files:
        raise DatasetError(f"{folder}: no masks. Expected files named CASE{ending}.")
    return files


def _listed(files: Sequence[str], ending: str) -> str:
    shown = ", ".join(file.removesuffix(ending) for file in files[:_SHOWN])
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return f"case{'s' if len(files) > 1 else ''} {shown}{more}"


def _ignored(labels: Mapping[str, int | Sequence[int]]) -> int | None:
    value = labels.get("ignore")
    if value is None or isinstance(value, int):
        return value
    raise DatasetError(f"The label 'ignore' is {value}. Expected one whole number.")


def _label_names(labels: Mapping[str, int | Sequence[int]]) -> dict[Label, str]:
    names: dict[Label, str] = {}
    for name, value in labels.items():
        values = [value] if isinstance(value, int) else list(value)
        if name == "ignore" or not any(values):
            continue
        names[value if isinstance(value, int) else tuple(values)] = name
    if not names:
        raise DatasetError(
            "There is no label but the background. Name at least one to evaluate: "
            "--labels NAME=VALUE."
        )
    return names


def _values_found(
    pairs: Sequence[tuple[str, Path, Path]], ignore_label: int | None
) -> dict[str, int | Sequence[int]]:
    found: set[int] = set()
    for name, *files in pairs:
        for file in files:
            found |= _values(_read_mask(name, file).data)
    found -= {0} if ignore_label is None else {0, ignore_label}
    if not found:
        raise DatasetError(
            "All masks are empty, and there is no dataset.json to name labels. Name them: "
            "--labels NAME=VALUE."
        )
    return {f"label {value}": value for value in sorted(found)}


def _read_mask(name: str, file: Path) -> Volume:
    mask = read_volume(file)
    if mask.data.dtype.kind != "f":
        return mask
    return Volume.on_grid(integer_labels(mask.data, where=f"Case {name}: {file}"), mask.grid)


def _values(data: NDArray[Any]) -> set[int]:
    return {int(value) for value in np.unique(data)}


def _evaluate_case(
    name: str,
    prediction_file: Path,
    reference_file: Path,
    label_names: Mapping[Label, str],
    ignore_label: int | None,
) -> CaseResult:
    predicted, referred = _read_mask(name, prediction_file), _read_mask(name, reference_file)
    if not same_grid(predicted, referred):
        raise GeometryError(
            f"Case {name}: the prediction ({prediction_file}) has {describe_grid(predicted)}; the "
            f"reference ({reference_file}) has {describe_grid(referred)}. Both must share one "
            "grid: predict on the image that the reference was drawn on."
        )
    values = {0}.union(*(_members(label) for label in label_names))
    _require_known(name, prediction_file, predicted.data, values)
    if ignore_label is not None:
        values |= {ignore_label}
    _require_known(name, reference_file, referred.data, values)
    counted = None if ignore_label is None else referred.data != ignore_label
    return CaseResult(
        name=name,
        prediction_file=prediction_file,
        reference_file=reference_file,
        metrics={
            label: _label_metrics(
                np.isin(predicted.data, _members(label)),
                np.isin(referred.data, _members(label)),
                counted,
                referred.spacing_zyx,
            )
            for label in label_names
        },
    )


def _members(label: Label) -> list[int]:
    return [label] if isinstance(label, int) else list(label)


def _require_known(name: str, file: Path, data: NDArray[Any], known: set[int]) -> None:
    if strangers := sorted(_values(data) - known):
        raise DatasetError(
            f"Case {name}: {file} holds {', '.join(map(str, strangers[:_SHOWN]))}. Expected only "
            f"{', '.join(map(str, sorted(known)))}. Correct the mask, or name all "
            "its labels: --labels NAME=VALUE."
        )


def _label_metrics(
    predicted: NDArray[np.bool_],
    referred: NDArray[np.bool_],
    counted: NDArray[np.bool_] | None,
    spacing_zyx: tuple[float, float, float],
) -> Metrics:
    if counted is not None:
        predicted, referred = predicted & counted, referred & counted
    counts = confusion(predicted, referred)
    num_ignored = 0 if counted is None else counted.size - int(np.count_nonzero(counted))
    return {
        "Dice": counts.dice,
        "IoU": counts.iou,
        "FP": counts.false_positives,
        "TP": counts.true_positives,
        "FN": counts.false_negatives,
        "TN": counts.true_negatives - num_ignored,
        "n_pred": counts.false_positives + counts.true_positives,
        "n_ref": counts.false_negatives + counts.true_positives,
        "HD95_mm": hausdorff_95_mm(predicted, referred, spacing_zyx),
        "volume_ml": volume_ml(predicted, spacing_zyx),
        "reference_volume_ml": volume_ml(referred, spacing_zyx),
    }


def _means(rows: Sequence[Metrics]) -> Metrics:
    means = {}
    for metric in rows[0]:
        values = [row[metric] for row in rows if not math.isnan(row[metric])]
        means[metric] = sum(values) / len(values) if values else math.nan
    return means


def _without_nan(metrics: Metrics) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}
