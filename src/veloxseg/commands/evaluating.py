"""The command on masks: evaluate."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veloxseg.commands.naming import label_names, method_folders
from veloxseg.commands.reporting import case_bar, reported, results_console
from veloxseg.installation import INSTALL_EVALUATION, num_cores, require_packages
from veloxseg.shortening import shorten

if TYPE_CHECKING:
    from veloxseg.evaluation.summary import Summary


@reported()
def evaluate(
    prediction: Annotated[
        Path,
        typer.Argument(
            help="Folder of predicted masks, or a run's folder with fold_0, fold_1, ..., whose "
            "validation masks are evaluated together."
        ),
    ],
    reference: Annotated[Path, typer.Argument(help="Folder of reference masks.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the figures as JSON too. What was evaluated before is kept beside it.",
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write a row for every case and label.")
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Masks of another method, to be compared case by case; repeat for more.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Of the method that predicted.", show_default="its folder's name"),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="mm within which surfaces agree, for NSD.", min=0)
    ] = 1.0,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample",
            help="Look predictions on other grids up at their references' voxels (nearest "
            "neighbour), instead of refusing them.",
        ),
    ] = False,
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
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Bundle that predicted, to be named in the JSON."),
    ] = None,
    num_workers: Annotated[
        int | None,
        typer.Option(help="Processes at most.", min=1, show_default="one for each core"),
    ] = None,
) -> None:
    """Compare masks with references of the same name: overlap, surfaces, lesions, volumes."""
    require_packages("scipy", install=INSTALL_EVALUATION)
    if resample:
        require_packages("SimpleITK", install=INSTALL_EVALUATION)
    from veloxseg.evaluation.summary import evaluate_folder

    with case_bar("Evaluating") as progress:
        summary = evaluate_folder(
            prediction,
            reference,
            labels=label_names(labels) if labels else None,
            subset=subset,
            images=images,
            name=name,
            others=method_folders(other or []),
            tolerance_mm=tolerance,
            resample=resample,
            model=model,
            output=output,
            csv=csv,
            num_workers=num_workers or num_cores(),
            command=shlex.join(["veloxseg", *sys.argv[1:]]),
            progress=progress,
        )
    _print(summary)
    for file in (output, csv):
        if file is not None:
            results_console().print(f"Written: {file}")


def _print(summary: "Summary") -> None:
    from veloxseg.evaluation.table import (
        SHOWN_CASES,
        format_comparisons,
        format_statistics,
        format_summary,
    )

    console = results_console()
    tables = [*format_statistics(summary), *format_comparisons(summary)]
    if len(summary.cases) <= SHOWN_CASES or summary.subsets:
        tables.insert(0, format_summary(summary))
    for table in tables:
        console.print(table)
        console.print()  # an empty line
    for sentence in _remarks(summary):
        console.print(sentence)


def _remarks(summary: "Summary") -> list[str]:
    """What a reader of the tables must know: which masks they are not about."""
    remarks = []
    folds = summary.cross_validation
    if folds is not None:
        found = ", ".join(f"{fold} ({number})" for fold, number in folds.num_cases.items())
        remarks.append(f"Folds (cases): {found}")
        if folds.missing:
            remarks.append(f"Folds without masks: {', '.join(map(str, folds.missing))}")
        if folds.unfinished:
            remarks.append(
                "Folds whose validation has no summary.json and may be unfinished: "
                + ", ".join(map(str, folds.unfinished))
            )
    if summary.not_predicted:
        number = len(summary.not_predicted)
        remarks.append(
            f"References without a prediction, passed over: {number} "
            f"({shorten(summary.not_predicted)})"
        )
    for method in (summary, *summary.others.values()):
        if moved := [case.name for case in method.cases if case.resampled]:
            remarks.append(f"Resampled onto the reference's grid ({method.name}): {shorten(moved)}")
    return remarks
