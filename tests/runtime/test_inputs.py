"""Which cases a user means, before anything is computed."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from veloxseg.errors import DatasetError
from veloxseg.runtime.inputs import find_prediction_cases, parse_inputs
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

_TRAINED: dict[str, Any] = {"channels": ("CT", "PET"), "file_ending": ".nii.gz"}


def _write_image(path: Path, *, spacing: float = 1.0) -> Path:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_volume(path, Volume(data=data, spacing_zyx=(spacing, 1.0, 1.0)))
    return path


def _write_case(folder: Path, name: str, *, pet_spacing: float = 1.0) -> None:
    _write_image(folder / f"{name}_0000.nii.gz")
    _write_image(folder / f"{name}_0001.nii.gz", spacing=pet_spacing)


def test_a_folder_gives_its_cases_with_channels_in_order(tmp_path: Path) -> None:
    _write_case(tmp_path / "in", "b")
    _write_case(tmp_path / "in", "a_1")
    cases = find_prediction_cases([tmp_path / "in"], tmp_path / "out", **_TRAINED)
    assert [case.name for case in cases] == ["a_1", "b"]
    assert [path.name for path in cases[0].images] == ["a_1_0000.nii.gz", "a_1_0001.nii.gz"]
    assert cases[0].output == tmp_path / "out" / "a_1.nii.gz"


def test_files_are_the_channels_of_one_case(tmp_path: Path) -> None:
    files = [_write_image(tmp_path / "ct.nii.gz"), _write_image(tmp_path / "pet.nii.gz")]
    to_file, to_folder = (
        find_prediction_cases(files, tmp_path / output, **_TRAINED)[0]
        for output in ("mask.nii.gz", "out")
    )
    assert to_file.images == tuple(files)
    assert to_file.output == tmp_path / "mask.nii.gz"
    assert to_folder.output == tmp_path / "out" / "ct.nii.gz"


def test_all_incomplete_cases_are_reported_at_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        _write_case(tmp_path, name)
    (tmp_path / "a_0001.nii.gz").unlink()
    (tmp_path / "b_0000.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"(?s)Case a: no PET image.*Case b: no CT image"):
        find_prediction_cases([tmp_path], tmp_path / "out", **_TRAINED)


def test_a_channel_that_the_network_does_not_know_is_refused(tmp_path: Path) -> None:
    _write_case(tmp_path, "a")
    shutil.copy(tmp_path / "a_0000.nii.gz", tmp_path / "a_0002.nii.gz")
    with pytest.raises(DatasetError, match="channel 0002"):
        find_prediction_cases([tmp_path], tmp_path / "out", **_TRAINED)


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    _write_case(tmp_path, "a", pet_spacing=2.0)
    with pytest.raises(DatasetError, match=r"Case a: CT has spacing 1 x 1 x 1 mm.*--reference CT"):
        find_prediction_cases([tmp_path], tmp_path / "out", **_TRAINED)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    _write_case(tmp_path, "a")
    (tmp_path / "a_0001.nii.gz").write_text("not an image")
    with pytest.raises(DatasetError, match="Case a, PET"):
        find_prediction_cases([tmp_path], tmp_path / "out", **_TRAINED)


def test_an_empty_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DatasetError, match="no image"):
        find_prediction_cases([tmp_path / "in"], tmp_path / "out", **_TRAINED)
    absent = [tmp_path / "absent.nii.gz"] * 2
    with pytest.raises(DatasetError, match="found nothing"):
        find_prediction_cases(absent, tmp_path / "out", **_TRAINED)


def test_a_mistyped_folder_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"typo: found nothing\. Expected a folder of cases"):
        find_prediction_cases([tmp_path / "typo"], tmp_path / "out", **_TRAINED)


def test_a_header_sheared_within_tolerance_is_welcome_though_itk_refuses_it(tmp_path: Path) -> None:
    _write_case(tmp_path / "in", "a")
    for path in (tmp_path / "in").iterdir():
        image = nibabel.load(path)
        affine = image.affine.copy()
        affine[0, 1] += 0.02
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), path)
    assert len(find_prediction_cases([tmp_path / "in"], tmp_path / "out", **_TRAINED)) == 1


def test_too_few_files_are_refused_with_the_channels_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="CT, PET"):
        find_prediction_cases(
            [_write_image(tmp_path / "ct.nii.gz")], tmp_path / "mask.nii.gz", **_TRAINED
        )


def test_a_folder_of_cases_does_not_go_into_one_file(tmp_path: Path) -> None:
    _write_case(tmp_path, "a")
    with pytest.raises(DatasetError, match="Give a folder"):
        find_prediction_cases([tmp_path], tmp_path / "mask.nii.gz", **_TRAINED)


def test_an_input_is_not_overwritten(tmp_path: Path) -> None:
    files = [_write_image(tmp_path / "ct.nii.gz"), _write_image(tmp_path / "pet.nii.gz")]
    with pytest.raises(DatasetError, match="overwritten"):
        find_prediction_cases(files, tmp_path / "pet.nii.gz", **_TRAINED)


@pytest.mark.parametrize(
    ("trained", "found"), [(".nii.gz", ".nii"), (".nii", ".nii.gz"), (".nrrd", ".nii.gz")]
)
def test_a_folder_of_nifti_images_of_another_ending_is_taken(
    tmp_path: Path, trained: str, found: str
) -> None:
    for index in range(2):
        _write_image(tmp_path / "in" / f"a_000{index}{found}")
    (case,) = find_prediction_cases(
        [tmp_path / "in"], tmp_path / "out", channels=("CT", "PET"), file_ending=trained
    )
    assert [path.name for path in case.images] == [f"a_0000{found}", f"a_0001{found}"]
    assert case.output == tmp_path / "out" / f"a{found}"


def test_where_images_have_the_ending_others_are_left_alone(tmp_path: Path) -> None:
    _write_case(tmp_path / "in", "a")
    _write_image(tmp_path / "in" / "b_0000.nii")
    cases = find_prediction_cases([tmp_path / "in"], tmp_path / "out", **_TRAINED)
    assert [case.name for case in cases] == ["a"]


_OPTIONAL: dict[str, Any] = _TRAINED | {"optional": ("PET",)}
_ALL_OPTIONAL: dict[str, Any] = _TRAINED | {"optional": ("CT", "PET")}


def test_a_case_in_a_folder_may_lack_an_optional_channel(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write_case(tmp_path, name)
    (tmp_path / "a_0001.nii.gz").unlink()
    lacking, complete = find_prediction_cases([tmp_path], tmp_path / "out", **_OPTIONAL)
    assert lacking.images == (tmp_path / "a_0000.nii.gz", None)
    assert lacking.files == (tmp_path / "a_0000.nii.gz",)
    assert None not in complete.images


def test_a_missing_required_channel_is_an_error_that_names_the_optional_ones(
    tmp_path: Path,
) -> None:
    _write_case(tmp_path, "a")
    (tmp_path / "a_0000.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"no CT image .* but the optional ones \(PET\)"):
        find_prediction_cases([tmp_path], tmp_path / "out", **_OPTIONAL)


def test_files_are_given_by_their_channels_names(tmp_path: Path) -> None:
    ct, pet = _write_image(tmp_path / "ct.nii.gz"), _write_image(tmp_path / "x_0001.nii.gz")
    (both,) = find_prediction_cases({"PET": pet, "CT": ct}, tmp_path / "out", **_TRAINED)
    assert both.images == (ct, pet)
    (alone,) = find_prediction_cases({"PET": pet}, tmp_path / "out", **_ALL_OPTIONAL)
    assert alone.images == (None, pet)
    assert alone.output == tmp_path / "out" / "x.nii.gz"


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ("MR", r"No channel MR\. The model knows CT, PET \(optional: PET\)"),
        ("PET", r"no CT image given.* CT, PET \(optional: PET\)"),
    ],
)
def test_an_unknown_channel_and_a_missing_required_one_are_refused(
    tmp_path: Path, channel: str, message: str
) -> None:
    image = _write_image(tmp_path / "image.nii.gz")
    with pytest.raises(DatasetError, match=message):
        find_prediction_cases({channel: image}, tmp_path / "out", **_OPTIONAL)


def test_too_few_files_without_names_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"optional: PET.*-i CT=FILE"):
        find_prediction_cases(
            [_write_image(tmp_path / "ct.nii.gz")], tmp_path / "mask.nii.gz", **_OPTIONAL
        )


def test_an_optional_channel_is_passed_over_on_demand(tmp_path: Path) -> None:
    _write_case(tmp_path, "a")
    _write_image(tmp_path / "a_0001.nii.gz", spacing=2.0)  # of another grid: it does not matter
    (case,) = find_prediction_cases([tmp_path], tmp_path / "out", without=("PET",), **_OPTIONAL)
    assert case.images == (tmp_path / "a_0000.nii.gz", None)


def test_only_optional_channels_are_passed_over(tmp_path: Path) -> None:
    _write_case(tmp_path, "a")
    for name in ("CT", "MR"):
        with pytest.raises(DatasetError, match=f"--without {name}: not an optional channel"):
            find_prediction_cases([tmp_path], tmp_path / "out", without=(name,), **_OPTIONAL)


def test_cases_of_which_nothing_would_be_left_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        _write_case(tmp_path, name)
    for name in ("a", "c"):
        (tmp_path / f"{name}_0000.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"(?s)2 problems.*Case a: no image.*Case c: no image"):
        find_prediction_cases([tmp_path], tmp_path / "out", without=("PET",), **_ALL_OPTIONAL)


def test_paths_and_named_paths_are_told_apart(tmp_path: Path) -> None:
    odd = _write_image(tmp_path / "CT=1.nii.gz")
    assert parse_inputs(["ct.nii.gz", "in/x=1"]) == [Path("ct.nii.gz"), Path("in/x=1")]
    assert parse_inputs([odd]) == [odd]
    assert parse_inputs(["CT=a=b.nii.gz", "PET=c/p.nii.gz"]) == {
        "CT": Path("a=b.nii.gz"),
        "PET": Path("c/p.nii.gz"),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CT=a.nii.gz", "b.nii.gz"], "Name all channels or none"),
        (["CT=a.nii.gz", "CT=b.nii.gz"], "given twice"),
    ],
)
def test_half_named_and_doubly_named_inputs_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        parse_inputs(words)


_PLAIN_INSTALL = """
import sys
for name in ("SimpleITK", "scipy", "torch", "nnunetv2"):
    sys.modules[name] = None
from pathlib import Path
from veloxseg.runtime.inputs import find_prediction_cases
cases = find_prediction_cases(
    [Path(sys.argv[1])], Path("out"), channels=("CT", "PET"), file_ending=".nii.gz"
)
print(cases[0].name)
"""


def test_cases_are_found_on_a_plain_install(tmp_path: Path) -> None:
    _write_case(tmp_path, "a")
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN_INSTALL, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a\n"
