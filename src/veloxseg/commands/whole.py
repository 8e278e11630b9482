"""Commands on everything: run, demo, info."""

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
from veloxseg.installation import require_training


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
    results_console().print(f"To predict: veloxseg predict -m {bundle} -i IMAGES -o MASKS")


@reported()
def demo(
    output: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo_output"),
    minutes: Annotated[
        float | None, typer.Option(help="Minutes of training.", show_default="about 3")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the generated patients and the training.")] = 0,
) -> None:
    """Go through all stages on generated PET/CT, in minutes on a CPU."""
    require_training()
    from veloxseg.demo import run_demo

    run_demo(output, minutes=minutes, seed=seed, console=results_console())


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
