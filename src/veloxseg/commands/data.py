"""Commands on datasets and masks: convert, evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from veloxseg.commands.reporting import Root, case_bar, reported, results_console
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError
from veloxseg.installation import INSTALL_IMAGES, INSTALL_TRAINING, require_packages

convert_app = typer.Typer(
    name="convert", help="Bring scans into nnU-Net's raw format.", no_args_is_help=True
)

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
            "once for each channel, in their order. {case} is the case's name, * anything.",
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
            channels=_channels(channel),
            label=label,
            reference=reference,
            label_names=_label_names(labels) if labels else None,
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
    root: Root = None,
) -> None:
    """Convert a task of the Medical Segmentation Decathlon."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.msd import convert_msd

    with case_bar("Converting") as progress:
        folder = convert_msd(source, dataset, workspace=Workspace.resolve(root), progress=progress)
    results_console().print(f"Written: {folder}")


@reported()
def evaluate(
    prediction: Annotated[Path, typer.Argument(help="Folder of predicted masks.")],
    reference: Annotated[Path, typer.Argument(help="Folder of reference masks.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the figures as JSON too.")
    ] = None,
    subset: Annotated[
        bool, typer.Option("--subset", help="References without a prediction are passed over.")
    ] = False,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE of a label, as lesion=1; repeat or separate by commas. Else they are "
            "those of a dataset.json, or all values found.",
        ),
    ] = None,
) -> None:
    """Compare masks with references of the same name: Dice, HD95, volumes."""
    require_packages("scipy", install=INSTALL_TRAINING)
    from veloxseg.evaluation.summary import evaluate_folder
    from veloxseg.evaluation.table import format_summary

    with case_bar("Evaluating") as progress:
        summary = evaluate_folder(
            prediction,
            reference,
            labels=_label_names(labels) if labels else None,
            subset=subset,
            output=output,
            progress=progress,
        )
    console = results_console()
    console.print(format_summary(summary))
    if output is not None:
        console.print(f"Written: {output}")


def _channels(texts: list[str]) -> dict[str, str]:
    channels: dict[str, str] = {}
    for text in texts:
        name, separator, pattern = text.partition("=")
        if not (name and separator and pattern) or name in channels:
            raise DatasetError(
                f"--channel {text}: expected NAME=PATTERN, each name once, such as "
                "--channel CT='{case}/CT.nii.gz'."
            )
        channels[name] = pattern
    return channels


def _label_names(texts: list[str]) -> dict[str, int]:
    names: dict[str, int] = {}
    for text in (part for texts_ in texts for part in texts_.split(",")):
        name, value = (word.strip() for word in text.partition("=")[::2])
        if not name or not value.isdigit() or name in names or int(value) in names.values():
            raise DatasetError(
                f"--labels {text}: expected NAME=VALUE, each name and value once, such as "
                "--labels lesion=1."
            )
        names[name] = int(value)
    return names
