"""The command check: what is wrong with a dataset."""

from pathlib import Path
from typing import Annotated

import typer

from veloxseg.commands.reporting import Dataset, Root, case_bar, reported, results_console
from veloxseg.datasets.workspace import Workspace
from veloxseg.installation import INSTALL_IMAGES, require_packages


@reported()
def check(
    dataset: Dataset,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report as JSON too.")
    ] = None,
    root: Root = None,
) -> None:
    """Open every file of a dataset and say what is wrong; exits with 2 on errors."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.atomic import write_json
    from veloxseg.commands.tables import problems_table
    from veloxseg.datasets.check import check_dataset

    workspace = Workspace.resolve(root)
    with case_bar("Checking") as progress:
        report = check_dataset(workspace.raw / workspace.dataset_name(dataset), progress=progress)
    if output is not None:
        write_json(output, report.to_json())
    console = results_console()
    if report.problems:
        console.print(problems_table(report.problems))
    console.print(
        f"{report.folder}: {report.num_cases} cases, {len(report.errors)} errors, "
        f"{len(report.warnings)} warnings"
    )
    if report.errors:
        raise typer.Exit(2)
