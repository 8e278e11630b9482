"""nnU-Net's own predictor is the oracle of the runtime: the same weights make the same mask."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference import predict_from_raw_data as prediction
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

import veloxseg
from veloxseg.volumes.orientation import from_ras
from veloxseg.volumes.reading import read_grid, read_volume, write_volume
from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Volume, same_grid

MIN_AGREEMENT = 0.999
MIN_DICE = 0.999
PROBABILITY_TOLERANCE = 2e-3
"""Ours are kept in float16, whose numbers just below 1 are 5e-4 apart."""

STRAIGHT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
FLIPPED = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


class Float32Predictor(nnUNetPredictor):
    """nnU-Net's predictor without the rounding of its sums over tiles to float16."""

    def _internal_predict_sliding_window_return_logits(self, *arguments, **options):
        weights = partial(prediction.compute_gaussian.__wrapped__, dtype=torch.float32)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prediction, "compute_gaussian", weights)
            patch.setattr(torch, "half", torch.float32)
            return super()._internal_predict_sliding_window_return_logits(*arguments, **options)


def oblique() -> tuple[tuple[float, ...], ...]:
    """A rotation about all three axes, none of them by little."""
    (a, b), (c, d), (e, f) = ((np.cos(t), np.sin(t)) for t in (0.5, -0.35, 0.2))
    about_x = np.array([[1, 0, 0], [0, a, -b], [0, b, a]])
    about_y = np.array([[c, 0, d], [0, 1, 0], [-d, 0, c]])
    about_z = np.array([[e, -f, 0], [f, e, 0], [0, 0, 1]])
    return tuple(map(tuple, about_z @ about_y @ about_x))


