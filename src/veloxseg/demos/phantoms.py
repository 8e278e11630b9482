"""The whole way from scans to masks and figures, on generated PET/CT."""

import json
import math
import shlex
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from veloxseg.atomic import write_json
from veloxseg.bundle.export import export
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters.folder import convert_folder
from veloxseg.datasets.phantoms import generate_phantoms
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import VeloxSegError
from veloxseg.evaluation.overlay import OverlayCase, draw_overlay
from veloxseg.evaluation.summary import Summary, evaluate_folder
from veloxseg.evaluation.table import format_summary
from veloxseg.planning.plan import plan, preprocess
from veloxseg.planning.target import DEFAULT_TARGET, parse_target
from veloxseg.runtime.prediction import predict
from veloxseg.training.launch import fold_folder
from veloxseg.training.pipeline import finish_training, is_planned
from veloxseg.training.settings import TrainingSettings

TRAINING_MINUTES = 3.0
NUM_TRAINING_CASES = 20
NUM_UNSEEN_CASES = 6
TARGET = DEFAULT_TARGET.name
NUM_WORKERS = 1
NUM_DRAWN_CASES = 3

_DATASET = "Dataset901_Phantoms"
_UNSEEN = "Dataset902_UnseenPhantoms"
_CHANNELS = {"CT": "{case}/CT.nii.gz", "PET": "{case}/PET.nii.gz"}
_LABEL = "{case}/lesions.nii.gz"
_FOLD = 0
_BUNDLE = "phantoms.veloxseg"


@dataclass(frozen=True, kw_only=True)
class _Settings:
    seed: int
    minutes: float
    num_training_cases: int = NUM_TRAINING_CASES
    num_unseen_cases: int = NUM_UNSEEN_CASES
    target: str = TARGET

    def __post_init__(self) -> None:
        """Say at once what would be said after minutes of generating."""
        if not 0 < self.minutes < math.inf:
            raise VeloxSegError(f"--minutes is {self.minutes:g}: expected a positive number.")
        if self.seed < 0:
            raise VeloxSegError(f"--seed is {self.seed}: expected 0 or more.")


def run_demo(
    output: Path, *, console: Console, minutes: float | None = None, seed: int = 0
) -> Summary:
    """Generate, convert, check, plan, preprocess, train, export, predict, evaluate and draw.

    Run again with the same settings, it goes on where it stopped; with others, it starts anew and
    replaces what it had written, and nothing else.

    Args:
        output: Folder to write to: new, empty, or an earlier demo's.
        console: Where each stage is told, with the command that does the same.
        minutes: Of training; None takes ``TRAINING_MINUTES``.
        seed: Of the patients and of the training.

    Returns:
        The figures on unseen patients.

    Raises:
        VeloxSegError: the folder holds something else, or a setting is out of range.
    """
    started = monotonic()
    settings = _Settings(seed=seed, minutes=TRAINING_MINUTES if minutes is None else minutes)
    _claim(output, settings)
    workspace = Workspace.resolve(output)
    _make_datasets(output, workspace, settings, console)
    _train(output, workspace, settings, console)
    summary = _predict_unseen(output, workspace, console)
    _say(console, "Drawing unseen cases")
    overlay = _draw(output, workspace, summary)
    console.print(format_summary(summary))
    _say_what_next(console, output, overlay, summary, minutes=(monotonic() - started) / 60)
    return summary


def _claim(output: Path, settings: _Settings) -> None:
    """Take a folder for the demo; one of a demo with other settings is emptied of its files."""
    mark = output / "demo.json"
    earlier = _read_settings(mark)
    if output.exists() and earlier is None and not _is_empty_folder(output):
        raise VeloxSegError(
            f"{output}: neither an empty folder nor an earlier demo's. Choose another folder: "
            "--output DIR."
        )
    if earlier is not None and earlier != asdict(settings):
        _require_no_trainings(output)
        for made in _made_by_demo(output):
            if made.is_dir():
                shutil.rmtree(made)
            else:
                made.unlink(missing_ok=True)
    write_json(mark, asdict(settings))


