"""Folders as published datasets have them, made from one generated patient."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from veloxseg.datasets.phantoms import phantom
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Volume


@dataclass(frozen=True)
class Scan:
    """One patient: CT and PET on grids of their own, and both, with the lesions, on the PET's.

    Of the PET, every second voxel along each axis is there, so that tests are fast; ``fine_pet``
    has all.
    """

    ct: Volume
    fine_pet: Volume
    pet: Volume
    lesions: Volume
    ct_on_pet: Volume
    lesions_on_pet: Volume


@cache
def scan():
    case = phantom(0, 0)
    pet = Volume(
        data=case.pet.data[::2, ::2, ::2],
        spacing_zyx=tuple(2 * step for step in case.pet.spacing_zyx),
        origin_xyz=case.pet.origin_xyz,
        direction=case.pet.direction,
    )
    grid = pet.grid
    return Scan(
        ct=case.ct,
        fine_pet=case.pet,
        pet=pet,
        lesions=case.lesions,
        ct_on_pet=resample(case.ct, grid, interpolation="linear", fill=-1024),
        lesions_on_pet=resample(case.lesions, grid, interpolation="nearest", fill=0),
    )


def with_data(volume, data):
    return Volume.on_grid(data, volume.grid)


def scaled(volume, factor):
    """The image of another patient, so to speak."""
    return with_data(volume, (volume.data * factor).astype(np.float32))


def parts_of_tumour(values):
    """A label with shells of every value: the inmost first, (Z, Y, X) on the PET's grid."""
    z, y, x = np.indices(scan().pet.data.shape)
    distance = np.sqrt((z - 14) ** 2 + (y - 13) ** 2 + (x - 16) ** 2)
    data = np.zeros(distance.shape, np.float32)
    for index, value in reversed(list(enumerate(values))):
        data[distance < 2 + 2 * index] = value
    return with_data(scan().pet, data)


def put_brats(folder, names, label_values, channels):
    """A case of BraTS: ``names`` maps each channel, and ``label``, to its file."""
    for number, channel in enumerate(channels):
        write_volume(folder / names[channel], scaled(scan().pet, 1 + number))
    if "label" in names:
        write_volume(folder / names["label"], parts_of_tumour(label_values))


def put_hecktor(source, case, *, part="Tr", label=True, factor=1.0):
    images = source / f"images{part}"
    write_volume(images / f"{case}__CT.nii.gz", scan().ct)
    write_volume(images / f"{case}__PT.nii.gz", scaled(scan().pet, factor))
    if label:
        write_volume(source / f"labels{part}" / f"{case}.nii.gz", nodal(scan().lesions))


def nodal(lesions):
    """Lesions of two kinds, by the half of the body that they are in."""
    data = lesions.data.copy()
    data[: data.shape[0] // 2] *= 2
    return with_data(lesions, data)


def put_study(folder, *, factor=1.0):
    """A study of the FDG-PET-CT-Lesions tree."""
    write_volume(folder / "CT.nii.gz", scan().ct)
    write_volume(folder / "PET.nii.gz", scaled(scan().pet, 1500.0))
    write_volume(folder / "CTres.nii.gz", scan().ct_on_pet)
    write_volume(folder / "SUV.nii.gz", scaled(scan().pet, factor))
    write_volume(folder / "SEG.nii.gz", scan().lesions_on_pet)


def put_numbered(source, case, *, order=("CT", "PET"), part="Tr", label=True):
    """A case of autoPET in nnU-Net's naming."""
    images = {"CT": scan().ct_on_pet, "PET": scan().pet}
    for number, channel in enumerate(order):
        write_volume(source / f"images{part}" / f"{case}_{number:04d}.nii.gz", images[channel])
    if label:
        write_volume(source / f"labels{part}" / f"{case}.nii.gz", scan().lesions_on_pet)


def contents(folder):
    """Every file below a folder to its bytes and time of change."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
