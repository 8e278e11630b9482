"""Trainings that differ in one choice of the plan each: what the planning rules rest on.

    python benchmarks/planning_table.py run ROOT RESULTS NAME ... --cpu-minutes 10
    python benchmarks/planning_table.py table RESULTS

ROOT holds planned and preprocessed datasets. A training runs on one thread for as many minutes of
the process's own CPU time, augmentation included, so that other work on the machine takes
wall-clock time but no steps from it. It is judged on whole cases of its fold's validation part, on
the network's grid, without mirroring. NAME is ``DATASET:FOLD:VARIANT[:SEED]``; results that are
there are passed over.
"""

import argparse
import copy
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}

import numpy as np
import torch

from veloxseg.atomic import read_json, write_json
from veloxseg.datasets.description import read_description
from veloxseg.datasets.workspace import Workspace
from veloxseg.network.config import NetworkConfig
from veloxseg.network.size import count_parameters
from veloxseg.peak_memory import peak_memory_mb
from veloxseg.planning.files import CONFIGURATION, STRUCTURES_KEY, read_plans
from veloxseg.planning.network_plan import DatasetNumbers, plan_network
from veloxseg.planning.structures import StructureSizes
from veloxseg.planning.target import DEFAULT_TARGET

Variant = dict[str, Any]

SMALL = 96**3 // 4
NO_TEACHERS = {"teachers": "off"}

CPU = {"teachers": "off", "learning_rate": 5e-3}
TEACHERS = {"teachers": "on", "learning_rate": 5e-3}

VARIANTS: dict[str, Variant] = {
    # the default plan for a CPU, and what differs from it in one choice
    "cpu": {"recipe": CPU},
    "cpu_stem1": {"recipe": CPU, "stem": (1, 1, 1)},
    "cpu_stem4": {"recipe": CPU, "stem": (4, 4, 4)},
    "cpu_S": {"recipe": CPU, "size": "S"},
    "cpu_L": {"recipe": CPU, "size": "L"},
    "cpu_groups488": {"recipe": CPU, "arch": {"group_widths": [4, 8, 8]}},
    "cpu_heads": {"recipe": {**CPU, "head_weights": [1.0, 0.25, 0.0625]}},
    "cpu_lr2.5e-3": {"recipe": {**CPU, "learning_rate": 2.5e-3}},
    "cpu_lr1e-2": {"recipe": {**CPU, "learning_rate": 1e-2}},
    "cpu_lr2e-2": {"recipe": {**CPU, "learning_rate": 2e-2}},
    "cpu_teachers": {"recipe": TEACHERS},
    "cpu_detached": {"recipe": {**TEACHERS, "teachers": "detached"}},
    "cpu_sdkt_off": {"recipe": {**TEACHERS, "sdkt_weight": 0.0}},
    "cpu_rec0.1": {"recipe": {**TEACHERS, "reconstruction_weight": 0.1, "sdkt_weight": 0.4}},
    # the default plan of the larger targets, teachers and learning rate 2.5e-3
    "base": {},
    "L": {"size": "L"},
    "no_teachers": {"recipe": NO_TEACHERS},
    "L_no_teachers": {"size": "L", "recipe": NO_TEACHERS},
    "no_teachers_lr5e-3": {"recipe": CPU},
    # field of view: a quarter of the published patch
    "memory1": {"voxels": SMALL, "stem": (4, 4, 4)},
    "memory1_stem144": {"voxels": SMALL, "stem": (1, 4, 4)},
    # channels that may be missing, and networks of the channels named before the @ alone
    "optional": {"optional": True, "stem": (4, 4, 4), "recipe": NO_TEACHERS},
    "optional_longer": {"optional": True, "stem": (4, 4, 4), "recipe": NO_TEACHERS},
    "alone": {"stem": (4, 4, 4), "recipe": NO_TEACHERS},
}


def run(root: Path, results: Path, names: list[str], *, cpu_minutes: float) -> None:
    """Train and judge what has no result yet."""
    torch.set_num_threads(1)
    for name in names:
        file = results / f"{name.replace(':', '_')}.json"
        if file.is_file():
            continue
        dataset, fold, variant, *rest = name.split(":")
        seed = int(rest[0]) if rest else 0
        write_json(
            file, train_and_judge(root, dataset, int(fold), variant, seed, cpu_minutes=cpu_minutes)
        )
        print(file.read_text(), flush=True)


