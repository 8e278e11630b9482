"""Commands on networks: plan, preprocess, train."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veloxseg.atomic import read_json
from veloxseg.commands.reporting import (
    Dataset,
    NumWorkers,
    Root,
    progress_console,
    reported,
    results_console,
)
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import VeloxSegError
from veloxseg.installation import require_training
from veloxseg.planning.peer_plans import NETWORKS, VELOXSEG
from veloxseg.planning.target import DEFAULT_TARGET, parse_target

if TYPE_CHECKING:
    from veloxseg.training.device import Device


class DeviceName(str, Enum):
    """What ``--device`` takes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class SizeName(str, Enum):
    """What ``--size`` takes."""

    S = "S"
    B = "B"
    L = "L"


class TeachersName(str, Enum):
    """What ``--teachers`` takes."""

    ON = "on"
    DETACHED = "detached"
    OFF = "off"


_Network = Annotated[
    str,
    typer.Option(
        help=f"One of {', '.join(NETWORKS)}. The last is nnU-Net's own plan; all others differ "
        "from the dataset's plan in the network, some in the learning rate, and other libraries' "
        "have no teachers."
    ),
]
_Device = Annotated[DeviceName, typer.Option(help="Where to compute; auto takes a GPU if any.")]


@reported()
def plan(
    dataset: Dataset,
    target: Annotated[
        str,
        typer.Option(help="What training may take: cpu, 8gb, 24gb, or any memory as 11gb."),
    ] = DEFAULT_TARGET.name,
    size: Annotated[
        SizeName, typer.Option(help="Width of the network: small, base or large.")
    ] = SizeName.B,
    teachers: Annotated[
        TeachersName | None,
        typer.Option(
            help="Reconstruction decoders in training.", show_default="off on a CPU, else on"
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A published plan: autopet2, hecktor2022, brats2021 or msd01."),
    ] = None,
    published: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="MODEL.json TRAINING.json", help="Published configurations."),
    ] = None,
    published_dataset: Annotated[
        str | None,
        typer.Option(help="Name of the dataset in a training configuration that has several."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every decision with its numbers and reason.")
    ] = False,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Plan a network that fits the dataset."""
    require_training()
    from veloxseg.commands.tables import decisions_table, plan_table
    from veloxseg.planning.files import CONFIGURATION, DECISIONS_KEY, read_plans
    from veloxseg.planning.plan import NOT_HONOURED, PublishedFiles
    from veloxseg.planning.plan import plan as make_plan

    if published_dataset is not None and published is None:
        raise VeloxSegError("--published-dataset belongs to --published. Give both, or neither.")
    workspace = Workspace.resolve(root)
    file = make_plan(
        dataset,
        workspace=workspace,
        target=parse_target(target),
        size=size.value,
        teachers=None if teachers is None else teachers.value,
        preset=preset,
        published=None
        if published is None
        else PublishedFiles(model=published[0], training=published[1], dataset=published_dataset),
        num_workers=num_workers,
    )
    name = workspace.dataset_name(dataset)
    plans = read_plans(workspace, name)
    console = results_console()
    console.print(plan_table(plans, _count_parameters(workspace, name)))
    decisions = plans["configurations"][CONFIGURATION][DECISIONS_KEY]
    if not explain:
        decisions = [one for one in decisions if one["value"] == NOT_HONOURED]
    if decisions:
        console.print(decisions_table(decisions))
    console.print(f"Written: {file}")


@reported()
def preprocess(
    dataset: Dataset,
    network: _Network = VELOXSEG,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Crop, resample and normalise the training cases as planned."""
    require_training()
    from veloxseg.planning.plan import preprocess as make_cases

    folder = make_cases(
        dataset, workspace=Workspace.resolve(root), network=network, num_workers=num_workers
    )
    results_console().print(f"Written: {folder}")


@reported(resume_option="--resume")
def train(
    dataset: Dataset,
    fold: Annotated[str, typer.Argument(help="0 to 4, or all to train on every case.")],
    network: _Network = VELOXSEG,
    minutes: Annotated[
        float | None, typer.Option(help="Fit the whole schedule into this wall-clock time.")
    ] = None,
    cpu_minutes: Annotated[
        float | None,
        typer.Option(
            help="Fit it into this CPU time of the process instead: other work on the machine "
            "takes no steps. All threads count: two spend it twice as fast. On a CPU, without "
            "workers."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs, without a budget.", min=1, show_default="the plan's"),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak of the schedule.", show_default="the plan's"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the checkpoint, if there is one; what is not given is as begun.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train anew what has been trained.")
    ] = False,
    device: _Device = DeviceName.AUTO,
    num_gpus: Annotated[int, typer.Option(help="GPUs to train on.", min=1)] = 1,
    num_workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that augment; 0 does it while training.",
            min=0,
            show_default="what the cores allow; 0 with --cpu-minutes",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, patches and augmentation.")] = 0,
    root: Root = None,
) -> None:
    """Train one fold and validate it by whole cases; Ctrl-C keeps a checkpoint."""
    require_training()
    from veloxseg.training.launch import train as train_fold
    from veloxseg.training.settings import TrainingSettings

    if not fold.isdigit() and fold != "all":
        raise VeloxSegError(f"The fold is '{fold}'. Expected a number, 0 to 4, or all.")
    settings = TrainingSettings(
        dataset=dataset,
        fold=int(fold) if fold.isdigit() else fold,
        network=network,
        minutes=minutes,
        cpu_minutes=cpu_minutes,
        epochs=epochs,
        learning_rate=learning_rate,
        resume=resume,
        overwrite=overwrite,
        device=_literal(device),
        num_gpus=num_gpus,
        num_workers=num_workers,
        seed=seed,
    )
    folder = train_fold(settings, workspace=Workspace.resolve(root), console=progress_console())
    print_trained(folder)


def print_trained(folder: Path) -> None:
    """Say what a fold's results are and where they lie."""
    console = results_console()
    scores = read_json(folder / "validation" / "summary.json")
    console.print(
        f"Mean Dice of {len(scores['metric_per_case'])} validation cases: "
        f"{scores['foreground_mean']['Dice']:.3f}"
    )
    console.print(f"Training curve: {folder / 'progress.png'}")
    console.print(f"Written: {folder}")


def _count_parameters(workspace: Workspace, name: str) -> int:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from veloxseg.datasets.description import read_description
    from veloxseg.network.size import count_parameters
    from veloxseg.planning.files import CONFIGURATION, read_plans

    plans = read_plans(workspace, name)
    description = read_description(workspace.raw / name).to_json()
    return count_parameters(
        plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"],
        num_classes=PlansManager(plans).get_label_manager(description).num_segmentation_heads,
    )


def _literal(device: DeviceName) -> "Device":
    return device.value
