"""Which predicted mask belongs to which reference: in a folder, or in the folds of a run."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veloxseg.errors import DatasetError
from veloxseg.evaluation.folds import count_folds
from veloxseg.shortening import name_cases

_FOLD = re.compile(r"fold_(\d+)")


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """The folds whose validation masks are evaluated together.

    Attributes:
        num_cases: Each fold found, in rising order, to the number of its cases.
        missing: Folds of the dataset's splits that have no masks; where its splits are not found,
            of five.
        unfinished: Folds found whose validation holds no ``summary.json``, which nnU-Net and
            VeloxSeg write last: masks may be missing.
    """

    num_cases: Mapping[int, int]
    missing: tuple[int, ...]
    unfinished: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "num_cases": {str(fold): number for fold, number in self.num_cases.items()},
            "missing": list(self.missing),
            "unfinished": list(self.unfinished),
        }


@dataclass(frozen=True, kw_only=True)
class PredictedMasks:
    """The masks of one method.

    Attributes:
        folder: Where they were looked for.
        files: Case to its mask, in the order of the cases' names.
        folds: Case to the fold that it was validated in; empty where there are no folds.
        cross_validation: What is known of the folds; None where there are none.
    """

    folder: Path
    files: Mapping[str, Path]
    folds: Mapping[str, int] = field(default_factory=dict)
    cross_validation: CrossValidation | None = None


@dataclass(frozen=True, kw_only=True)
class MaskPair:
    """A predicted mask and its reference.

    Attributes:
        name: The case, which is both files' name without the ending.
        prediction: File of the predicted mask.
        reference: File of the reference mask.
        fold: That the case was validated in; None without folds.
    """

    name: str
    prediction: Path
    reference: Path
    fold: int | None = None

    @property
    def files(self) -> tuple[Path, Path]:
        """Prediction and reference."""
        return self.prediction, self.reference


def find_predictions(folder: Path, ending: str) -> PredictedMasks:
    """Find the masks in a folder, or those of a run's cross-validation.

    Args:
        folder: It holds masks, or folders ``fold_0`` and so on with masks in ``validation``. Where
            it holds both, the masks in it are taken.
        ending: Of the masks' names.

    Raises:
        DatasetError: there is no such folder, it holds no masks, or two folds hold one case.
    """
    folds = _fold_folders(folder) if folder.is_dir() else {}
    if not folds or any(_files(folder, ending)):
        return PredictedMasks(folder=folder, files=find_masks(folder, ending))
    found = {fold: dict(_files(path / "validation", ending)) for fold, path in folds.items()}
    found = {fold: files for fold, files in found.items() if files}
    if not found:
        raise DatasetError(
            f"{folder}: no fold holds masks. Expected fold_N/validation/CASE{ending}. Finish a "
            "fold's training, which ends with its validation."
        )
    _require_disjoint(folder, found)
    return PredictedMasks(
        folder=folder,
        files=dict(sorted(entry for files in found.values() for entry in files.items())),
        folds={name: fold for fold, files in found.items() for name in files},
        cross_validation=CrossValidation(
            num_cases={fold: len(files) for fold, files in found.items()},
            missing=tuple(
                sorted(set(range(max(count_folds(folder), max(found) + 1))) - set(found))
            ),
            unfinished=tuple(
                fold
                for fold in found
                if not (folds[fold] / "validation" / "summary.json").is_file()
            ),
        ),
    )


def find_masks(folder: Path, ending: str) -> dict[str, Path]:
    """Case to its mask, in the order of their names; hidden files are none.

    Raises:
        DatasetError: there is no such folder, or it holds none.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder. Expected one with masks (*{ending}).")
    files = dict(sorted(_files(folder, ending)))
    if not files:
        raise DatasetError(
            f"{folder}: no masks. Expected files named CASE{ending}. Masks with another ending "
            "need a dataset.json, with them or with the references, that names it: file_ending."
        )
    return files


def pair_masks(
    predicted: PredictedMasks, reference: Path, ending: str, *, subset: bool
) -> tuple[list[MaskPair], tuple[str, ...]]:
    """Pair predictions with the references of the same name.

    Args:
        predicted: The masks of a method.
        reference: Folder of reference masks.
        ending: Of their names.
        subset: Allow references without a prediction, as in folds they always are allowed.

    Returns:
        The pairs, and the cases of the references that have no prediction.

    Raises:
        DatasetError: a folder is missing or empty, or a mask lacks its counterpart.
    """
    referred = find_masks(reference, ending)
    if strangers := [name for name in predicted.files if name not in referred]:
        raise DatasetError(
            f"{reference}: no reference for {name_cases(strangers)}, predicted in "
            f"{predicted.folder}. Move these predictions away, or add their references."
        )
    missing = [name for name in referred if name not in predicted.files]
    if missing and not subset and predicted.cross_validation is None:
        raise DatasetError(
            f"{predicted.folder}: no prediction for {name_cases(missing)} of {reference}. "
            "Predict them too, or pass over them: --subset."
        )
    pairs = [
        MaskPair(
            name=name,
            prediction=file,
            reference=referred[name],
            fold=predicted.folds.get(name),
        )
        for name, file in predicted.files.items()
    ]
    return pairs, tuple(missing)


def pair_as(pairs: Sequence[MaskPair], predicted: PredictedMasks, *, method: str) -> list[MaskPair]:
    """The same cases with the predictions of another method; more of its masks are passed over.

    Raises:
        DatasetError: it has no prediction of a case.
    """
    if missing := [pair.name for pair in pairs if pair.name not in predicted.files]:
        raise DatasetError(
            f"{method} ({predicted.folder}): no prediction for {name_cases(missing)}, which the "
            "method evaluated has. Methods are compared on the same cases: predict them too, or "
            "evaluate a folder with the cases that all have, with --subset."
        )
    return [
        MaskPair(
            name=pair.name,
            prediction=predicted.files[pair.name],
            reference=pair.reference,
            fold=predicted.folds.get(pair.name),
        )
        for pair in pairs
    ]


def _files(folder: Path, ending: str) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if file.name.endswith(ending) and not file.name.startswith("."):
            yield file.name.removesuffix(ending), file


def _fold_folders(folder: Path) -> dict[int, Path]:
    found = {
        int(match.group(1)): path
        for path in folder.iterdir()
        if path.is_dir() and (match := _FOLD.fullmatch(path.name))
    }
    return dict(sorted(found.items()))


def _require_disjoint(folder: Path, folds: Mapping[int, Mapping[str, Path]]) -> None:
    seen: dict[str, int] = {}
    for fold, files in folds.items():
        for name in sorted(files):
            if name in seen:
                raise DatasetError(
                    f"{folder}: case {name} has a mask in fold_{seen[name]} and in fold_{fold}. "
                    "Expected each case in one fold. Were they trained with different splits? "
                    "Evaluate each fold by itself: its validation folder, with --subset."
                )
            seen[name] = fold
