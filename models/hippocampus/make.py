"""The model ``hippocampus`` from its training cases, and its cross-validation.

    python models/hippocampus/make.py DATASET WORK [--jobs 2] [--beside nnunet_own] [--ship]

DATASET is MSD Task04 in nnU-Net's raw format, named Dataset004_Hippocampus. Five folds are trained
for 36 minutes of CPU time each, on one thread each: three hours. Every fold is then made a bundle
as it will be shipped and predicts, by the runtime, the cases that it has not seen; ``WORK`` gets
the masks, ``evaluation.json`` and ``report.html``. The bundle of all five folds is
``hippocampus.zip``; ``--ship`` puts it into the package. ``--beside`` trains another network for as
long and judges it on the same cases. What is done is passed over: stop it and run it again.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json
from veloxseg.datasets.splits import SPLITS_FILE
from veloxseg.datasets.workspace import Workspace
from veloxseg.models.carding import add_card
from veloxseg.models.finding import shipped_folder
from veloxseg.planning.peer_plans import VELOXSEG
from veloxseg.training.launch import run_folder

DATASET = "Dataset004_Hippocampus"
FOLDS = range(5)
CPU_MINUTES = 36
LEARNING_RATE = 1e-2
"""Chosen on fold 1 among 5e-3, 1e-2 and 2e-2; see docs/results.md."""

ABOUT = {
    "--data": "Medical Segmentation Decathlon, Task04 Hippocampus: 208 T1 MR crops of Vanderbilt "
    "University Medical Center",
    "--licence": "CC BY-SA 4.0",
    "--intended-use": "Research. Not a medical device.",
}
CARD = Path(__file__).with_name("card.md")


def main() -> None:
    """Train, judge, export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time, one thread each")
    parser.add_argument("--beside", action="append", default=[], metavar="NETWORK")
    parser.add_argument("--ship", action="store_true")
    options = parser.parse_args()
    workspace = Workspace.resolve(options.work)
    prepare(options.dataset, options.work, workspace)
    trained = [(network, fold) for network in (VELOXSEG, *options.beside) for fold in FOLDS]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda one: train(options.work, workspace, *one), trained))
    run = run_folder(workspace, DATASET)
    veloxseg("postprocess", run, root=options.work)
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda fold: predict_unseen(options.work, workspace, fold), FOLDS))
    evaluation = judge(options.work, workspace, options.beside)
    bundle = export(options.work, run, evaluation)
    if options.ship:
        shipped_folder().mkdir(exist_ok=True)
        shutil.copyfile(bundle, shipped_folder() / bundle.name)


def prepare(dataset: Path, work: Path, workspace: Workspace) -> None:
    """Plan and preprocess a copy of the dataset."""
    raw = workspace.raw / DATASET
    if not raw.exists():
        shutil.copytree(dataset, raw)
    if not (workspace.preprocessed / DATASET / "VeloxSegPlans.json").is_file():
        veloxseg("plan", 4, root=work)
    veloxseg("preprocess", 4, root=work)


def train(work: Path, workspace: Workspace, network: str, fold: int) -> None:
    """Train one fold, or go on with it, and validate it."""
    folder = run_folder(workspace, DATASET, network=network) / f"fold_{fold}"
    if (folder / "validation" / "summary.json").is_file():
        return
    words = ["train", 4, fold, "--network", network, "--device", "cpu"]
    if any(folder.glob("checkpoint_*.pth")):
        words.append("--resume")
    else:
        words += ["--cpu-minutes", CPU_MINUTES]
        if network == VELOXSEG:
            words += ["--learning-rate", LEARNING_RATE]
    veloxseg(*words, root=work)


def predict_unseen(work: Path, workspace: Workspace, fold: int) -> None:
    """Make a fold's bundle and predict the cases that it was not trained on."""
    bundle = work / "folds" / f"fold_{fold}.zip"
    if not bundle.exists():
        run = run_folder(workspace, DATASET) / f"fold_{fold}"
        words = ["--tta", "--fp16-weights", "--no-postprocessing"]
        veloxseg("export", run, bundle, *words, root=work)
    images = work / "folds" / f"images_{fold}"
    images.mkdir(exist_ok=True)
    for case in unseen_cases(workspace, fold):
        name = f"{case}_0000.nii.gz"
        if not (images / name).exists():
            (images / name).symlink_to((workspace.raw / DATASET / "imagesTr" / name).resolve())
    for masks, option in (("mirrored", "--tta"), ("plain", "--no-tta")):
        words = ["-m", bundle, "-i", images, "-o", work / "masks" / masks / f"fold_{fold}"]
        veloxseg("predict", *words, option, "--resume", "--threads", 1)