def _require_no_trainings(output: Path) -> None:
    """Make sure that no training but the demo's own is deleted with its results."""
    folds = (output / "nnUNet_results" / _DATASET).glob("*/fold_*")
    own = fold_folder(Workspace.resolve(output), _DATASET, _FOLD)
    others = sorted(fold for fold in folds if fold.resolve() != own.resolve())
    if others:
        raise VeloxSegError(
            f"{others[0]}: a training that the demo did not make. With other settings it starts "
            "anew and would delete it. Choose another folder (--output DIR), or move it away."
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _read_settings(mark: Path) -> dict[str, object] | None:
    """Those of an earlier demo; None where the file is not there or another program's."""
    try:
        content = json.loads(mark.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) and {"seed", "minutes"} <= set(content) else None


def _made_by_demo(output: Path) -> list[Path]:
    folders = [
        output / f"nnUNet_{part}" / name
        for part in ("raw", "preprocessed", "results")
        for name in (_DATASET, _UNSEEN)
    ]
    figures = ("summary.json", "summary_cases")
    names = ("phantoms", _BUNDLE, "predictions", *figures, "overlay.png")
    return [*folders, *(output / name for name in names)]


def _make_datasets(
    output: Path, workspace: Workspace, settings: _Settings, console: Console
) -> None:
    phantoms = output / "phantoms"
    sources = {_DATASET: phantoms / "train", _UNSEEN: phantoms / "test"}
    waiting = [name for name in sources if not (workspace.raw / name / "dataset.json").is_file()]
    if waiting:
        cases = f"{settings.num_training_cases} + {settings.num_unseen_cases}"
        _say(console, f"Generating {cases} PET/CT cases with lesions in {phantoms}")
        generate_phantoms(
            phantoms,
            num_cases=settings.num_training_cases,
            num_test_cases=settings.num_unseen_cases,
            seed=settings.seed,
        )
    for name in waiting:
        channels = " ".join(f"--channel {key}='{value}'" for key, value in _CHANNELS.items())
        _say(
            console,
            f"Putting PET on the CT's grid, into nnU-Net's format: {name}",
            f"convert folder {_quoted(sources[name])} {name} {channels} --label '{_LABEL}' "
            f"--reference CT --labels lesion=1 --root {_quoted(output)}",
        )
        convert_folder(
            sources[name],
            name,
            workspace=workspace,
            channels=_CHANNELS,
            label=_LABEL,
            reference="CT",
            label_names={"lesion": 1},
        )


def _train(output: Path, workspace: Workspace, settings: _Settings, console: Console) -> None:
    root = f"--root {_quoted(output)}"
    if not is_planned(workspace, _DATASET):
        _say(console, "Checking every file", f"check 901 {root}")
        check_dataset(workspace.raw / _DATASET).raise_for_errors()
        _say(
            console,
            "Planning a network for these cases",
            f"plan 901 --target {settings.target} {root}",
        )
        plan(
            _DATASET,
            workspace=workspace,
            target=parse_target(settings.target),
            num_workers=NUM_WORKERS,
        )
    _say(console, "Resampling and normalising", f"preprocess 901 {root}")
    preprocess(_DATASET, workspace=workspace, num_workers=NUM_WORKERS)
    _say(
        console,
        f"Training for {settings.minutes:g} minutes",
        f"train 901 0 --minutes {settings.minutes:g} --seed {settings.seed} {root}",
    )
    finish_training(
        TrainingSettings(
            dataset=_DATASET,
            fold=_FOLD,
            minutes=settings.minutes,
            num_workers=NUM_WORKERS,
            seed=settings.seed,
        ),
        workspace=workspace,
        console=Console(stderr=True, highlight=False, markup=False),
    )


def _predict_unseen(output: Path, workspace: Workspace, console: Console) -> Summary:
    unseen, predictions = workspace.raw / _UNSEEN, output / "predictions"
    shown = output / "nnUNet_raw" / _UNSEEN
    bundle = output / _BUNDLE
    if not bundle.exists():
        _say(
            console,
            "Exporting the network to run without PyTorch",
            f"export 901/0 {_quoted(bundle)} --root {_quoted(output)}",
        )
        export(f"{_DATASET}/0", bundle, workspace=workspace)
    _say(
        console,
        "Predicting cases that training has not seen",
        f"predict -m {_quoted(bundle)} -i {_quoted(shown / 'imagesTr')} -o {_quoted(predictions)}",
    )
    predict(bundle, [unseen / "imagesTr"], predictions, resume=True)
    figures = output / "summary.json"
    _say(
        console,
        "Comparing with the true lesions",
        f"evaluate {_quoted(predictions)} {_quoted(shown / 'labelsTr')} -o {_quoted(figures)}",
    )
    return evaluate_folder(predictions, unseen / "labelsTr", output=figures)


def _draw(output: Path, workspace: Workspace, summary: Summary) -> Path:
    images = workspace.raw / _UNSEEN / "imagesTr"
    cases = [
        OverlayCase(
            name=case.name,
            channels=[
                (channel, images / f"{case.name}_{index:04d}.nii.gz")
                for index, channel in enumerate(_CHANNELS)
            ],
            masks={"reference": case.reference_file, "prediction": case.prediction_file},
        )
        for case in summary.cases[:NUM_DRAWN_CASES]
    ]
    return draw_overlay(cases, output / "overlay.png", title="VeloxSeg on unseen phantoms")


def _say(console: Console, what: str, command: str | None = None) -> None:
    console.print(Text.assemble((what, "bold"), f": veloxseg {command}" if command else ""))


def _quoted(path: Path) -> str:
    """As a shell takes it."""
    return shlex.quote(str(path))


def _say_what_next(
    console: Console, output: Path, overlay: Path, summary: Summary, *, minutes: float
) -> None:
    console.print(
        f"[bold]Lesion Dice on unseen cases: {summary.foreground_mean()['Dice']:.3f}[/bold], "
        f"after {minutes:.1f} minutes\n"
        f"Picture: {escape(str(overlay))}\n"
        f"Figures: {escape(str(output / 'summary.json'))}\n"
        "\n[bold]Next, your own scans[/bold] (here SRC has one folder for each case):\n"
        "  veloxseg convert folder SRC Dataset100_Tumour --channel CT='{case}/CT.nii.gz' \\\n"
        "    --channel PET='{case}/PET.nii.gz' --label '{case}/tumour.nii.gz' --reference CT \\\n"
        "    --labels tumour=1 --root DIR\n"
        "  veloxseg run 100 --minutes 60 --root DIR\n"
        "  veloxseg export 100 tumour.veloxseg --root DIR\n"
        "  veloxseg predict -m tumour.veloxseg -i CT.nii.gz -i PET.nii.gz -o mask.nii.gz",
        markup=True,
    )