def phantom(
    folder: Path,
    *,
    size=(30, 60, 56),
    spacing=(1.0, 1.0, 1.0),
    direction=STRAIGHT,
    num_channels=1,
    content=None,
) -> list[Path]:
    """Write an asymmetric case: an ellipsoid of 100 with two balls of 200 and one of 300, in noise.

    Args:
        size: Voxels z, y, x.
        spacing: In mm, z, y, x.
        direction: Direction cosines.
        num_channels: Further channels are of other contrast.
        content: Boxes (slices) of the array that keep anything but 0; None: all of it.
    """
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij"))

    def ball(centre, radius):
        return ((places - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0) < radius**2

    image = np.full(size, 20.0)
    image[ball((0, 0, 0), 0.95)] = 100
    image[ball((0.3, -0.4, 0.2), 0.35)] = 200
    image[ball((-0.5, 0.1, -0.3), 0.4)] = 200
    image[ball((-0.1, 0.45, 0.35), 0.35)] = 300
    rng = np.random.default_rng(0)
    files = []
    for index in range(num_channels):
        data = (image if index == 0 else 300 - image) + rng.normal(0, 5, size)
        kept = np.zeros(size)
        for box in content or [...]:
            kept[box] = 1
        data *= kept
        volume = Volume(
            data=data.astype(np.float32),
            spacing_zyx=spacing,
            origin_xyz=(-31.0, 12.5, 70.0),
            direction=tuple(np.ravel(direction).tolist()),
        )
        files.append(folder / f"case_{index:04d}.nii.gz")
        write_volume(files[-1], volume)
    return files


def predict_by_nnunet(
    run: Path, images: list[Path], output: Path, *, predictor=Float32Predictor, mirroring=False
):
    """nnU-Net's mask as it wrote it, and its probabilities (K, Z, Y, X) in its reader's axes."""
    nnunet = predictor(
        use_mirroring=mirroring,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    nnunet.initialize_from_trained_model_folder(str(run), None)
    output.mkdir()
    nnunet.predict_from_files_sequential(
        [list(map(str, images))], [str(output / "case")], save_probabilities=True
    )
    with np.load(output / "case.npz") as content:
        return output / "case.nii.gz", content["probabilities"]


def dices(ours, theirs) -> list[float]:
    """Of each label that either mask has."""
    found = [value for value in np.union1d(ours, theirs) if value]
    return [
        2 * np.count_nonzero((ours == v) & (theirs == v))
        / (np.count_nonzero(ours == v) + np.count_nonzero(theirs == v))
        for v in found
    ]  # fmt: skip


def require_same(run, bundle, images, folder, *, predictor=Float32Predictor, mirroring=False):
    """Both sides predict, and agree; returns ours."""
    file, probabilities = predict_by_nnunet(
        run, images, folder / "nnunet", predictor=predictor, mirroring=mirroring
    )
    theirs = read_volume(file)
    ours = veloxseg.load(bundle, threads=1).predict(images, probabilities=True, mirroring=mirroring)
    assert np.count_nonzero(theirs.data) > 0.01 * theirs.data.size
    assert set(np.unique(theirs.data)) >= {0, 1, 2}
    assert np.mean(ours.mask == theirs.data) >= MIN_AGREEMENT
    assert min(dices(ours.mask, theirs.data)) >= MIN_DICE
    ours.save(folder / "ours.nii.gz")
    assert same_grid(read_grid(folder / "ours.nii.gz"), theirs)
    if predictor is Float32Predictor:
        require_same_probabilities(ours, probabilities, images, run)
    return ours


def require_same_probabilities(ours, probabilities, images, run):
    """Within the tolerance wherever the image holds anything but its background's constant.

    Tiles of nothing but zeros are left out, and in tiles of another constant instance norms make
    something of the last bit of float32: two engines differ there by 0.03 in logits of 10.
    """
    if "Reorient" in (run / "plans.json").read_text():
        probabilities = from_ras(probabilities, ours.grid)
    volumes = [read_volume(image).data for image in images]
    content = np.any([volume != volume[0, 0, 0] for volume in volumes], axis=0)
    assert np.ptp(probabilities[:, content]) > 0.9
    difference = np.abs(ours.probabilities - probabilities)[:, content]
    assert difference.max() < PROBABILITY_TOLERANCE


REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
CASES = {
    "oblique": (
        {"direction": oblique(), "spacing": (1.5, 1.0, 1.2)},
        {"spacing": (1.2, 1.1, 1.0)},
    ),
    "thick slices": ({"size": (10, 60, 56), "spacing": (5.0, 1.0, 1.0)}, {"spacing": (2, 0.9, 1)}),
    "to thick slices": ({"spacing": (1.4, 1.0, 1.0)}, {"spacing": (3.2, 1.1, 0.9)}),
    "thick slices along x": (
        {"size": (40, 44, 12), "spacing": (1.0, 1.0, 4.5)},
        {"spacing": (1.0, 1.2, 2.0)},
    ),
    "flipped": ({"direction": FLIPPED}, {"spacing": (1.3, 1.0, 0.8)}),
    "transposed": (
        {"size": (44, 24, 56), "spacing": (1.0, 2.0, 0.9)},
        {"transpose": (1, 0, 2), "spacing": (1.5, 1.0, 1.0)},
    ),
    "transposed in a circle, oblique": (
        {"size": (44, 50, 24), "direction": oblique()},
        {"transpose": (2, 0, 1), "spacing": (0.9, 1.2, 1.0)},
    ),
    "zero borders": (
        {"content": [(slice(5, 27), slice(0, 49), slice(9, 56))]},
        {"within_mask": (True,), "spacing": (1.0, 1.2, 1.1), "thresholds": (0.8, 2.2)},
    ),
    "smaller than a patch": ({"size": (11, 40, 23)}, {}),
    "one plane smaller": ({"size": (15, 31, 33)}, {}),
    "ras": (
        {"direction": np.array(FLIPPED) @ oblique(), "spacing": (1.5, 1.0, 1.2)},
        {"reader": "NibabelIOWithReorient", "spacing": (1.2, 1.1, 1.0)},
    ),
    "ras of sagittal planes": (
        {"size": (44, 50, 24), "direction": np.roll(np.eye(3), 1, axis=0) * (1, -1, 1)},
        {"reader": "NibabelIOWithReorient", "transpose": (0, 2, 1), "spacing": (1.2, 1.1, 1.0)},
    ),
    "regions": (
        {"spacing": (1.0, 1.2, 1.0)},
        {"labels": REGIONS, "regions_class_order": (1, 2)},
    ),
    "two channels, CT and another": (
        {"num_channels": 2, "spacing": (1.0, 1.2, 1.0)},
        {
            "channels": ("CT", "other"),
            "schemes": ("CTNormalization", "ZScoreNormalization"),
            "within_mask": (False, False),
            "thresholds": (0.2, 1.3),
        },
    ),
    "resampled by torch": (
        {"spacing": (3.5, 1.0, 1.0), "size": (14, 60, 56)},
        {"resampling": "resample_torch_fornnunet", "spacing": (2.0, 1.2, 0.9)},
    ),
    "two folds": ({"spacing": (1.0, 1.2, 1.0)}, {"num_folds": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_phantoms_mask_and_probabilities_are_those_of_nnunet(name, setting, runs, tmp_path):
    image, changes = CASES[name]
    images = phantom(tmp_path, **image)
    require_same(*runs(images, setting(**changes)), images, tmp_path)


@pytest.mark.parametrize("name", ["oblique", "thick slices", "zero borders", "regions"])
def test_masks_agree_beside_the_rounding_of_nnunets_sums_to_float16(name, setting, runs, tmp_path):
    image, changes = CASES[name]
    images = phantom(tmp_path, **image)
    require_same(*runs(images, setting(**changes)), images, tmp_path, predictor=nnUNetPredictor)


def test_averages_over_mirrored_patches_are_those_of_nnunet(setting, runs, tmp_path):
    images = phantom(tmp_path, size=(20, 40, 44))
    require_same(*runs(images, setting()), images, tmp_path, mirroring=True)


def test_tiles_without_content_are_left_out_and_change_no_voxel_with_content(
    setting, runs, tmp_path
):
    corners = [(slice(0, 14),) * 3, (slice(50, 64), slice(70, 88), slice(60, 80))]
    images = phantom(tmp_path, size=(64, 88, 80), content=corners)
    run, bundle = runs(images, setting(within_mask=(True,)))
    file, _ = predict_by_nnunet(run, images, tmp_path / "nnunet")
    theirs, image = read_volume(file).data, read_volume(images[0]).data
    ours = veloxseg.load(bundle, threads=1).predict(images)
    assert 1 < ours.num_tiles < 7 * 5 * 4 // 4
    content = image != 0
    assert np.unique(theirs[content]).size > 1
    assert np.array_equal(ours.mask[content], theirs[content])
    assert not ours.mask[30:36, 40:48, 36:44].any()


@pytest.mark.parametrize("case", ["hippocampus_001", "hippocampus_205"])
def test_a_hippocampus_has_the_mask_of_nnunet(case, shared, setting, runs, tmp_path):
    folder = shared / "data" / "hippocampus" / "Dataset004_Hippocampus"
    images = real_files(folder / "imagesTr" / f"{case}_0000.nii.gz")
    chosen = setting(thresholds=(0.4, 1.2))
    require_same(*runs(images, chosen), images, tmp_path)


def test_a_sarcoma_in_ct_and_pet_has_the_mask_of_nnunet(shared, setting, runs, tmp_path):
    folder = shared / "data" / "sts" / "STS_003"
    ct, pet = map(read_volume, real_files(folder / "CT_image.nii.gz", folder / "PET_image.nii.gz"))
    images = [tmp_path / "case_0000.nii.gz", tmp_path / "case_0001.nii.gz"]
    on_ct = resample(pet, ct.grid, interpolation="linear", fill=0.0)
    for file, volume in zip(images, (on_ct, ct), strict=True):
        write_volume(file, volume)
    chosen = setting(
        channels=("PET", "CT"),
        schemes=("ZScoreNormalization", "CTNormalization"),
        within_mask=(False, False),
        spacing=(3.3, 2.0, 2.0),
        thresholds=(0.5, 2.0),
    )
    require_same(*runs(images, chosen), images, tmp_path)


@pytest.mark.slow  # the hippocampus and the sarcoma are quicker
def test_a_brain_tumour_in_mr_has_the_mask_of_nnunet(shared, setting, runs, tmp_path):
    folder = shared / "data" / "brats2013" / "pat0003"
    names = ("Flair_subtrMeanDivStd.nii.gz", "T1c_subtrMeanDivStd.nii.gz")
    images = real_files(*(folder / name for name in names))
    chosen = setting(
        channels=("FLAIR", "T1c"),
        schemes=("ZScoreNormalization",) * 2,
        within_mask=(True, True),
        spacing=(2.4, 2.4, 2.4),
        thresholds=(0.5, 1.5),
    )
    require_same(*runs(images, chosen), images, tmp_path)


def real_files(*files: Path) -> list[Path]:
    """The files, or a skipped test if any is absent."""
    for file in files:
        if not file.is_file():
            pytest.skip(f"real data absent: no {file}")
    return list(files)
