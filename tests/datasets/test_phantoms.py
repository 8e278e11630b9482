import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from veloxseg.datasets.phantoms import PhantomCase, generate_phantoms, phantom
from veloxseg.evaluation.metrics import dice
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Volume, same_grid


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [phantom(7, index) for index in range(6)]


def pet_on_ct(case: PhantomCase) -> np.ndarray:
    return resample(case.pet, case.ct.grid, interpolation="linear", fill=0).data


def same_volume(a: Volume, b: Volume) -> bool:
    return a.grid == b.grid and a.data.dtype == b.data.dtype and np.array_equal(a.data, b.data)


def test_the_same_seed_and_index_give_the_same_case():
    first, second = phantom(3, 5), phantom(3, 5)
    assert same_volume(first.ct, second.ct)
    assert same_volume(first.pet, second.pet)
    assert same_volume(first.lesions, second.lesions)


def test_another_seed_or_index_gives_another_patient():
    case = phantom(3, 5)
    for other in (phantom(3, 4), phantom(4, 5)):
        assert not np.array_equal(other.lesions.data, case.lesions.data)


def test_a_case_does_not_depend_on_how_many_are_written(tmp_path):
    alone = generate_phantoms(tmp_path / "a", num_cases=1, num_test_cases=1, seed=2)
    more = generate_phantoms(tmp_path / "b", num_cases=2, seed=2)
    for name in ("CT.nii.gz", "PET.nii.gz", "lesions.nii.gz"):
        tested = read_volume(alone / "test" / "phantom_001" / name)
        trained = read_volume(more / "train" / "phantom_001" / name)
        assert same_volume(tested, trained)


def test_written_files_hold_the_generated_case_and_progress_counts_to_the_end(tmp_path):
    seen = []
    folder = generate_phantoms(
        tmp_path, num_cases=1, num_test_cases=1, seed=2, progress=lambda *step: seen.append(step)
    )
    assert seen == [(1, 2), (2, 2)]
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    files = ("CT.nii.gz", "PET.nii.gz", "lesions.nii.gz")
    assert names == [
        f"{part}/{name}" for part in ("test/phantom_001", "train/phantom_000") for name in files
    ]
    expected = phantom(2, 0)
    for name, volume in zip(files, (expected.ct, expected.pet, expected.lesions), strict=True):
        read = read_volume(folder / "train" / "phantom_000" / name)
        assert same_grid(read, volume)
        np.testing.assert_array_equal(read.data, volume.data)


def test_no_cases_to_train_on_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected at least 1"):
        generate_phantoms(tmp_path, num_cases=0, seed=0)


def test_lesions_lie_on_the_ct_grid_and_number_one_to_four(cases):
    for case in cases:
        assert same_grid(case.lesions, case.ct)
        assert not same_grid(case.pet, case.ct)
        assert set(np.unique(case.lesions.data)) == {0, 1}
        assert 1 <= ndimage.label(case.lesions.data, np.ones((3, 3, 3)))[1] <= 4


def test_lesions_are_several_voxels_wide(cases):
    for case in cases:
        labelled, count = ndimage.label(case.lesions.data, np.ones((3, 3, 3)))
        volumes_mm3 = np.bincount(labelled.ravel())[1:] * np.prod(case.ct.spacing_zyx)
        diameters_mm = 2 * (3 * volumes_mm3 / (4 * np.pi)) ** (1 / 3)
        assert count > 0
        assert diameters_mm.min() > 9
        assert diameters_mm.max() < 40


def test_ct_holds_air_lung_fat_soft_tissue_and_bone(cases):
    for case in cases:
        ct = case.ct.data
        for lowest, highest, share in (
            (-1024, -950, 0.1),
            (-900, -700, 0.05),
            (-130, -70, 0.02),
            (20, 80, 0.1),
            (350, 900, 0.002),
        ):
            assert np.mean((ct >= lowest) & (ct <= highest)) > share


def test_lesions_are_hot_at_the_same_place_in_space_on_both_grids(cases):
    for case in cases:
        mask = case.lesions.data > 0
        uptake = pet_on_ct(case)
        # Blur spreads a hot lesion evenly: the hottest voxels stay within it.
        labelled, count = ndimage.label(mask, np.ones((3, 3, 3)))
        for lesion in range(1, count + 1):
            inside = labelled == lesion
            around = ndimage.binary_dilation(inside, iterations=2) & ~mask
            assert uptake[inside].mean() > 1.3 * uptake[around].mean()


def test_lesions_are_not_hot_where_directions_are_ignored(cases):
    flipped = [case for case in cases if case.ct.direction[0] * case.pet.direction[0] < 0]
    assert flipped
    for case in flipped:
        pet = case.pet.grid
        centre = pet.positions_xyz((np.array(pet.size_zyx) - 1) / 2)
        half = np.array(pet.spacing_zyx)[::-1] * (np.array(pet.size_zyx)[::-1] - 1) / 2
        wrong = np.array(case.ct.direction).reshape(3, 3)
        origin = centre - wrong @ half
        misplaced = Volume(
            data=case.pet.data,
            spacing_zyx=pet.spacing_zyx,
            origin_xyz=tuple(origin),
            direction=case.ct.direction,
        )
        mask = case.lesions.data > 0
        wrongly = resample(misplaced, case.ct.grid, interpolation="linear", fill=0).data
        assert wrongly[mask].mean() < 0.7 * pet_on_ct(case)[mask].mean()


def test_no_threshold_on_uptake_finds_the_lesions(cases):
    masks = np.concatenate([case.lesions.data.ravel() for case in cases])
    uptake = np.concatenate([pet_on_ct(case).ravel() for case in cases])
    best = max(dice(uptake > threshold, masks) for threshold in np.arange(1, 12, 0.25))
    assert 0.1 < best < 0.8


def test_lesions_are_as_dense_as_healthy_soft_tissue(cases):
    for case in cases:
        mask = case.lesions.data > 0
        healthy = (case.ct.data > 0) & (case.ct.data < 100) & ~mask
        assert abs(np.median(case.ct.data[mask]) - np.median(case.ct.data[healthy])) < 25


def test_generating_needs_neither_torch_nor_nnunet():
    code = (
        "import sys, veloxseg.datasets.phantoms; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'nnunetv2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
