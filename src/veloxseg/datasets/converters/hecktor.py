"""From a HECKTOR release, head and neck PET/CT, to nnU-Net's raw format."""

from collections.abc import Callable, Sequence
from pathlib import Path

from veloxseg.datasets.converters.naming import Naming
from veloxseg.datasets.converters.release import Release, convert_release
from veloxseg.datasets.converters.writing import Alignment
from veloxseg.datasets.workspace import Workspace

LABELS = {"GTVp": 1, "GTVn": 2}
"""Primary tumour and lymph nodes."""

SPACING_ZYX = (1.0, 1.0, 1.0)
"""Spacing in mm that images are brought to where nothing else is asked for."""

_VALUES = {0: 0, 1: 1, 2: 2}
NAMINGS = (
    Naming(
        name="HECKTOR 2022",
        channels={"CT": "images{part}/{case}__CT.nii*", "PET": "images{part}/{case}__PT.nii*"},
        label="labels{part}/{case}.nii*",
        label_values=_VALUES,
    ),
    Naming(
        name="HECKTOR, a folder for each case",
        channels={"CT": "{case}/{case}__CT.nii*", "PET": "{case}/{case}__PT.nii*"},
        label="{case}/{case}.nii*",
        label_values=_VALUES,
    ),
    Naming(
        name="HECKTOR, all in one folder",
        channels={"CT": "{case}__CT.nii*", "PET": "{case}__PT.nii*"},
        label="{case}.nii*",
        label_values=_VALUES,
        cases="(?:(?!__).)+",  # the label's pattern matches images, too
    ),
)


def convert_hecktor(
    source: Path,
    dataset: str,
    *,
    workspace: Workspace,
    spacing_zyx: tuple[float, float, float] | None = SPACING_ZYX,
    register: Sequence[str] = (),
    affine: bool = False,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Convert a HECKTOR release: PET on the CT's grid, where both have voxels, at one spacing.

    Images are interpolated linearly, the label is looked up at the nearest voxel. Cases without any
    label become test cases. Run again after an interruption, it goes on where it stopped.

    Args:
        source: Folder of ``imagesTr`` and ``labelsTr``, or of all files.
        dataset: ``DatasetNNN_Name``.
        workspace: Where nnU-Net's folders are.
        spacing_zyx: In mm along the CT's array axes; None keeps the CT's.
        register: Channels to register to CT, with which the label stays.
        affine: Whether registration allows for scaling and shear, too.
        num_workers: Processes that read and write cases.
        progress: Called after each case with the number done and the number of all.

    Returns:
        The dataset's folder.

    Raises:
        DatasetError: files are named in no known way or in more than one, or lack their
            counterparts, a label value or voxel is wrong, or the dataset exists with other
            settings.
        GeometryError: CT and PET have no common field of view, or the label is not on the CT's
            grid.
        ImageReadError: a file cannot be read.
        OSError: a file cannot be written.
    """
    return convert_release(
        source,
        dataset,
        workspace=workspace,
        release=Release(
            namings=NAMINGS,
            label_names=LABELS,
            reference="CT",
            alignment=Alignment(reference="CT", spacing_zyx=spacing_zyx, common_view=True),
        ),
        settings={"spacing_zyx": None if spacing_zyx is None else list(spacing_zyx)},
        register=register,
        affine=affine,
        num_workers=num_workers,
        progress=progress,
    )
