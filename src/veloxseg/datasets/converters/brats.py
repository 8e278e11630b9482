"""From a BraTS release to nnU-Net's raw format.

BraTS scores regions that contain one another, whatever its files name: whole tumour (WT), tumour
core (TC) and enhancing tumour (ET). Written labels are the same for all releases: 1 necrotic and
non-enhancing core, 2 oedema, 3 enhancing tumour, so that WT is {1, 2, 3}, TC {1, 3} and ET {3}.
Since 2017 BraTS itself has joined necrosis and non-enhancing core; those of 2013 are joined here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from veloxseg.datasets.converters.naming import Naming
from veloxseg.datasets.converters.release import Release, convert_release
from veloxseg.datasets.converters.writing import Alignment
from veloxseg.datasets.workspace import Workspace

REGIONS = {"whole_tumour": (1, 2, 3), "tumour_core": (1, 3), "enhancing_tumour": (3,)}
"""nnU-Net's regions, by the values written."""

REGIONS_CLASS_ORDER = (2, 1, 3)
"""Value of a voxel by the last region that holds it: whole tumour without core is oedema, 2."""

NAMINGS = (
    Naming(
        name="BRATS 2013",
        channels={"FLAIR": "{case}/Flair*.nii*", "T1c": "{case}/T1c*.nii*"},
        label="{case}/OTMultiClass*.nii*",
        # 1 necrosis, 2 oedema, 3 non-enhancing core, 4 enhancing tumour.
        label_values={0: 0, 1: 1, 2: 2, 3: 1, 4: 3},
        ignored=("{case}/brainmask*.nii*",),
    ),
    Naming(
        name="BraTS 2017 to 2021",
        channels={
            "FLAIR": "{case}/{case}_flair.nii*",
            "T1": "{case}/{case}_t1.nii*",
            "T1c": "{case}/{case}_t1ce.nii*",
            "T2": "{case}/{case}_t2.nii*",
        },
        label="{case}/{case}_seg.nii*",
        # 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour.
        label_values={0: 0, 1: 1, 2: 2, 4: 3},
    ),
    Naming(
        name="BraTS 2023",
        channels={
            "FLAIR": "{case}/{case}-t2f.nii*",
            "T1": "{case}/{case}-t1n.nii*",
            "T1c": "{case}/{case}-t1c.nii*",
            "T2": "{case}/{case}-t2w.nii*",
        },
        label="{case}/{case}-seg.nii*",
        label_values={0: 0, 1: 1, 2: 2, 3: 3},
        patient=r"(?P<patient>.+)-\d{3}",  # the rest is the time point
    ),
)


def convert_brats(
    source: Path,
    dataset: str,
    *,
    workspace: Workspace,
    register: Sequence[str] = (),
    affine: bool = False,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Convert a BraTS release of 2013 to 2023 to regions; which one it is, its names tell.

    Cases without any label become test cases. Run again after an interruption, it goes on where it
    stopped.

    Args:
        source: Folder with a folder for each case.
        dataset: ``DatasetNNN_Name``.
        workspace: Where nnU-Net's folders are.
        register: Channels to register to T1c, with which the label stays.
        affine: Whether registration allows for scaling and shear, too.
        num_workers: Processes that read and write cases.
        progress: Called after each case with the number done and the number of all.

    Returns:
        The dataset's folder.

    Raises:
        DatasetError: no release or more than one is recognised, files lack their counterparts, a
            label value or voxel is wrong, or the dataset exists with other settings.
        GeometryError: images and label of a case lie on different grids.
        ImageReadError: a file cannot be read.
        OSError: a file cannot be written.
    """
    return convert_release(
        source,
        dataset,
        workspace=workspace,
        release=Release(
            namings=NAMINGS,
            label_names=REGIONS,
            regions_class_order=REGIONS_CLASS_ORDER,
            reference="T1c",
            alignment=Alignment(),
        ),
        settings={},
        register=register,
        affine=affine,
        num_workers=num_workers,
        progress=progress,
    )
