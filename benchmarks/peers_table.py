"""VeloxSeg beside other networks, trained for equally long on one fold: the table of results.

    python benchmarks/peers_table.py run ROOT RESULTS --dataset 4 --fold 0 --cpu-minutes 30
    python benchmarks/peers_table.py table RESULTS

ROOT holds a planned and preprocessed dataset. Each network is trained on one thread, augmentation
included, for ``--cpu-minutes`` of the process's own CPU time, so that other work on the machine
takes no steps from it, or with ``--minutes`` for as many on the wall. The rate of a large matrix
product before and after tells whether the machine was equally fast for all. Whole validation cases
are judged on their own grid, mirrored as nnU-Net's validation does it. Seconds of a case are CPU
time of the sliding window in PyTorch, without mirroring, on one thread. Every stage is its own
process; what has a result is passed over, a training that was stopped goes on, and where a stage
fails, the other networks still have their turn.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json, write_json
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import VeloxSegError
from veloxseg.installation import extension_folder
from veloxseg.quiet import printing_to_log

NETWORKS = (
    "veloxseg_s",
    "veloxseg_b",
    "veloxseg_l",
    "nnunet_own",
    "segresnet",
    "segresnet_8",
    "swinunetr",
)
CPU_MINUTES = 30.0
SETTINGS_FILE = "settings.json"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}


def run(options: argparse.Namespace) -> None:
    """Train, judge and measure what has no result yet, each stage in a process of its own."""
    require_same_settings(options)
    words = ["--dataset", options.dataset, "--fold", str(options.fold)]
    words += ["--seed", str(options.seed), "--max-cases", str(options.max_cases)]
    for option in ("minutes", "cpu_minutes", "learning_rate"):
        if (value := getattr(options, option)) is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    failed = []
    for network in options.networks or NETWORKS:
        for stage in STAGES:
            if _result(options.results, network, stage).is_file():
                continue
            places = [str(options.root), str(options.results), network]
            code = _run_to_its_end([sys.executable, __file__, stage, *places, *words])
            how = f"failed with code {code}" if code else "done"
            print(f"{network}: {stage} {how}", flush=True)
            if code:
                failed.append(network)
                break
    table(options.results)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}. What they said is above; run it again to go on.")


def require_same_settings(options: argparse.Namespace) -> None:
    """Keep results apart that are not to stand in one table."""
    settings = {
        "dataset": options.dataset,
        "fold": options.fold,
        **_budget(options),
        "seed": options.seed,
        "max_cases": options.max_cases,
    }
    if options.learning_rate is not None:
        settings["learning_rate"] = options.learning_rate
    file = options.results / SETTINGS_FILE
    if not file.is_file():
        write_json(file, settings)
    elif (found := read_json(file)) != settings:
        sys.exit(f"{file}: {found}. Now it would be {settings}. Give another folder of results.")


def _budget(options: argparse.Namespace) -> dict[str, Any]:
    if options.minutes is not None:
        return {"minutes": float(options.minutes), "clock": "wall"}
    return {"minutes": float(options.cpu_minutes), "clock": "CPU"}


def _run_to_its_end(words: Sequence[str]) -> int:
    """The code of a process that is let finish, told to stop or not: it may keep a checkpoint.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    process = subprocess.Popen(words)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        code = process.wait()
    except KeyboardInterrupt:  # the terminal has told the process as well
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if code in (-signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    return code


def train(options: argparse.Namespace, workspace: Workspace, name: str, network: str) -> Any:
    """One training within the budget and its validation; its steps, time and peak of memory."""
    from rich.console import Console

    from training_step import matrix_product_gflops
    from veloxseg.planning.files import CONFIGURATION
    from veloxseg.planning.peer_plans import network_plans
    from veloxseg.planning.plan import preprocess
    from veloxseg.training.launch import fold_folder
    from veloxseg.training.pipeline import finish_training
    from veloxseg.training.record import read_record
    from veloxseg.training.settings import TrainingSettings

    with printing_to_log():
        preprocess(name, workspace=workspace, network=network)
    settings = TrainingSettings(
        dataset=name,
        fold=options.fold,
        network=network,
        minutes=options.minutes,
        cpu_minutes=options.cpu_minutes,
        learning_rate=options.learning_rate,
        seed=options.seed,
        device="cpu",
        num_workers=0,
    )
    folder = fold_folder(workspace, name, options.fold, network=network)
    require_same_training(folder, settings)
    rate_before = matrix_product_gflops(size=2048)
    finish_training(settings, workspace=workspace, console=Console(quiet=True))
    record = read_record(folder)
    configuration = network_plans(workspace, name, network)["configurations"][CONFIGURATION]
    return {
        **_budget(options),
        "wall_minutes": round(record["wall_seconds"] / 60, 1),
        "steps": record["steps"],
        "seed": record["seed"],
        "patch_size": configuration["patch_size"],
        "batch_size": configuration["batch_size"],
        "learning_rate": options.learning_rate or configuration["training"]["learning_rate"],
        "optimizer": configuration["training"].get("optimizer", "adamw"),
        "peak_training_mb": record["peak_memory_mb"],
        "matrix_product_gflops": [rate_before, matrix_product_gflops(size=2048)],
    }


def require_same_training(folder: Path, settings: Any) -> None:
    """Check that what has been trained in a fold's folder is the training that was asked for.

    Raises:
        VeloxSegError: something else began it.
    """
    from veloxseg.training.record import read_record
    from veloxseg.training.runs import has_begun

    if not has_begun(folder):
        return
    record = read_record(folder)
    for name in ("network", "minutes", "cpu_minutes", "epochs", "learning_rate", "seed"):
        if record.get(name) != getattr(settings, name):
            raise VeloxSegError(
                f"{folder}: begun by another training, whose {name} is {record.get(name)} and not "
                f"{getattr(settings, name)}. Move it away to train by this."
            )


def judge(options: argparse.Namespace, workspace: Workspace, name: str, network: str) -> Any:
    """Whole validation cases, by VeloxSeg's evaluation: its means, and every case."""
    from veloxseg.evaluation.summary import evaluate_folder
    from veloxseg.training.launch import fold_folder

    summary = options.results / f"{network}.summary.json"
    evaluate_folder(
        fold_folder(workspace, name, options.fold, network=network) / "validation",
        workspace.raw / name / "labelsTr",
        subset=True,
        name=network,
        output=summary,
    )
    found = read_json(summary)
    return {
        "statistics": {"foreground_mean": _judged(found["statistics"]["foreground_mean"])},
        "cases": {
            case["case"]: {label: _judged(values) for label, values in case["metrics"].items()}
            for case in found["metric_per_case"]
        },
    }


def _judged(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in ("Dice", "HD95_mm", "NSD")}


def measure(options: argparse.Namespace, workspace: Workspace, name: str, network: str) -> Any:
    """CPU seconds of whole cases, multiply-adds of a patch and the peak of memory."""
    import numpy as np
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
    from torch.utils.flop_counter import FlopCounterMode

    from veloxseg.datasets.splits import SPLITS_FILE
    from veloxseg.peak_memory import peak_memory_mb
    from veloxseg.planning.files import CONFIGURATION
    from veloxseg.planning.peer_plans import network_plans
    from veloxseg.training.launch import run_folder

    torch.set_num_threads(1)
    configuration = network_plans(workspace, name, network)["configurations"][CONFIGURATION]
    preprocessed = workspace.preprocessed / name
    folder = preprocessed / configuration["data_identifier"]
    keys = read_json(preprocessed / SPLITS_FILE)[options.fold]["val"][: options.max_cases]
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    with printing_to_log():
        predictor.initialize_from_trained_model_folder(
            str(run_folder(workspace, name, network=network)), (options.fold,)
        )
    network_of_fold = predictor.network.eval()
    cases = infer_dataset_class(str(folder))(str(folder), keys)
    seconds = []
    for number, key in enumerate([keys[0], *keys]):  # the first one once more, to warm up
        image = torch.from_numpy(np.array(cases.load_case(key)[0][:]))
        started = time.process_time()
        predictor.predict_sliding_window_return_logits(image)
        if number:
            seconds.append(time.process_time() - started)
    peak = peak_memory_mb()
    patch = torch.zeros(1, image.shape[0], *configuration["patch_size"])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network_of_fold(patch)
    return {
        "cases": len(seconds),
        "cpu_seconds_per_case": float(np.mean(seconds)),
        "peak_inference_mb": peak,
        "parameters": sum(p.numel() for p in network_of_fold.parameters()),
        "multiply_adds": int(counter.get_total_flops()) // 2,
    }


STAGES: dict[str, Callable[..., Any]] = {"train": train, "judge": judge, "measure": measure}


def _result(results: Path, network: str, stage: str) -> Path:
    return results / f"{network}.{stage}.json"


def run_stage(options: argparse.Namespace) -> None:
    """One stage of one network, in this process, which has not imported PyTorch yet."""
    os.environ |= {**ONE_THREAD, "nnUNet_extTrainer": str(extension_folder())}
    workspace = Workspace.resolve(options.root)
    workspace.export()
    name = workspace.dataset_name(options.dataset)
    (network,) = options.networks
    found = STAGES[options.command](options, workspace, name, network)
    write_json(_result(options.results, network, options.command), found)


def table(results: Path) -> None:
    """Print what was found as Markdown."""
    if (results / SETTINGS_FILE).is_file():
        print(", ".join(f"{k} {v}" for k, v in read_json(results / SETTINGS_FILE).items()) + "\n")
    print(
        "| network | parameters | multiply-adds | patch, batch | rate | steps | Dice (95 %) | "
        "HD95 mm | NSD at 1 mm | CPU s a case | peak MB: training, inference |"
    )
    print("| --- |" + " ---: |" * 10)
    trained = [file.name.removesuffix(".train.json") for file in results.glob("*.train.json")]
    known = [network for network in NETWORKS if network in trained]
    rates: list[float] = []
    for network in [*known, *sorted(set(trained) - set(known))]:
        files = [_result(results, network, stage) for stage in STAGES]
        if not all(file.is_file() for file in files):
            print(f"| {network} |" + " |" * 10)
            continue
        training, judged, cost = map(read_json, files)
        print(_row(network, training, judged["statistics"]["foreground_mean"], cost))
        rates += training.get("matrix_product_gflops", [])
    if rates:
        print(f"\nMatrix products, one thread, GFLOP/s: {min(rates):.0f} to {max(rates):.0f}.")


def _row(network: str, training: Any, judged: Any, cost: Any) -> str:
    dice = judged["Dice"]
    interval = (
        "" if dice["interval_95"] is None else " ({:.3f} to {:.3f})".format(*dice["interval_95"])
    )
    missing = judged["HD95_mm"]["num_undefined"]
    cells = [
        network,
        f"{cost['parameters'] / 1e6:.2f} M",
        f"{cost['multiply_adds'] / 1e9:.3g} G",
        f"{'×'.join(map(str, training['patch_size']))}, {training['batch_size']}",
        f"{training['learning_rate']:g}",
        str(training["steps"]),
        _number(dice["mean"], 3) + interval,
        _number(judged["HD95_mm"]["mean"], 2) + (f", undefined in {missing}" if missing else ""),
        _number(judged["NSD"]["mean"], 3),
        f"{cost['cpu_seconds_per_case']:.2f}",
        f"{_number(training['peak_training_mb'], 0)}, {_number(cost['peak_inference_mb'], 0)}",
    ]
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; without a budget it is 30 minutes of CPU time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", *STAGES):
        command = commands.add_parser(name)
        command.add_argument("root", type=Path)
        command.add_argument("results", type=Path)
        command.add_argument("networks", nargs="*")
        command.add_argument("--dataset", default="4")
        command.add_argument("--fold", type=int, default=0)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--max-cases", type=int, default=20, help="whose time is measured")
        command.add_argument("--learning-rate", type=float, help="else the plan's")
        budget = command.add_mutually_exclusive_group()
        budget.add_argument("--cpu-minutes", type=float, help=f"{CPU_MINUTES:g} without a budget")
        budget.add_argument("--minutes", type=float)
    commands.add_parser("table").add_argument("results", type=Path)
    options = parser.parse_args(words)
    if options.command != "table" and options.minutes is None and options.cpu_minutes is None:
        options.cpu_minutes = CPU_MINUTES
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    options = parse(words)
    if options.command == "table":
        table(options.results)
    elif options.command == "run":
        run(options)
    else:
        run_stage(options)


if __name__ == "__main__":
    main()
