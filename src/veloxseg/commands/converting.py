"""Commands that bring scans into nnU-Net's raw format: veloxseg convert ..."""

from pathlib import Path
from typing import Annotated

import typer

from veloxseg.commands.converting_dicom import convert_dicom_command
from veloxseg.commands.naming import channel_patterns, label_names
from veloxseg.commands.reporting import NumWorkers, Root, case_bar, reported, results_console
from veloxseg.datasets.workspace import Workspace
from veloxseg.installation import INSTALL_IMAGES, require_packages

convert_app = typer.Typer(
    name="convert", help="Bring scans into nnU-Net's raw format.", no_args_is_help=True
)

convert_app.command("dicom")(convert_dicom_command)

_NewDataset = Annotated[str, typer.Argument(help="Name with a free number: Dataset100_Tumour.")]


@convert_app.command("folder")
@reported()
def convert_folder_command(
    source: Annotated[Path, typer.Argument(help="Folder with the images.")],
    dataset: _NewDataset,
    channel: Annotated[
        list[str],
        typer.Option(
            help="NAME=PATTERN of a channel's files below the folder, as CT='{case}/CT.nii.gz'; "
            "once for each channel, in their order. {case} is the case's name, * anything; with "
            "{patient}, cases are named PATIENT_CASE.",
        ),
    ],
    label: Annotated[
        str | None,
        typer.Option(help="Pattern of the label files; without it, test images are written."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Channel whose grid all images of a case are put on.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of a label, as lesion=1; repeat or separate by commas."),
    ] = None,
    optional: Annotated[
        list[str] | None,
        typer.Option(help="NAME of a channel whose file a case may lack; repeat for several."),
    ] = None,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert images of any names, paired by the case's name."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.folder import convert_folder

    with case_bar("Converting") as progress:
        folder = convert_folder(
            source,
            dataset,
            workspace=Workspace.resolve(root),
            channels=channel_patterns(channel),
            label=label,
            reference=reference,
            label_names=label_names(labels) if labels else None,
            optional=optional or (),
            num_workers=num_workers,
            progress=progress,
        )
    results_console().print(f"Written: {folder}")


@convert_app.command("msd")
@reported()
def convert_msd_command(
    source: Annotated[Path, typer.Argument(help="A task's folder, as Task04_Hippocampus.")],
    dataset: Annotated[
        str | None, typer.Argument(help="Its name here; else the task's number and name.")
    ] = None,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert a task of the Medical Segmentation Decathlon."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.msd import convert_msd

    with case_bar("Converting") as progress:
        folder = convert_msd(
            source,
            dataset,
            workspace=Workspace.resolve(root),
            num_workers=num_workers,
            progress=progress,
        )
    results_console().print(f"Written: {folder}")
