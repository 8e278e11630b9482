"""Commands on everything: run, demo, info."""

import shlex
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from veloxseg.commands.reporting import (
    Dataset,
    NumWorkers,
    Root,
    progress_console,
    reported,
    results_console,
)
from veloxseg.errors import VeloxSegError
from veloxseg.installation import INSTALL_DEMO, require_packages, require_training


class DemoName(str, Enum):
    """What there is to be shown."""

    PHANTOMS = "phantoms"
    HIPPOCAMPUS = "hippocampus"


@reported()
def run(
    dataset: Dataset,
    fold: Annotated[int, typer.Option(help="Fold to train, 0 to 4.", min=0)] = 0,
    minutes: Annotated[
        float | None, typer.Option(help="Fit the training into this wall-clock time.")
    ] = None,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Check, plan, preprocess, train, validate and export, going on where it stopped."""
    require_training()
    from veloxseg.bundle.export import export
    from veloxseg.commands.model import print_trained
    from veloxseg.datasets.workspace import Workspace
    from veloxseg.training.pipeline import run_stages
    from veloxseg.training.runs import FINAL

    workspace, console = Workspace.resolve(root), progress_console()
    folder = run_stages(
        dataset,
        workspace=workspace,
        console=console,
        fold=fold,
        minutes=minutes,
        num_workers=num_workers,
    )
    bundle = folder / f"{workspace.dataset_name(dataset)}.veloxseg"
    trained = (folder / FINAL).stat().st_mtime
    if bundle.exists() and bundle.stat().st_mtime > trained:
        console.print("export: done before")
    else:
        export(folder, bundle, workspace=workspace, overwrite=True)
    print_trained(folder)
    results_console().print(
        f"To predict: veloxseg predict -m {shlex.quote(str(bundle))} -i IMAGES -o MASKS"
    )


@reported()
def demo(
    name: Annotated[
        DemoName,
        typer.Argument(
            help="phantoms: all stages from scans to masks; hippocampus: a mask of the MNI152 "
            "brain by a model that is trained already."
        ),
    ] = DemoName.PHANTOMS,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to.", show_default="demo_output; demo_hippocampus for that one"
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Of training, with phantoms.", show_default="about 3")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the phantoms and their training.", show_default="0"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="With hippocampus: bundle or name of a model.",
            show_default="hippocampus",
        ),
    ] = None,
) -> None:
    """Go through all stages on generated PET/CT in minutes, or segment a brain in seconds."""
    if name is DemoName.HIPPOCAMPUS:
        _refuse("demo hippocampus", minutes=minutes, seed=seed)
        require_packages("nilearn", "matplotlib", install=INSTALL_DEMO)
        from veloxseg.demos.hippocampus import run_hippocampus_demo

        output = output or Path("demo_hippocampus")
        run_hippocampus_demo(output, model=model, console=results_console())
        return
    _refuse("demo", model=model)
    require_training()
    from veloxseg.demos.phantoms import run_demo

    output = output or Path("demo_output")
    run_demo(output, minutes=minutes, seed=seed or 0, console=results_console())


@reported()
def info(
    nnunet_path: Annotated[
        bool,
        typer.Option("--nnunet-path", help="Print only the folder to put into nnUNet_extTrainer."),
    ] = False,
) -> None:
    """Show versions, threads, devices, engines measured and folders, and what is missing."""
    from veloxseg.commands.tables import installation_table
    from veloxseg.installation import extension_folder, inspect_installation
    from veloxseg.runtime.speed import remembered_choices

    if nnunet_path:
        typer.echo(extension_folder())
        return
    console = results_console()
    console.print(installation_table(inspect_installation(), remembered_choices()))
    console.print(
        "nnU-Net's own commands find VeloxSegTrainer after:\n"
        f"  export nnUNet_extTrainer={extension_folder()}"
    )


def _refuse(command: str, **options: object) -> None:
    """An option of the other demo would be passed over in silence."""
    if given := [f"--{option}" for option, value in options.items() if value is not None]:
        raise VeloxSegError(
            f"{', '.join(given)} means nothing to veloxseg {command}. Leave it out: see "
            "veloxseg demo --help"
        )
