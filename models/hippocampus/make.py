"""The model ``hippocampus`` from its training cases, and its cross-validation.

    python models/hippocampus/make.py DATASET WORK [--jobs 2] [--ship]
    python models/hippocampus/make.py DATASET WORK --beside nnunet --cpu-minutes 18 [--jobs 2]
    python models/hippocampus/make.py DATASET WORK --shipped [--jobs 2]

DATASET is MSD Task04 in nnU-Net's raw format, named Dataset004_Hippocampus. Five folds are trained
for 36 minutes of CPU time each, on one thread each: three hours. Every fold is then made a bundle
as it will be shipped and predicts, by the runtime, the cases that it has not seen; ``WORK`` gets
the masks, ``evaluation.json`` and ``report.html``. The bundle of all five folds is
``hippocampus.zip``; ``--ship`` puts it into the package. ``--beside`` trains another network for as
long, fold by fold with VeloxSeg, and judges it on the same cases. ``--folds 0 1`` trains and judges
some of the folds and makes no model of them. ``--shipped`` trains and exports nothing of
VeloxSeg's: it judges the five networks of the model in the package. What is done is passed over:
stop it and run it again.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from nnunetv2.utilities.crossval_split import generate_crossval_split
from one_network import write_network

from veloxseg.atomic import read_json, write_json
from veloxseg.datasets.splits import SPLITS_FILE
from veloxseg.datasets.workspace import Workspace
from veloxseg.models.carding import add_card
from veloxseg.models.finding import shipped_folder
from veloxseg.models.installing import bundle_hash
from veloxseg.planning.peer_plans import VELOXSEG
from veloxseg.training.launch import run_folder
from veloxseg.training.record import read_record

NAME = "hippocampus"
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
MASKS = {VELOXSEG: "--tta", f"{VELOXSEG}_unmirrored": "--no-tta"}
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
    parser.add_argument("--cpu-minutes", type=float, default=CPU_MINUTES, help="of each training")
    parser.add_argument("--folds", type=int, nargs="+", choices=FOLDS, default=FOLDS)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--ship", action="store_true")
    kind.add_argument("--shipped", action="store_true")
    options = parser.parse_args()
    minutes, folds = options.cpu_minutes, sorted(set(options.folds))
    some = len(folds) < len(FOLDS)
    if options.ship and some:
        parser.error("--ship: the model is made of all folds")
    workspace = Workspace.resolve(options.work)
    prepare(options.dataset, options.work, workspace, beside=options.beside)
    networks = [*([] if options.shipped else [VELOXSEG]), *options.beside]
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = product(folds, networks)  # a fold's networks at once: the machine's pace may change
        list(pool.map(lambda job: train(options.work, workspace, *job, minutes), jobs))
    run = run_folder(workspace, DATASET)
    bundles = [make_bundle(options.work, run, fold, options.shipped) for fold in folds]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda *one: predict_unseen(options.work, workspace, *one), folds, bundles))
    methods = {
        name: [options.work / "masks" / name / bundle.stem for bundle in bundles] for name in MASKS
    }
    for network in options.beside:
        beside = run_folder(workspace, DATASET, network=network)
        methods[network] = [beside / f"fold_{fold}" / "validation" for fold in folds]
    evaluation = judge(options.work, workspace, methods, subset=some)
    for name in methods:
        print(f"\n{name}\n\n{_table(_figures(evaluation, name))}")
    if options.shipped or some:
        return
    veloxseg("postprocess", run, root=options.work)
    bundle = export(options.work, run, evaluation, cpu_hours=cpu_hours(run, folds))
    if options.ship:
        shipped_folder().mkdir(exist_ok=True)
        shutil.copyfile(bundle, shipped_folder() / bundle.name)


def prepare(dataset: Path, work: Path, workspace: Workspace, *, beside: Sequence[str]) -> None:
    """Plan and preprocess a copy of the dataset, and split it as nnU-Net's trainer would."""
    raw, preprocessed = workspace.raw / DATASET, workspace.preprocessed / DATASET
    if not raw.exists():
        shutil.copytree(dataset, raw)
    if not (preprocessed / "VeloxSegPlans.json").is_file():
        veloxseg("plan", 4, root=work)
    for network in (VELOXSEG, *beside):
        veloxseg("preprocess", 4, "--network", network, root=work)
    if not (preprocessed / SPLITS_FILE).is_file():
        cases = sorted(file.name.removesuffix(".nii.gz") for file in raw.glob("labelsTr/*.nii.gz"))
        write_json(preprocessed / SPLITS_FILE, generate_crossval_split(cases))


