"""Commands that bring scans into nnU-Net's raw format: veloxseg convert ..."""

from pathlib import Path
from typing import Annotated

import typer

from veloxseg.commands.converting_dicom import convert_dicom_command
from veloxseg.commands.naming import channel_patterns, label_names, spacing_zyx
from veloxseg.commands.reporting import NumWorkers, Root, case_bar, reported, results_console
from veloxseg.datasets.workspace import Workspace
from veloxseg.installation import INSTALL_IMAGES, require_packages

convert_app = typer.Typer(
    name="convert", help="Bring scans into nnU-Net's raw format.", no_args_is_help=True
)

convert_app.command("dicom")(convert_dicom_command)

_Register = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME of a channel to register to the reference (brats: T1c, hecktor: CT, autopet: "
        "PET); repeat for several. The label stays with the reference."
    ),
]
_Affine = Annotated[
    bool, typer.Option("--affine", help="Registration allows for scaling and shear, too.")
]
_Release = Annotated[Path, typer.Argument(help="The release's folder.")]
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
            "once for each channel, in their order. {case} is the case's name, * anything; with "
            "{patient}, cases are named PATIENT_CASE.",
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
    optional: Annotated[
        list[str] | None,
        typer.Option(help="NAME of a channel whose file a case may lack; repeat for several."),
    ] = None,
    register: _Register = None,
    affine: _Affine = False,
    num_workers: NumWorkers = 1,
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
            channels=channel_patterns(channel),
            label=label,
            reference=reference,
            label_names=label_names(labels) if labels else None,
            optional=optional or (),
            register=register or (),
            affine=affine,
            num_workers=num_workers,
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
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert a task of the Medical Segmentation Decathlon."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.msd import convert_msd

    with case_bar("Converting") as progress:
        folder = convert_msd(
            source,
            dataset,
            workspace=Workspace.resolve(root),
            num_workers=num_workers,
            progress=progress,
        )
    results_console().print(f"Written: {folder}")


@convert_app.command("brats")
@reported()
def convert_brats_command(
    source: _Release,
    dataset: _NewDataset,
    register: _Register = None,
    affine: _Affine = False,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert a BraTS release of 2013 to 2023 to whole tumour, core and enhancing tumour."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.brats import convert_brats

    with case_bar("Converting") as progress:
        folder = convert_brats(
            source,
            dataset,
            workspace=Workspace.resolve(root),
            register=register or (),
            affine=affine,
            num_workers=num_workers,
            progress=progress,
        )
    results_console().print(f"Written: {folder}")


@convert_app.command("hecktor")
@reported()
def convert_hecktor_command(
    source: _Release,
    dataset: _NewDataset,
    spacing: Annotated[
        str,
        typer.Option(
            help="In mm: one number, or three as Z,Y,X along the CT's array axes; keep for the "
            "CT's own."
        ),
    ] = "1",
    register: _Register = None,
    affine: _Affine = False,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert head and neck PET/CT of HECKTOR: PET on the CT's grid, where both have voxels."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.hecktor import convert_hecktor

    with case_bar("Converting") as progress:
        folder = convert_hecktor(
            source,
            dataset,
            workspace=Workspace.resolve(root),
            spacing_zyx=spacing_zyx(spacing),
            register=register or (),
            affine=affine,
            num_workers=num_workers,
            progress=progress,
        )
    results_console().print(f"Written: {folder}")


@convert_app.command("autopet")
@reported()
def convert_autopet_command(
    source: _Release,
    dataset: _NewDataset,
    order: Annotated[
        str | None,
        typer.Option(
            help="CT,PET or PET,CT: what 0000 and 0001 are at the source. Else its dataset.json or "
            "the voxels tell; they must never contradict it."
        ),
    ] = None,
    register: _Register = None,
    affine: _Affine = False,
    num_workers: NumWorkers = 1,
    root: Root = None,
) -> None:
    """Convert whole-body PET/CT of autoPET: the tree of studies, or nnU-Net's naming."""
    require_packages("SimpleITK", install=INSTALL_IMAGES)
    from veloxseg.datasets.converters.autopet import convert_autopet

    with case_bar("Converting") as progress:
        folder = convert_autopet(
            source,
            dataset,
            workspace=Workspace.resolve(root),
            order=None if order is None else [word.strip() for word in order.split(",")],
            register=register or (),
            affine=affine,
            num_workers=num_workers,
            progress=progress,
        )
    results_console().print(f"Written: {folder}")
