"""Turning to the patient's axes, with nibabel and nnU-Net's reader as oracles."""

import itertools

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

from veloxseg.volumes.orientation import from_ras, to_ras
from veloxseg.volumes.reading import read_volume, write_mask

_ORIENTATIONS = [
    *(
        np.eye(3)[list(order)] * signs
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ),
    *(np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0] for seed in range(20)),
]
_DATA = np.arange(120, dtype=np.float32).reshape(4, 5, 6)


@pytest.fixture(params=range(len(_ORIENTATIONS)))
def path(request, tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = _ORIENTATIONS[request.param] @ np.diag([0.5, 1.0, 3.0])
    affine[:3, 3] = (-20, 35, 400)
    nibabel.save(nibabel.Nifti1Image(_DATA, affine), tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def test_a_turned_image_is_nibabels_closest_canonical_one(path):
    canonical = nibabel.as_closest_canonical(nibabel.load(path))
    turned = to_ras(read_volume(path))
    np.testing.assert_array_equal(turned.data, np.asarray(canonical.dataobj).T)
    sizes = np.diag(turned.spacing_zyx[::-1])
    np.testing.assert_allclose(
        np.diag([-1, -1, 1]) @ turned.grid.matrix() @ sizes, canonical.affine[:3, :3], atol=1e-5
    )
    np.testing.assert_allclose(
        np.diag([-1, -1, 1]) @ turned.origin_xyz, canonical.affine[:3, 3], atol=1e-3
    )


def test_a_turned_image_is_what_nnunet_reads_and_its_mask_goes_back_as_nnunets(path, tmp_path):
    reader = NibabelIOWithReorient()
    images, properties = reader.read_images([str(path)])
    volume = read_volume(path)
    turned = to_ras(volume)
    np.testing.assert_array_equal(turned.data, images[0])
    np.testing.assert_allclose(turned.spacing_zyx, properties["spacing"], rtol=1e-6)

    mask = (images[0] % 7).astype(np.uint8)
    reader.write_seg(mask, str(tmp_path / "theirs.nii.gz"), properties)
    write_mask(tmp_path / "ours.nii.gz", from_ras(mask, volume.grid), volume.grid, like=path)
    theirs, ours = (nibabel.load(tmp_path / f"{name}.nii.gz") for name in ("theirs", "ours"))
    np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)


def test_turning_back_undoes_the_turn_with_channels_too(path):
    volume = read_volume(path)
    turned = to_ras(volume)
    np.testing.assert_array_equal(from_ras(turned.data, volume.grid), volume.data)
    channels = np.stack([turned.data, turned.data * 2])
    np.testing.assert_array_equal(from_ras(channels, volume.grid)[1], volume.data * 2)


def test_a_turned_image_turns_no_further(path):
    turned = to_ras(read_volume(path))
    again = to_ras(turned)
    assert again.grid == turned.grid
    np.testing.assert_array_equal(again.data, turned.data)
