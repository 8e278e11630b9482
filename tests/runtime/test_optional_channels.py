"""Cases that lack channels, predicted by a network of random weights."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

import veloxseg
from bundles import write_small_bundle
from veloxseg.bundle.format import Normalisation
from veloxseg.cli import app
from veloxseg.errors import DatasetError
from veloxseg.runtime.prediction import predict
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Volume

_SHAPE, _SPACING = (20, 24, 28), (3.0, 2.0, 2.0)
_UNCHANGED = Normalisation(scheme="none")
_SHIFTED = Normalisation(scheme="ct", mean=-50.0, std=20.0, lower=-200.0, upper=200.0)


@pytest.fixture(scope="module")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Normalisation], Path]:
    """Writes a bundle whose channels are all optional, by how PET is normalised."""

    def make(pet: Normalisation) -> Path:
        return write_small_bundle(
            tmp_path_factory.mktemp("bundle") / "small.veloxseg",
            optional=("CT", "PET"),
            normalisation=(Normalisation(scheme="z_score"), pet),
        )

    return make


def _image(seed: int = 0, *, origin: float = 5.0) -> Volume:
    data = np.random.default_rng(seed).normal(0, 1, _SHAPE).astype(np.float32)
    return Volume(data=data, spacing_zyx=_SPACING, origin_xyz=(origin, -7.0, 11.0))


def _zeros() -> Volume:
    return Volume.on_grid(np.zeros(_SHAPE, np.float32), _image().grid)


def _write_folder(folder: Path) -> Path:
    """Cases with both channels, with CT and with PET alone."""
    for name, seeds in (("both", (0, 1)), ("ct", (0, None)), ("pet", (None, 1))):
        for index, seed in enumerate(seeds):
            if seed is not None:
                write_volume(folder / f"{name}_{index:04d}.nii.gz", _image(seed))
    return folder


def _mask(folder: Path, name: str) -> np.ndarray:
    return read_volume(folder / f"{name}.nii.gz").data


@pytest.mark.filterwarnings("ignore:.*every voxel:UserWarning")
def test_an_absent_channel_is_what_zeros_are_that_no_normalisation_moves(
    make_bundle: Callable[[Normalisation], Path],
) -> None:
    model = veloxseg.load(make_bundle(_UNCHANGED))
    absent = model.predict([_image(), None]).mask
    np.testing.assert_array_equal(absent, model.predict([_image(), _zeros()]).mask)
    assert set(np.unique(absent)) == {0, 1, 2}

    # Where zero means something, an absent channel is not an image of zeros.
    shifted = veloxseg.load(make_bundle(_SHIFTED))
    np.testing.assert_array_equal(absent, shifted.predict([_image(), None]).mask)
    assert (absent != shifted.predict([_image(), _zeros()]).mask).any()


def test_images_are_given_by_name_or_in_order(
    make_bundle: Callable[[Normalisation], Path],
) -> None:
    model = veloxseg.load(make_bundle(_SHIFTED))
    in_order = model.predict([None, _image(1)]).mask
    np.testing.assert_array_equal(in_order, model.predict({"PET": _image(1)}).mask)
    named = model.predict({"PET": _image(1), "CT": None}).mask
    np.testing.assert_array_equal(in_order, named)
    assert (in_order != model.predict({"CT": _image(1)}).mask).any()


def test_cases_of_a_folder_may_lack_channels_each_its_own(
    make_bundle: Callable[[Normalisation], Path], tmp_path: Path
) -> None:
    folder, bundle = _write_folder(tmp_path / "in"), make_bundle(_SHIFTED)
    predict(bundle, [folder], tmp_path / "out")
    model = veloxseg.load(bundle)
    for name, images in (
        ("both", [_image(0), _image(1)]),
        ("ct", [_image(0), None]),
        ("pet", [None, _image(1)]),
    ):
        np.testing.assert_array_equal(_mask(tmp_path / "out", name), model.predict(images).mask)
    masks = [_mask(tmp_path / "out", name) for name in ("both", "ct", "pet")]
    assert all((masks[i] != masks[i - 1]).any() for i in range(3))


def test_the_mask_lies_on_the_grid_of_the_first_channel_that_is_there(
    make_bundle: Callable[[Normalisation], Path], tmp_path: Path
) -> None:
    write_volume(tmp_path / "pet.nii.gz", _image(1, origin=33.0))
    predict(make_bundle(_SHIFTED), {"PET": tmp_path / "pet.nii.gz"}, tmp_path / "mask.nii.gz")
    mask, source = (nibabel.load(tmp_path / f"{name}.nii.gz") for name in ("mask", "pet"))
    assert (mask.affine == source.affine).all()
    assert mask.affine[0, 3] == -33  # LPS to RAS


def test_passing_over_a_channel_is_as_if_its_file_were_not_there(
    make_bundle: Callable[[Normalisation], Path], tmp_path: Path
) -> None:
    folder, bundle = _write_folder(tmp_path / "in"), make_bundle(_SHIFTED)
    (folder / "pet_0001.nii.gz").unlink()
    arguments = ["-m", bundle, "-i", folder, "-o", tmp_path / "out", "--without", "PET"]
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(_mask(tmp_path / "out", "both"), _mask(tmp_path / "out", "ct"))


def test_the_command_takes_channels_by_name(
    make_bundle: Callable[[Normalisation], Path], tmp_path: Path
) -> None:
    folder, bundle = _write_folder(tmp_path / "in"), make_bundle(_SHIFTED)
    words = ["predict", "-m", str(bundle), "-o", str(tmp_path / "out" / "mask.nii.gz")]
    pet = f"PET={folder / 'both_0001.nii.gz'}"
    done = CliRunner().invoke(app, [*words, "-i", pet, "-i", f"CT={folder / 'both_0000.nii.gz'}"])
    assert done.exit_code == 0, done.output
    expected = veloxseg.load(bundle).predict([_image(0), _image(1)]).mask
    np.testing.assert_array_equal(_mask(tmp_path / "out", "mask"), expected)

    refused = CliRunner().invoke(app, [*words, "-i", pet.replace("PET", "MR")])
    assert refused.exit_code == 2
    assert "No channel MR. The model knows CT, PET (optional: CT, PET)" in refused.output


def test_no_tile_is_run_where_only_an_absent_channel_has_something(
    make_bundle: Callable[[Normalisation], Path],
) -> None:
    data = np.zeros((64, 16, 16), np.float32)
    data[:4], data[-4:] = _image().data[:4, :16, :16], 1
    corner = Volume(data=data, spacing_zyx=_SPACING)
    full = Volume(data=np.ones_like(data) + data, spacing_zyx=_SPACING)
    model = veloxseg.load(make_bundle(_UNCHANGED))
    both, alone = model.predict([full, corner]), model.predict({"PET": corner})
    assert both.mask.shape == alone.mask.shape
    assert alone.num_tiles < both.num_tiles


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([None, None], "no image given"),
        ({}, "no image given"),
        ({"MR": _image()}, "No channel MR"),
        ([_image()], r"1 image given.*by name those that there are"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    make_bundle: Callable[[Normalisation], Path], images: object, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        veloxseg.load(make_bundle(_SHIFTED)).predict(images)


def test_a_required_channel_stays_required(tmp_path: Path) -> None:
    model = veloxseg.load(write_small_bundle(tmp_path / "b.veloxseg", optional=("PET",)))
    with pytest.raises(DatasetError, match=r"no CT image given.*CT, PET \(optional: PET\)"):
        model.predict({"PET": _image()})
    plain = veloxseg.load(write_small_bundle(tmp_path / "plain.veloxseg"))
    with pytest.raises(DatasetError, match=r"no PET image given\. The model needs CT, PET\. Give"):
        plain.predict([_image(), None])
