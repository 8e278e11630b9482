"""The command check: what is wrong with a dataset, and a mended copy of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veloxseg.commands.reporting import (
    Dataset,
    NumWorkers,
    Root,
    case_bar,
    reported,
    results_console,
)
from veloxseg.datasets.workspace import Workspace
from veloxseg.installation import INSTALL_IMAGES, require_packages

if TYPE_CHECKING:
    from veloxseg.datasets.check import CheckReport


@reported()
def check(
    dataset: Dataset,
    fix: Annotated[
        str | None,
        typer.Option(
            help="Write a mended copy under this name with a free number, as Dataset101_Mended; "
            "the dataset itself is not touched. Exits with 2 if errors are left in the copy.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report as JSON too.")
    ] = None,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Open every file of a dataset and say what is wrong; exits with 2 on errors."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.atomic import write_json

    workspace = Workspace.resolve(root)
    report = _check(workspace, workspace.dataset_name(dataset), num_workers=num_workers)
    if output is not None:
        write_json(output, report.to_json())
    _print_report(report)
    if fix is not None:
        report = _fix(report, fix, workspace, num_workers=num_workers)
    if report.errors:
        raise typer.Exit(2)


def _check(workspace: Workspace, name: str, *, num_workers: int) -> "CheckReport":
    from veloxseg.datasets.check import check_dataset
    from veloxseg.datasets.splits import SPLITS_FILE

    with case_bar("Checking") as progress:
        return check_dataset(
            workspace.raw / name,
            splits=workspace.preprocessed / name / SPLITS_FILE,
            num_workers=num_workers,
            progress=progress,
        )


def _fix(
    report: "CheckReport", name: str, workspace: Workspace, *, num_workers: int
) -> "CheckReport":
    """Write the mended copy, say what was done, and check it."""
    from veloxseg.commands.tables import fix_table
    from veloxseg.datasets.fix import RECORD, fix_dataset

    with case_bar("Mending") as progress:
        fixed = fix_dataset(
            report, name, workspace=workspace, num_workers=num_workers, progress=progress
        )
    console = results_console()
    if fixed.mended or fixed.left_out:
        console.print(fix_table(fixed))
    num_files = sum(len(case.files) for case in fixed.cases)
    console.print(
        f"Written: {fixed.folder}: {len(fixed.cases)} cases, {len(fixed.mended)} of {num_files} "
        f"files mended, {len(fixed.left_out)} cases left out; all of it in {RECORD}"
    )
    report = _check(workspace, fixed.folder.name, num_workers=num_workers)
    _print_report(report)
    return report


def _print_report(report: "CheckReport") -> None:
    from veloxseg.commands.tables import problems_table

    console = results_console()
    if report.problems:
        console.print(problems_table(report.problems))
    if report.subsets:
        counts = ", ".join(f"{number} with {names}" for names, number in report.subsets.items())
        console.print(f"Channels: {counts}")
    found = {"case": report.num_cases, "error": len(report.errors), "warning": len(report.warnings)}
    counted = (f"{number} {what}{'' if number == 1 else 's'}" for what, number in found.items())
    console.print(f"{report.folder}: {', '.join(counted)}")
