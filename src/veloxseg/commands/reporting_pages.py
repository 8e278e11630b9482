"""The command on evaluations: report."""

from pathlib import Path
from typing import Annotated

import typer

from veloxseg.commands.reporting import case_bar, reported, results_console
from veloxseg.installation import INSTALL_EVALUATION, require_packages


@reported()
def report(
    summary: Annotated[
        Path,
        typer.Argument(help="summary.json of veloxseg evaluate, or of nnU-Net."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Page to write.", show_default="report.html beside the summary"
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images, as imagesTr, to show behind the outlines."),
    ] = None,
    channel: Annotated[
        list[int] | None,
        typer.Option(
            help="Number of a channel to show, from 0; repeat for more.",
            show_default="the first two",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Of the page.", show_default="names the method")
    ] = None,
) -> None:
    """Write an evaluation as one HTML page: figures, plots, pictures of cases."""
    require_packages("scipy", "jinja2", "PIL", "contourpy", install=INSTALL_EVALUATION)
    from veloxseg.evaluation.report.page import write_report

    with case_bar("Drawing") as progress:
        page = write_report(
            summary,
            summary.parent / "report.html" if output is None else output,
            images=images,
            channels=channel,
            title=title,
            progress=progress,
        )
    results_console().print(f"Written: {page}")
