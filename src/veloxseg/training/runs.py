"""Trained runs: which folder and folds a name means."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json
from veloxseg.datasets.description import DatasetDescription, read_description
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import BundleError
from veloxseg.planning.files import PLANS_NAME

FINAL = "checkpoint_final.pth"

_FOLD = re.compile(r"fold_(\d+|all)")  # a copy, fold_0_backup, is none


def has_begun(folder: Path) -> bool:
    """Whether a fold's folder has a checkpoint to go on from."""
    return any(folder.glob("checkpoint_*.pth"))


@dataclass(frozen=True, kw_only=True)
class Run:
    """A trained model as nnU-Net stores it.

    Attributes:
        folder: ``TRAINER__PLANS__CONFIGURATION``, with dataset.json and plans.json.
        folds: The finished folds to predict with; several are averaged.
    """

    folder: Path
    folds: tuple[int | str, ...]

    @property
    def description(self) -> DatasetDescription:
        """Channels and labels that the model was trained on."""
        return read_description(self.folder)

    @property
    def plans(self) -> dict[str, Any]:
        """The plan that the model was trained by."""
        plans: dict[str, Any] = read_json(self.folder / "plans.json")
        return plans


def find_run(run: str | Path, *, workspace: Workspace | None = None) -> Run:
    """Find a trained model.

    Args:
        run: A results folder (``TRAINER__PLANS__CONFIGURATION`` or a ``fold_N`` in it), or
            ``DATASET`` or ``DATASET/FOLD`` for the newest run of a dataset: of its VeloxSeg plan
            where there is one, not of another network that it is compared with.
        workspace: Where datasets are looked up; a folder needs none.

    Raises:
        BundleError: there is no such run, it is incomplete, or its training is unfinished.
        DatasetError: there is no such dataset.
    """
    path = Path(run).expanduser()
    if path.is_dir() and (path / "plans.json").is_file():
        return _finished(path, None)
    if path.is_dir() and _FOLD.fullmatch(path.name):
        folder = path.absolute()
        if not (folder.parent / "plans.json").is_file():
            folder = folder.resolve()  # a link from elsewhere
        return _finished(folder.parent, folder.name.removeprefix("fold_"))
    if path.exists() or workspace is None or len(path.parts) > 2:
        raise BundleError(
            f"{path}: no trained model. Expected a folder such as "
            "VeloxSegTrainer__VeloxSegPlans__3d_fullres with plans.json, one of its fold_N "
            "folders, or DATASET or DATASET/FOLD."
        )
    dataset, *fold = path.parts
    name = workspace.dataset_name(dataset)
    wanted = fold[0].removeprefix("fold_") if fold else None
    return _finished(_newest(workspace.results / name, wanted), wanted)


def resume_command(folder: Path, fold: int | str) -> str:
    """The command that goes on with a fold of a run's folder, ``TRAINER__PLANS__CONFIGURATION``."""
    _, _, network = folder.name.rpartition("__")[0].partition(f"__{PLANS_NAME}_")
    return f"veloxseg train DATASET {fold}{f' --network {network}' if network else ''} --resume"


def _newest(results: Path, fold: str | None) -> Path:
    """The run folder with the newest final checkpoint, or the newest of any where none has one.

    Runs by the dataset's own plan come before those of networks that it is compared with.
    """
    number = "*" if fold is None else fold
    for plans_name in (PLANS_NAME, "*"):
        for checkpoint in (FINAL, "*.pth"):
            pattern = f"*__{plans_name}__*/fold_{number}/{checkpoint}"
            found = sorted(results.glob(pattern), key=lambda file: file.stat().st_mtime)
            if found:
                return found[-1].parent.parent
    fold_text = "" if fold is None else f" fold {fold}"
    raise BundleError(
        f"{results}: no trained{fold_text or ' fold'}. Train it first: "
        f"veloxseg train {results.name} {fold or 0}"
    )


def _finished(folder: Path, fold: str | None) -> Run:
    for file in ("dataset.json", "plans.json"):
        if not (folder / file).is_file():
            raise BundleError(
                f"{folder}: no {file}. Expected it beside the folds. Copy the whole folder again."
            )
    names = (_FOLD.fullmatch(path.name) for path in folder.glob("fold_*"))
    begun = sorted(name[1] for name in names if name)
    done = [name for name in begun if (folder / f"fold_{name}" / FINAL).is_file()]
    if fold is None:
        numbered = [name for name in done if name != "all"]
        wanted = numbered or done
    else:
        wanted = [name for name in done if name == fold]
    if not wanted:
        which = f"fold_{fold}" if fold is not None else "folds"
        raise BundleError(
            f"{folder}: no {FINAL} in {which} (there: {', '.join(begun) or 'no fold'}). "
            "The training is unfinished. Finish it: "
            f"{resume_command(folder, fold or (begun or ['0'])[0])}"
        )
    return Run(folder=folder, folds=tuple(int(n) if n.isdigit() else n for n in wanted))
