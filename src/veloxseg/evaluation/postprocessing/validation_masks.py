"""The masks that a run's folds made of their validation cases, with their references."""

from dataclasses import replace
from pathlib import Path

from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import BundleError, DatasetError
from veloxseg.evaluation.pairing import MaskPair, find_predictions, pair_masks
from veloxseg.training.runs import Run, resume_command


def find_validation_masks(
    run: Run, *, workspace: Workspace | None = None, references: Path | None = None
) -> list[MaskPair]:
    """Pair the validation masks of a run's folds with their references.

    Args:
        run: The folds.
        workspace: Where the dataset is; None: around the ``nnUNet_results`` of the run.
        references: Folder of the references; None takes ``labelsTr`` of the dataset, else
            ``gt_segmentations``, nnU-Net's copy of it.

    Raises:
        BundleError: a fold was trained on all cases, or its validation is unfinished or its masks
            are gone.
        DatasetError: there are no masks or references, a mask has no reference, or two folds have
            masks of one case.
    """
    ending = run.description.file_ending
    for fold in run.folds:
        _require_validation(run, fold, ending)
    folder = references or _references(run, workspace)
    pairs: dict[str, MaskPair] = {}
    for fold in run.folds:
        predicted = find_predictions(_validation(run, fold), ending)
        for pair in pair_masks(predicted, folder, ending, subset=True)[0]:
            name = pair.name
            if name in pairs:
                other = pairs[name].prediction.parents[1].name
                raise DatasetError(
                    f"{run.folder}: case {name} has a mask in {other} and in fold_{fold}. "
                    f"Expected each case in one fold. Were they trained with "
                    f"different splits? Choose on one of them: veloxseg postprocess "
                    f"{_validation(run, fold).parent}"
                )
            pairs[name] = replace(pair, fold=fold if isinstance(fold, int) else None)
    return [pairs[name] for name in sorted(pairs)]


def _validation(run: Run, fold: int | str) -> Path:
    return run.folder / f"fold_{fold}" / "validation"


def _require_validation(run: Run, fold: int | str, ending: str) -> None:
    if fold == "all":
        raise BundleError(
            f"{run.folder}: fold all was trained on every case, so that its validation shows no "
            "unseen one. Postprocessing is chosen on folds 0, 1, ...: veloxseg postprocess "
            "DATASET/0"
        )
    folder = _validation(run, fold)
    if not (folder / "summary.json").is_file():
        raise BundleError(
            f"{folder}: no summary.json, so that the validation is not finished. Finish it: "
            f"{resume_command(run.folder, fold)}"
        )
    if not any(folder.glob(f"*{ending}")):
        raise BundleError(
            f"{folder}: no masks (CASE{ending}), though the validation is finished. Copy them "
            f"here, or validate again: {resume_command(run.folder, fold)}"
        )


def _references(run: Run, workspace: Workspace | None) -> Path:
    folder = run.folder.resolve().parent
    workspace = workspace or Workspace.resolve(folder.parent.parent)
    known = (
        workspace.raw / folder.name / "labelsTr",
        workspace.preprocessed / folder.name / "gt_segmentations",
    )
    for references in known:
        if references.is_dir():
            return references
    raise DatasetError(
        f"{known[0]}: no such folder. Expected the references that the run was trained on. Give "
        "their folder: --references FOLDER."
    )
