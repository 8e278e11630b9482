"""The command that chooses a run's postprocessing: postprocess."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from veloxseg.commands.naming import workspace_of_run
from veloxseg.commands.reporting import Root, case_bar, reported, results_console
from veloxseg.installation import num_cores

if TYPE_CHECKING:
    from veloxseg.bundle.postprocessing import PostprocessingRecord, TriedStep


@reported()
def postprocess(
    run: Annotated[
        str,
        typer.Argument(
            help="Results folder of a run (all its finished folds) or of a fold, or DATASET or "
            "DATASET/FOLD for the newest run."
        ),
    ],
    references: Annotated[
        Path | None,
        typer.Option(help="Folder of reference masks.", show_default="labelsTr of the dataset"),
    ] = None,
    num_workers: Annotated[
        int | None,
        typer.Option(help="Processes at most.", min=1, show_default="one for each core"),
    ] = None,
    root: Root = None,
) -> None:
    """Choose by cross-validation which small components to remove; export takes it up."""
    from veloxseg.bundle.postprocessing import read_record
    from veloxseg.evaluation.postprocessing.choice import postprocess as choose

    with case_bar("Counting components") as progress:
        file = choose(
            run,
            workspace=workspace_of_run(run, root),
            references=references,
            num_workers=num_workers or num_cores(),
            progress=progress,
        )
    _print(read_record(file))
    results_console().print(f"Written: {file}")


def _print(record: "PostprocessingRecord") -> None:
    from veloxseg.bundle.postprocessing import describe_step

    console = results_console()
    if record.tried:
        console.print(_table(record))
    for target, reason in record.skipped.items():
        console.print(f"Not tried: {target}: {reason}")
    folds = ", ".join(map(str, record.folds))
    console.print(f"Validation cases: {record.num_cases}, of fold {folds}")
    if not record.steps:
        console.print("Postprocessing: none. No step gained enough.")
        return
    for step in record.steps:
        console.print(f"Postprocessing: {describe_step(step)}")
    before, after = record.dice_before["mean"], record.dice_after["mean"]
    console.print(
        f"Mean Dice: {before:.4f} without, {after:.4f} with; on held-out {record.groups} "
        f"{record.held_out_gain:+.4f}"
    )


def _table(record: "PostprocessingRecord") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), collapse_padding=True)  # 80 columns hold it
    table.add_column("components of", overflow="fold")
    for heading in ("kept", "gain of Dice", "cases\n+/-", "removed\n(true)"):
        table.add_column(heading, no_wrap=True)
    table.add_column("used", overflow="fold")
    for tried in record.tried:
        table.add_row(
            tried.target,
            "largest"
            if tried.step.kind == "keep_largest"
            else f"from {tried.step.minimum_ml:g} ml",
            _gain(tried),
            f"{tried.num_better}/{tried.num_worse}",
            f"{tried.num_removed} ({tried.num_removed_true})",
            "yes" if tried.used else f"no: {tried.reason}",
        )
    return table


def _gain(tried: "TriedStep") -> str:
    error = "" if tried.standard_error is None else f" ± {tried.standard_error:.4f}"
    return f"{tried.gain:+.4f}{error}"