def train(work: Path, workspace: Workspace, fold: int, network: str, cpu_minutes: float) -> None:
    """Train one fold, or go on with it, and validate it."""
    folder = run_folder(workspace, DATASET, network=network) / f"fold_{fold}"
    if (folder / "validation" / "summary.json").is_file():
        return
    words = ["--network", network, "--device", "cpu", "--cpu-minutes", cpu_minutes, "--resume"]
    if network == VELOXSEG:
        words += ["--learning-rate", LEARNING_RATE]
    veloxseg("train", 4, fold, *words, root=work)


def make_bundle(work: Path, run: Path, fold: int, shipped: bool) -> Path:
    """A fold's network as a bundle: as trained here, or out of the shipped model."""
    model = shipped_folder() / f"{NAME}.zip"
    kind = f"shipped_{bundle_hash(model)[:8]}" if shipped else "trained"
    bundle = work / "folds" / f"{kind}_{fold}.zip"
    if bundle.exists():
        return bundle
    if shipped:
        write_network(model, fold, bundle)
    else:
        words = ["--tta", "--fp16-weights", "--no-postprocessing"]
        veloxseg("export", run / f"fold_{fold}", bundle, *words, root=work)
    return bundle


def predict_unseen(work: Path, workspace: Workspace, fold: int, bundle: Path) -> None:
    """Predict the cases that a fold was not trained on, mirrored and not."""
    images = work / "folds" / f"images_{fold}"
    images.mkdir(exist_ok=True)
    for case in unseen_cases(workspace, fold):
        name = f"{case}_0000.nii.gz"
        if not (images / name).exists():
            (images / name).symlink_to((workspace.raw / DATASET / "imagesTr" / name).resolve())
    for masks, option in MASKS.items():
        words = ["-m", bundle, "-i", images, "-o", work / "masks" / masks / bundle.stem]
        veloxseg("predict", *words, option, "--resume", "--threads", 1)


def judge(
    work: Path, workspace: Workspace, methods: Mapping[str, Sequence[Path]], *, subset: bool
) -> dict[str, Any]:
    """Evaluate the cases, each by the fold that has not seen it, and write a report.

    Args:
        work: Where to.
        workspace: Where the references are.
        methods: Each one's folders of masks; the first one is compared with the others.
        subset: There are cases without masks, of folds that are left out.
    """
    raw, output = workspace.raw / DATASET, work / "evaluation.json"
    gathered = {name: _gather(work, name, folders) for name, folders in methods.items()}
    first = next(iter(gathered))
    words = [gathered.pop(first), raw / "labelsTr", "--name", first, "-o", output]
    for name, folder in gathered.items():
        words += ["--other", f"{name}={folder}"]
    veloxseg("evaluate", *words, *(["--subset"] if subset else []))
    title = "Hippocampus, cross-validation"
    veloxseg("report", output, "--images", raw / "imagesTr", "--title", title)
    found: dict[str, Any] = read_json(output)
    return found


def export(work: Path, run: Path, evaluation: dict[str, Any], *, cpu_hours: float) -> Path:
    """Make the bundle of all folds, with its card."""
    bundle = work / f"{NAME}.zip"
    about = [word for pair in ABOUT.items() for word in pair]
    options = ["--tta", "--fp16-weights", "--overwrite", *about]
    veloxseg("export", run, bundle, *options, root=work)
    figures = _figures(evaluation, VELOXSEG)
    cross_validation = {
        "by": "each case by the fold that has not seen it, by the runtime, mirrored",
        "num_cases": len(evaluation["metric_per_case"]),
        "mean_dice": round(evaluation["foreground_mean"]["Dice"], 4),
        **{name: _rounded(metrics) for name, metrics in figures.items()},
    }
    card = CARD.read_text().format(
        table=_table(figures), worst=_worst(evaluation), cpu_hours=cpu_hours
    )
    add_card(bundle, card, evaluation={"cross_validation": cross_validation})
    print(f"{bundle}: {bundle.stat().st_size / 1e6:.2f} MB")
    return bundle


def cpu_hours(run: Path, folds: Sequence[int]) -> float:
    """What the trainings were given, which may be another day's budget."""
    minutes: float = sum(read_record(run / f"fold_{fold}")["cpu_minutes"] for fold in folds)
    return minutes / 60


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
    shutil.rmtree(target, ignore_errors=True)  # of other folds than today's
    target.mkdir(parents=True)
    for folder in folders:
        for mask in folder.glob("*.nii.gz"):
            shutil.copyfile(mask, target / mask.name)
    return target


def _figures(evaluation: dict[str, Any], method: str) -> dict[str, dict[str, Any]]:
    """A method's statistics of each label, and of the mean of both."""
    names = {**evaluation["label_names"], "foreground_mean": "mean"}
    statistics = evaluation["methods"][method]["statistics"]
    return {name.lower(): statistics[key] for key, name in names.items()}


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
