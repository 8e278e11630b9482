"""Small datasets of PET/CT to break in one place each."""

import json

import nibabel
import numpy as np

from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

SHAPE = (4, 5, 6)
SPACING = (3.0, 1.0, 1.0)


def ct(seed=0, shape=SHAPE):
    """Hounsfield units from air to bone."""
    return np.random.default_rng(seed).uniform(-1000, 1000, size=shape).astype(np.float32)


def pet(seed=0, shape=SHAPE):
    """SUV."""
    return np.random.default_rng(100 + seed).uniform(0, 8, size=shape).astype(np.float32)


def mask(seed=0):
    label = np.zeros(SHAPE, np.uint8)
    label[1:3, 2:4, 1:5] = 1
    label.flat[seed] = 1
    return label


def put(path, data, spacing=SPACING, origin=(0.0, 0.0, 0.0), **grid):
    write_volume(path, Volume(data=data, spacing_zyx=spacing, origin_xyz=origin, **grid))


def describe(folder, **change):
    content = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content | change))


def put_case(folder, name, seed, part="Tr", **grid):
    put(folder / f"images{part}/{name}_0000.nii.gz", ct(seed), **grid)
    put(folder / f"images{part}/{name}_0001.nii.gz", pet(seed), **grid)
    put(folder / f"labels{part}/{name}.nii.gz", mask(seed), **grid)


def sound_dataset(folder):
    """Five cases of CT and PET, ``tumour_001`` to ``tumour_005``, with nothing wrong."""
    for number in range(1, 6):
        put_case(folder, f"tumour_00{number}", number)
    describe(folder)
    return folder


def set_header(path, **fields):
    """Overwrite fields of a NIfTI header and leave all else as it is."""
    image = nibabel.load(path)
    data = np.asarray(image.dataobj)
    header = image.header.copy()
    for name, value in fields.items():
        header[name] = value
    changed = nibabel.Nifti1Image(data, None, header)
    changed.header["qform_code"] = header["qform_code"]
    changed.header["sform_code"] = header["sform_code"]
    nibabel.save(changed, path)


def shear(path, amount=0.02):
    """Turn an axis by an angle that rounding might, and nnU-Net's reader refuses."""
    image = nibabel.load(path)
    affine = image.affine.copy()
    affine[0, 1] += amount
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), path)
