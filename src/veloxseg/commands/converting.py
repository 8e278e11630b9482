"""Commands that bring scans into nnU-Net's raw format: veloxseg convert ..."""

from pathlib import Path
from typing import Annotated

import typer

from veloxseg.commands.converting_dicom import convert_dicom_command
from veloxseg.commands.converting_options import (
    Affine,
    NewDataset,
    Reference,
    Register,
    run_conversion,
)
from veloxseg.commands.naming import channel_patterns, label_names, spacing_zyx
from veloxseg.commands.reporting import NumWorkers, Root, reported
from veloxseg.installation import INSTALL_IMAGES, require_packages

convert_app = typer.Typer(
    name="convert", help="Bring scans into nnU-Net's raw format.", no_args_is_help=True
)

convert_app.command("dicom")(convert_dicom_command)

_Release = Annotated[Path, typer.Argument(help="The release's folder.")]


@convert_app.command("folder")
@reported()
def convert_folder_command(
    source: Annotated[Path, typer.Argument(help="Folder with the images.")],
    dataset: NewDataset,
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
    reference: Reference = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of a label, as lesion=1; repeat or separate by commas."),
    ] = None,
    optional: Annotated[
        list[str] | None,
        typer.Option(help="NAME of a channel whose file a case may lack; repeat for several."),
    ] = None,
    register: Register = None,
    affine: Affine = False,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert images of any names, paired by the case's name."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.folder import convert_folder

    run_conversion(
        convert_folder,
        source,
        dataset,
        root=root,
        channels=channel_patterns(channel),
        label=label,
        reference=reference,
        label_names=label_names(labels) if labels else None,
        optional=optional or (),
        register=register or (),
        affine=affine,
        num_workers=num_workers,
    )


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

    run_conversion(convert_msd, source, dataset, root=root, num_workers=num_workers)


@convert_app.command("brats")
@reported()
def convert_brats_command(
    source: _Release,
    dataset: NewDataset,
    register: Register = None,
    affine: Affine = False,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert a BraTS release of 2013 to 2023 to whole tumour, core and enhancing tumour."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.brats import convert_brats

    run_conversion(
        convert_brats,
        source,
        dataset,
        root=root,
        register=register or (),
        affine=affine,
        num_workers=num_workers,
    )


@convert_app.command("hecktor")
@reported()
def convert_hecktor_command(
    source: _Release,
    dataset: NewDataset,
    spacing: Annotated[
        str,
        typer.Option(
            help="In mm: one number, or three as Z,Y,X along the CT's array axes; keep for the "
            "CT's own."
        ),
    ] = "1",
    register: Register = None,
    affine: Affine = False,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert head and neck PET/CT of HECKTOR: PET on the CT's grid, where both have voxels."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.hecktor import convert_hecktor

    run_conversion(
        convert_hecktor,
        source,
        dataset,
        root=root,
        spacing_zyx=spacing_zyx(spacing),
        register=register or (),
        affine=affine,
        num_workers=num_workers,
    )


@convert_app.command("autopet")
@reported()
def convert_autopet_command(
    source: _Release,
    dataset: NewDataset,
    order: Annotated[
        str | None,
        typer.Option(
            help="CT,PET or PET,CT: what 0000 and 0001 are at the source. Else its dataset.json or "
            "the voxels tell; they must never contradict it."
        ),
    ] = None,
    register: Register = None,
    affine: Affine = False,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert whole-body PET/CT of autoPET: the tree of studies, or nnU-Net's naming."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.autopet import convert_autopet

    run_conversion(
        convert_autopet,
        source,
        dataset,
        root=root,
        order=None if order is None else [word.strip() for word in order.split(",")],
        register=register or (),
        affine=affine,
        num_workers=num_workers,
    )