def train_and_judge(
    root: Path, dataset: str, fold: int, variant: str, seed: int, *, cpu_minutes: float
) -> dict[str, Any]:
    """One training, on one thread; Dice of whole validation cases."""
    from veloxseg.quiet import printing_to_log
    from veloxseg.training.schedule import Budget
    from veloxseg.training.seeding import set_seed
    from veloxseg.training.trainer import VeloxSegTrainer

    workspace = Workspace.resolve(root)
    workspace.export()
    name = workspace.dataset_name(dataset)
    subset, _, choice = variant.rpartition("@")
    choice = VARIANTS[choice]
    description = read_description(workspace.raw / name).to_json()
    channels = list(description["channel_names"].values())
    only = subset.split("+") if subset else channels
    description["channel_names"] = {str(i): channel for i, channel in enumerate(only)}
    plans = changed_plans(workspace, name, choice, channels=only)
    plans["continue_training"] = False
    if choice.get("optional"):
        description["optional"] = channels
    set_seed(seed)
    with printing_to_log():
        trainer = VeloxSegTrainer(plans, CONFIGURATION, fold, description, torch.device("cpu"))
        trainer.output_folder_base = str(root / "planning_table" / variant)
        trainer.output_folder = f"{trainer.output_folder_base}/{name}_{fold}_{seed}"
        Path(trainer.output_folder).mkdir(parents=True, exist_ok=True)
        trainer.log_file = f"{trainer.output_folder}/log.txt"
        trainer.quiet = True
        trainer.disable_checkpointing = True
        trainer.initialize()
        kept = [channels.index(channel) for channel in only]
        keep_channels(trainer, kept)
        trainer.budget = Budget(seconds=60 * cpu_minutes, clock=time.process_time)
        trainer.run_training()
        used = trainer.usage.to_json()
        subsets = [only]
        if choice.get("optional"):
            subsets = [
                [c for i, c in enumerate(channels) if mask >> i & 1]
                for mask in range(1, 2 ** len(channels))
            ]
        dice = {
            "+".join(part): judge(trainer, kept, [i for i, c in enumerate(only) if c not in part])
            for part in subsets
        }
    arch = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
    means = [
        np.nanmean([list(case.values()) for case in cases.values()]) for cases in dice.values()
    ]
    return {
        "dataset": name,
        "fold": fold,
        "variant": variant,
        "seed": seed,
        "cpu_minutes": cpu_minutes,
        "wall_minutes": round(used["wall_seconds"] / 60, 1),
        "steps": used["steps"],
        "parameters": count_parameters(
            arch, num_classes=trainer.label_manager.num_segmentation_heads
        ),
        "patch_size": arch["patch_size"],
        "stem_stride": arch["stem_stride"],
        "peak_gb": round(peak_memory_mb() * 1e6 / 2**30, 2),
        "mean_dice": round(float(np.mean(means)), 4),
        "dice": dice,
    }