def judge(work: Path, workspace: Workspace, beside: Sequence[str]) -> dict[str, Any]:
    """Evaluate all cases, each by the fold that has not seen it, and write a report."""
    raw, output = workspace.raw / DATASET, work / "evaluation.json"
    methods = {
        name: _gather(work, name, [work / "masks" / name / f"fold_{fold}" for fold in FOLDS])
        for name in ("mirrored", "plain")
    }
    for network in beside:
        run = run_folder(workspace, DATASET, network=network)
        folds = [run / f"fold_{fold}" / "validation" for fold in FOLDS]
        methods[network] = _gather(work, network, folds)
    words = [methods.pop("mirrored"), raw / "labelsTr", "--name", "veloxseg", "-o", output]
    for name, folder in methods.items():
        words += ["--other", f"{name}={folder}"]
    veloxseg("evaluate", *words)
    title = "Hippocampus, cross-validation"
    veloxseg("report", output, "--images", raw / "imagesTr", "--title", title)
    found: dict[str, Any] = read_json(output)
    return found


def export(work: Path, run: Path, evaluation: dict[str, Any]) -> Path:
    """Make the bundle of all folds, with its card."""
    bundle = work / "hippocampus.zip"
    about = [word for pair in ABOUT.items() for word in pair]
    options = ["--tta", "--fp16-weights", "--overwrite", *about]
    veloxseg("export", run, bundle, *options, root=work)
    figures = _figures(evaluation)
    cross_validation = {
        "by": "each case by the fold that has not seen it, by the runtime, mirrored",
        "num_cases": len(evaluation["metric_per_case"]),
        "mean_dice": round(evaluation["foreground_mean"]["Dice"], 4),
        **{name: _rounded(metrics) for name, metrics in figures.items()},
    }
    card = CARD.read_text().format(
        table=_table(figures), worst=_worst(evaluation), cpu_hours=CPU_MINUTES * len(FOLDS) / 60
    )
    add_card(bundle, card, evaluation={"cross_validation": cross_validation})
    print(f"{bundle}: {bundle.stat().st_size / 1e6:.2f} MB")
    return bundle


def unseen_cases(workspace: Workspace, fold: int) -> list[str]:
    """Cases that a fold was not trained on."""
    splits = read_json(workspace.preprocessed / DATASET / SPLITS_FILE)
    cases: list[str] = splits[fold]["val"]
    return cases


def veloxseg(*words: Any, root: Path | None = None) -> None:
    """Run a command on one thread; end here where it fails."""
    command = [str(Path(sys.executable).with_name("veloxseg")), *map(str, words)]
    if root is not None:
        command += ["--root", str(root)]
    print(" ".join(command[1:]), flush=True)
    threads = {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}
    if code := subprocess.run(command, env=os.environ | threads).returncode:
        sys.exit(code)


def _gather(work: Path, name: str, folders: Sequence[Path]) -> Path:
    """One folder of all folds' masks."""
    target = work / "masks" / f"{name}_all"
    target.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        for mask in folder.glob("*.nii.gz"):
            shutil.copyfile(mask, target / mask.name)
    return target


def _figures(evaluation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Statistics of each label, and of the mean of both."""
    names = {**evaluation["label_names"], "foreground_mean": "mean"}
    return {name.lower(): evaluation["statistics"][key] for key, name in names.items()}


def _rounded(metrics: dict[str, Any]) -> dict[str, float]:
    return {key: round(metrics[key]["mean"], 4) for key in ("Dice", "HD95_mm", "NSD")}


def _table(figures: dict[str, dict[str, Any]]) -> str:
    rows = ["| | Dice (95 % interval) | HD95, mm | NSD at 1 mm |", "| --- | --- | --- | --- |"]
    for name, metrics in figures.items():
        low, high = metrics["Dice"]["interval_95"]
        rows.append(
            f"| {name} | {metrics['Dice']['mean']:.3f} ({low:.3f} to {high:.3f}) | "
            f"{metrics['HD95_mm']['mean']:.2f} | {metrics['NSD']['mean']:.3f} |"
        )
    return "\n".join(rows)


def _worst(evaluation: dict[str, Any], number: int = 5) -> str:
    """The cases of lowest Dice, in words."""

    def dice(case: dict[str, Any]) -> Iterator[float]:
        for metrics in case["metrics"].values():
            yield metrics["Dice"]

    cases = sorted(evaluation["metric_per_case"], key=lambda case: sum(dice(case)))[:number]
    return ", ".join(
        f"{case['case']} ({', '.join(f'{one:.2f}' for one in dice(case))})" for case in cases
    )


if __name__ == "__main__":
    main()
