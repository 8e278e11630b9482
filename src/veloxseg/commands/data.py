"""The command on masks: evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from veloxseg.commands.naming import label_names
from veloxseg.commands.reporting import case_bar, reported, results_console
from veloxseg.installation import INSTALL_TRAINING, require_packages


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
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the images, as imagesTs: means by the channels that cases have, too."
        ),
    ] = None,
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
            labels=label_names(labels) if labels else None,
            subset=subset,
            images=images,
            output=output,
            progress=progress,
        )
    console = results_console()
    console.print(format_summary(summary))
    if output is not None:
        console.print(f"Written: {output}")
