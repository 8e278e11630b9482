"""veloxseg convert dicom."""

from pathlib import Path
from typing import Annotated

import typer

from veloxseg.commands.converting_options import (
    Affine,
    NewDataset,
    Reference,
    Register,
    run_conversion,
)
from veloxseg.commands.reporting import NumWorkers, Root, case_bar, reported, results_console
from veloxseg.errors import DatasetError
from veloxseg.installation import INSTALL_IMAGES, require_packages


@reported()
def convert_dicom_command(
    source: Annotated[Path, typer.Argument(help="Folder of a study, or of many, in any order.")],
    dataset: NewDataset,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=KEY:PATTERN of a channel's series, as CT=modality:CT or "
            "T1=modality:MR,description:t1,!description:post; once for each channel, in their "
            "order.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PATTERN of a label's regions in the DICOM SEG or RTSTRUCT, as tumour=^GTV; "
            "without any, test images are written.",
        ),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(help="The same and more in a JSON file, instead of --channel and --label."),
    ] = None,
    reference: Reference = None,
    case_name: Annotated[
        str, typer.Option(help="Of {patient}, {date} and {study}.")
    ] = "{patient}_{date}",
    patient_key: Annotated[
        str | None,
        typer.Option(
            envvar="VELOXSEG_PATIENT_KEY",
            help="A secret text: patient IDs are hashed with it, and not written.",
        ),
    ] = None,
    interpolate_gaps: Annotated[
        bool, typer.Option("--interpolate-gaps", help="Fill in missing slices.")
    ] = False,
    register: Register = None,
    affine: Affine = False,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert DICOM studies: CT in HU, PET as SUV, labels from SEG or RTSTRUCT."""
    require_packages("SimpleITK", "pydicom", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.dicom import convert_dicom
    from veloxseg.datasets.converters.dicom_names import Naming
    from veloxseg.datasets.converters.dicom_rules import read_rules, rules_in_words
    from veloxseg.volumes.dicom.index import index_dicom

    if (rules is None) == (not channel) or (rules is not None and label):
        raise DatasetError(
            "Which series become channels is given "
            + ("twice" if rules is not None else "nowhere")
            + ". Expected either --rules FILE, or --channel NAME=KEY:PATTERN once or more, "
            "such as --channel CT=modality:CT, and perhaps --label."
        )
    made = read_rules(rules) if rules is not None else rules_in_words(channel or (), label or ())
    with case_bar("Reading headers") as progress:
        index = index_dicom(source, num_workers=num_workers, progress=progress)
    run_conversion(
        convert_dicom,
        source,
        dataset,
        root=root,
        rules=made,
        reference=reference,
        naming=Naming(pattern=case_name, key=patient_key),
        interpolate_gaps=interpolate_gaps,
        register=register or (),
        affine=affine,
        index=index,
        num_workers=num_workers,
        tell=results_console().print,
    )
