"""From an autoPET release, whole-body PET/CT, to nnU-Net's raw format.

Whatever the order at the source, channel 0000 is written as CT in HU and 0001 as PET in SUV.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from veloxseg.atomic import read_json
from veloxseg.datasets.converters.intensities import CheckedIntensities, order_of
from veloxseg.datasets.converters.naming import Naming, find_parts, recognise
from veloxseg.datasets.converters.release import Release, convert_release
from veloxseg.datasets.converters.source_case import Load
from veloxseg.datasets.converters.writing import Alignment
from veloxseg.datasets.description import FILE_NAME
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError

LABELS = {"lesion": 1}
CHANNELS = ("CT", "PET")

_VALUES = {0: 0, 1: 1}
_NUMBERS = ("0000", "0001")
_MODALITIES = {"CT": "CT", "CTRES": "CT", "PET": "PET", "PT": "PET", "SUV": "PET"}
_BY_NUMBER = Naming(
    name="autoPET in nnU-Net's naming",
    channels={number: f"images{{part}}/{{case}}_{number}.nii*" for number in _NUMBERS},
    label="labels{part}/{case}.nii*",
    label_values=_VALUES,
    patient="(?P<patient>[^_]+_[^_]+)_.+",  # tracer_patient_date
)
_BY_STUDY = Naming(
    name="FDG-PET-CT-Lesions",
    channels={"CT": "{patient}/{case}/CTres.nii*", "PET": "{patient}/{case}/SUV.nii*"},
    label="{patient}/{case}/SEG.nii*",
    label_values=_VALUES,
    ignored=("{patient}/{case}/CT.nii*", "{patient}/{case}/PET.nii*"),
)


def convert_autopet(
    source: Path,
    dataset: str,
    *,
    workspace: Workspace,
    order: Sequence[str] | None = None,
    register: Sequence[str] = (),
    affine: bool = False,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Convert an autoPET release: a tree of patients and studies, or nnU-Net's naming.

    A case of the tree is named ``PATIENT_STUDY``; its patient is recorded. In nnU-Net's naming the
    order of the channels is the one given, else that of the source's dataset.json, else that by
    which the first case's voxels tell CT from PET. Every case's voxels must agree with it. Cases
    without any label become test cases. Run again after an interruption, it goes on where it
    stopped.

    Args:
        source: Folder of the patients, or of ``imagesTr`` and ``labelsTr``.
        dataset: ``DatasetNNN_Name``.
        workspace: Where nnU-Net's folders are.
        order: What 0000 and 0001 are at the source, ``("CT", "PET")`` or ``("PET", "CT")``.
        register: Channels to register to PET, with which the label stays.
        affine: Whether registration allows for scaling and shear, too.
        num_workers: Processes that read and write cases.
        progress: Called after each case with the number done and the number of all.

    Returns:
        The dataset's folder.

    Raises:
        DatasetError: files are named in no known way or in more than one, or lack their
            counterparts, an image does not look like its modality, a label value or voxel is wrong,
            or the dataset exists with other settings.
        GeometryError: images and label of a case lie on different grids.
        ImageReadError: a file cannot be read.
        OSError: a file cannot be written.
    """
    naming = recognise(source, (_BY_STUDY, _BY_NUMBER))
    settings = {}
    if naming is _BY_NUMBER:
        numbers = _numbers_of_channels(source, order, written=workspace.raw)
        naming = replace(
            naming, channels={name: naming.channels[numbers[name]] for name in CHANNELS}
        )
        settings = {"order": numbers}
    elif order is not None:
        raise DatasetError(
            f"{source}: files are named by what they are, so they have no order to be given. "
            "Leave out --order."
        )
    return convert_release(
        source,
        dataset,
        workspace=workspace,
        release=Release(
            namings=(naming,), label_names=LABELS, reference="PET", alignment=Alignment()
        ),
        settings=settings,
        wrap=_checked,
        register=register,
        affine=affine,
        num_workers=num_workers,
        progress=progress,
    )


def _checked(load: Load) -> Load:
    return CheckedIntensities(load=load, channels=CHANNELS)


def _numbers_of_channels(
    source: Path, order: Sequence[str] | None, *, written: Path
) -> dict[str, str]:
    """``CT`` and ``PET`` to their channel numbers at the source."""
    if order is None:
        order = _declared_order(source)
    if order is not None:
        if sorted(order) != sorted(CHANNELS):
            raise DatasetError(
                f"The order of the channels is {', '.join(order)}. Expected CT,PET or PET,CT: what "
                "0000 and 0001 are."
            )
        return {name: _NUMBERS[order.index(name)] for name in CHANNELS}
    files = next(iter(find_parts(source, _BY_NUMBER, written=written).values()))
    first = next(iter(files.values()))
    return order_of({number: first[number] for number in _NUMBERS})


def _declared_order(source: Path) -> list[str] | None:
    """The order that the source's own dataset.json names; None if it names none."""
    path = source / FILE_NAME
    content = read_json(path) if path.is_file() else {}
    names = content.get("channel_names") if isinstance(content, dict) else None
    if not isinstance(names, dict):
        return None
    order = [_MODALITIES.get(str(names.get(str(index), "")).upper()) for index in range(2)]
    known = [name for name in order if name is not None]
    return known if sorted(known) == sorted(CHANNELS) else None