def keep_channels(trainer: Any, kept: list[int]) -> None:
    """Give the steps of a training the channels alone that this network has."""

    def keeping(step: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
        return lambda batch: step({**batch, "data": batch["data"][:, kept]})

    trainer.train_step = keeping(trainer.train_step)
    trainer.validation_step = keeping(trainer.validation_step)


def changed_plans(
    workspace: Workspace, name: str, choice: Variant, *, channels: list[str]
) -> dict[str, Any]:
    """The dataset's plan with the network of a variant."""
    plans = copy.deepcopy(read_plans(workspace, name))
    configuration = plans["configurations"][CONFIGURATION]
    description = read_description(workspace.raw / name)
    arch = configuration["architecture"]["arch_kwargs"]
    spacing = configuration["spacing"]
    fingerprint = read_json(workspace.preprocessed / name / "dataset_fingerprint.json")
    extents = StructureSizes.from_json(fingerprint[STRUCTURES_KEY]).percentile_10_mm
    structure = np.asarray(extents)[plans["transpose_forward"]] / spacing
    recipe = choice.get("recipe", {})
    network = plan_network(
        DatasetNumbers(
            median_shape=configuration["median_image_size_in_voxels"],
            spacing=spacing,
            structure=structure.tolist(),
            channel_names=channels,
            num_classes=len(description.label_values),
            num_cases=description.num_training,
        ),
        target=replace(DEFAULT_TARGET, max_voxels=choice.get("voxels", 96**3)),
        size=choice.get("size", "B"),
        teachers=recipe.get("teachers") != "off",
        stem=choice.get("stem"),
    ).network.to_json()
    network |= choice.get("arch", {})
    NetworkConfig(**network)
    arch.clear()
    arch |= {key: value for key, value in network.items() if key != "num_classes"}
    configuration["patch_size"] = network["patch_size"]
    configuration["training"] = recipe
    return plans


def judge(trainer: Any, kept: list[int], dropped: list[int]) -> dict[str, dict[str, float]]:
    """Case -> label -> Dice, on the network's grid."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer.network.eval()
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        trainer.network.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        None,
        trainer.dataset_json,
        type(trainer).__name__,
        None,
    )
    _, keys = trainer.do_split()
    cases = trainer.dataset_class(trainer.preprocessed_dataset_folder, keys)
    dice = {}
    for key in keys:
        data, reference, _, _ = cases.load_case(key)
        image = torch.from_numpy(np.array(data[:]))[kept]
        image[dropped] = 0
        mask = predictor.predict_sliding_window_return_logits(image).argmax(0).numpy()
        truth = np.array(reference[:])[0]
        values = {}
        for label in trainer.label_manager.foreground_labels:
            ours, theirs = mask == label, truth == label
            total = ours.sum() + theirs.sum()
            values[str(label)] = float(2 * (ours & theirs).sum() / total) if total else float("nan")
        dice[key] = values
    return dice


def table(results: Path, reference: str) -> None:
    """Print what was found as a table, each row beside the reference on the same cases."""
    found = [json.loads(file.read_text()) for file in sorted(results.glob("*.json"))]
    print(
        "| dataset, fold | variant | seed | steps | parameters | patch, stem | Dice | difference |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for one in found:
        group = (one["dataset"], one["fold"])
        beside = [
            o for o in found if (o["dataset"], o["fold"], o["variant"]) == (*group, reference)
        ]
        patch = "×".join(map(str, one["patch_size"]))
        stem = "×".join(map(str, one["stem_stride"]))
        for subset in one["dice"]:
            dice = case_means(one, subset)
            compared = [case_means(o, subset) for o in beside if subset in o["dice"]]
            print(
                f"| {one['dataset']}, {one['fold']} | {one['variant']} {subset} | {one['seed']} | "
                f"{one['steps']} | {one['parameters'] / 1e6:.2f} M | {patch}, {stem} | "
                f"{np.nanmean(dice):.3f} | {difference(dice, compared)} |"
            )


def case_means(one: dict[str, Any], subset: str) -> np.ndarray:
    """Mean Dice over the labels of every case, in the cases' order."""
    cases = one["dice"][subset]
    return np.array([np.nanmean(list(cases[case].values())) for case in sorted(cases)])


def difference(dice: np.ndarray, references: list[np.ndarray]) -> str:
    """Mean difference of Dice to the references' mean, in points, and its standard error."""
    if not references:
        return ""
    paired = 100 * (dice - np.mean(references, axis=0))
    if len(paired) == 1:
        return f"{paired[0]:+.1f}"
    return f"{paired.mean():+.1f} ({paired.std(ddof=1) / len(paired) ** 0.5:.1f})"


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("root", type=Path)
    running.add_argument("results", type=Path)
    running.add_argument("names", nargs="+")
    running.add_argument("--cpu-minutes", type=float, default=10)
    printing = commands.add_parser("table")
    printing.add_argument("results", type=Path)
    printing.add_argument("--beside", default="cpu", help="variant that differences refer to")
    options = parser.parse_args()
    if options.command == "table":
        table(options.results, options.beside)
    else:
        run(options.root, options.results, options.names, cpu_minutes=options.cpu_minutes)


if __name__ == "__main__":
    main()
