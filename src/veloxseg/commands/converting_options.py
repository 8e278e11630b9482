"""What the commands that convert share: their options, and one call with a bar."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from veloxseg.commands.reporting import case_bar, results_console
from veloxseg.datasets.workspace import Workspace

NewDataset = Annotated[str, typer.Argument(help="Name with a free number: Dataset100_Tumour.")]
Reference = Annotated[
    str | None, typer.Option(help="Channel whose grid all images of a case are put on.")
]
Register = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME of a channel to register to the reference (brats: T1c, hecktor: CT, autopet: "
        "PET); repeat for several. The label stays with the reference."
    ),
]
Affine = Annotated[
    bool, typer.Option("--affine", help="Registration allows for scaling and shear, too.")
]


def run_conversion(
    convert: Callable[..., Path],
    source: Path,
    dataset: str | None,
    *,
    root: Path | None,
    **how: Any,
) -> None:
    """Convert with a bar, and say where the dataset is.

    Args:
        convert: One of the converters' functions.
        source: What to convert.
        dataset: Name of the new dataset; None where the source names it.
        root: Folder of nnU-Net's folders.
        how: The converter's own arguments.
    """
    with case_bar("Converting") as progress:
        folder = convert(
            source, dataset, workspace=Workspace.resolve(root), progress=progress, **how
        )
    results_console().print(f"Written: {folder}")
