import base64
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluated_scenes import SPACING, evaluate_scene, reference, write
from veloxseg.errors import DatasetError
from veloxseg.evaluation.report.cases import list_cases
from veloxseg.evaluation.report.images import open_image_folder
from veloxseg.evaluation.report.pictures import draw_case
from veloxseg.evaluation.report.reading import read_summary
from veloxseg.evaluation.summary import evaluate_folder
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

HREF = "href"


@pytest.fixture
def scene(tmp_path):
    """Case a, predicted 4 mm too far to the patient's left."""
    return evaluate_scene(tmp_path, {"a": 4}).parent


def draw(folder, *, channels=None, images=True, **change):
    summary = read_summary(folder / "summary.json")
    case = list_cases(summary, folder=folder)[0]
    if change:
        from dataclasses import replace

        case = replace(case, **change)
    found = open_image_folder(folder / "imagesTr", channels) if images else None
    return draw_case(case, "Worst", labels=summary.labels, images=found)


def pixels(svg: str) -> np.ndarray:
    image = next(ET.fromstring(svg).iter("image"))
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image.get(HREF).split(",")[1]))))


def outline(svg: str, kind: str) -> np.ndarray:
    path = next(path for path in ET.fromstring(svg).iter("path") if path.get("class") == kind)
    return np.array(re.findall(r"[\d.]+", path.get("d")), float).reshape(-1, 2)


def test_outlines_lie_where_the_masks_do_in_millimetres(scene):
    picture = draw(scene)
    axial = picture.rows[0][1][0]
    pixel_mm = 60 / axial.width  # the image is 60 mm wide
    referred = outline(axial.svg, "reference") * pixel_mm
    predicted = outline(axial.svg, "prediction") * pixel_mm
    # The organ reaches from voxel 20 to 40 (1 mm) and from 10 to 20 (2 mm).
    assert referred[:, 0].min() == pytest.approx(20, abs=0.6)
    assert referred[:, 0].max() == pytest.approx(40, abs=0.6)
    assert referred[:, 1].min() == pytest.approx(20, abs=1.1)
    assert referred[:, 1].max() == pytest.approx(40, abs=1.1)
    assert np.ptp(predicted[:, 0]) == pytest.approx(np.ptp(referred[:, 0]), abs=0.1)
    assert predicted[:, 0].min() - referred[:, 0].min() == pytest.approx(4, abs=0.1)


def test_the_image_is_under_the_outlines_and_all_planes_have_one_scale(scene):
    picture = draw(scene)
    sizes_mm = {"Axial": (60, 60), "Coronal": (60, 32), "Sagittal": (60, 32)}
    (name, planes), _ = picture.rows
    assert name == "CT"
    for plane in planes:
        image = pixels(plane.svg)
        width_mm, height_mm = sizes_mm[plane.caption.split(",")[0]]
        assert image.shape[1] / image.shape[0] == pytest.approx(width_mm / height_mm, abs=0.02)
    axial = pixels(planes[0].svg)
    bright = np.argwhere(axial > axial.max() - 5)
    inside = outline(planes[0].svg, "reference")
    assert bright[:, 1].min() == pytest.approx(inside[:, 0].min(), abs=2)
    assert bright[:, 1].max() == pytest.approx(inside[:, 0].max(), abs=2)


def test_the_soft_tissue_window_of_ct_makes_50_hu_more_than_half_bright(scene):
    assert pixels(draw(scene).rows[0][1][0].svg).max() == round(255 * (50 + 160) / 400)


def test_channels_are_the_first_two_or_those_asked_for(scene):
    assert [name for name, _ in draw(scene).rows] == ["CT", "PET"]
    assert [name for name, _ in draw(scene, channels=[1]).rows] == ["PET"]
    with pytest.raises(DatasetError, match=r"no channel 2\. Expected 0 \(CT\), 1 \(PET\)"):
        draw(scene, channels=[2])


def test_channels_are_named_in_the_folder_of_images_itself_too(scene, monkeypatch):
    monkeypatch.chdir(scene / "imagesTr")
    assert open_image_folder(Path(), None).names == {0: "CT", 1: "PET"}


def test_without_images_there_are_outlines_alone(scene):
    ((name, planes),) = draw(scene, images=False).rows
    assert name == ""
    assert len(planes) == 3
    assert "<image" not in planes[0].svg
    assert len(outline(planes[0].svg, "prediction"))


def test_a_case_without_an_image_has_outlines_and_says_so(scene):
    for file in (scene / "imagesTr").iterdir():
        file.unlink()
    picture = draw(scene)
    assert picture.notes == ["No image: a_0000.nii.gz is not in imagesTr."]
    assert "<image" not in picture.rows[0][1][0].svg
    assert draw(scene, channels=[1]).notes == ["No image: a_0001.nii.gz is not in imagesTr."]


def test_of_the_channels_asked_for_the_missing_one_is_named(scene):
    (scene / "imagesTr" / "a_0001.nii.gz").unlink()
    picture = draw(scene, channels=[0, 1])
    assert [name for name, _ in picture.rows] == ["CT"]
    assert picture.notes == ["No image: a_0001.nii.gz is not in imagesTr."]


def test_an_image_that_lies_elsewhere_is_said_and_not_drawn_black(scene):
    data = np.ones((4, 5, 6), np.float32)
    far = Volume(data=data, spacing_zyx=(1.0, 1.0, 1.0), origin_xyz=(900.0, 900.0, 900.0))
    write_volume(scene / "imagesTr" / "a_0000.nii.gz", far)
    picture = draw(scene)
    assert [name for name, _ in picture.rows] == ["PET"]
    assert picture.notes == ["a_0000.nii.gz lies elsewhere: no voxel of it is near the masks."]


def test_an_image_that_marks_its_outside_with_the_lowest_float_is_shown(scene):
    data = np.full(reference().shape, np.finfo(np.float32).min, np.float32)
    data[:, :, 30:] = np.finfo(np.float32).max
    write(scene / "imagesTr" / "a_0000.nii.gz", data)
    (scene / "dataset.json").unlink()
    shown = pixels(draw(scene, channels=[0]).rows[0][1][0].svg)
    assert (shown.min(), shown.max()) == (0, 255)


def test_a_label_that_is_a_name_is_said_to_have_no_picture(scene):
    case = list_cases(read_summary(scene / "summary.json"), folder=scene)[0]
    picture = draw_case(case, "Worst", labels={"T1 lesion": "lesion"}, images=None)
    assert picture.rows == ()
    assert picture.notes[0].startswith("The summary's label T1 lesion is no value of a mask.")


def test_planes_of_one_slice_have_no_letters_that_lie_on_one_another(tmp_path):
    mask = np.zeros((1, 40, 50), np.uint8)
    mask[0, 10:20, 10:30] = 1
    for folder in ("masks", "labelsTr"):
        write(tmp_path / folder / "a.nii.gz", mask)
    evaluate_folder(tmp_path / "masks", tmp_path / "labelsTr", output=tmp_path / "summary.json")
    planes = draw(tmp_path, images=False).rows[0][1]
    letters = [re.findall(r">([A-Z])<", plane.svg) for plane in planes]
    assert letters == [["R", "L", "A", "P"], ["R", "L"], ["A", "P"]]
    assert ["mm</text>" in plane.svg for plane in planes] == [True, False, False]


@pytest.mark.parametrize("kind", ["prediction", "reference"])
def test_a_mask_that_is_gone_or_damaged_is_said_without_its_folders(scene, kind):
    file = scene / {"prediction": "masks", "reference": "labelsTr"}[kind] / "a.nii.gz"
    file.write_bytes(b"no image")
    (note,) = draw(scene).notes
    assert "a.nii.gz" in note
    assert str(scene) not in note
    file.unlink()
    assert draw(scene).notes == [f"The {kind}'s file a.nii.gz is not there any more."]
    assert draw(scene).rows == ()
    assert draw(scene, **{kind: None}).notes == [f"The summary does not name the {kind}'s file."]


def test_a_damaged_image_is_said(scene):
    (scene / "imagesTr" / "a_0000.nii.gz").write_bytes(b"no image")
    picture = draw(scene)
    assert [name for name, _ in picture.rows] == ["PET"]
    assert "a_0000.nii.gz" in picture.notes[0]


def test_a_prediction_on_another_grid_is_drawn_only_if_it_was_evaluated_resampled(scene):
    write(scene / "masks" / "a.nii.gz", reference()[:, :, ::2], (4.0, 2.0, 2.0))
    assert draw(scene).notes[0].startswith("The prediction has size 8 x 30 x 30")
    assert len(draw(scene, resampled=True).rows) == 2


def test_empty_masks_are_drawn_as_the_image_alone(scene):
    for folder in ("masks", "labelsTr"):
        write(scene / folder / "a.nii.gz", np.zeros_like(reference()))
    picture = draw(scene)
    assert picture.place.startswith("No error.")
    assert "reference" not in re.findall(r'class="(\w+)"', picture.rows[0][1][0].svg)


def test_an_error_of_a_small_voxel_is_not_said_to_have_no_volume(scene):
    mask = reference()
    write(scene / "labelsTr" / "a.nii.gz", mask, spacing=(1.0, 1.0, 1.0))
    mask[0, 0, 0] = 1
    write(scene / "masks" / "a.nii.gz", mask, spacing=(1.0, 1.0, 1.0))
    assert draw(scene, images=False).place.startswith("The largest error has less than 0.01 ml. ")


def test_the_picture_is_the_same_whatever_the_axes_of_the_files(scene):
    first = pixels(draw(scene, channels=[0]).rows[0][1][0].svg).astype(int)
    grid = {"spacing_zyx": SPACING, "direction": tuple(np.diag([-1.0, -1.0, 1.0]).ravel())}
    for file in [*scene.glob("*/a.nii.gz"), scene / "imagesTr" / "a_0000.nii.gz"]:
        from veloxseg.volumes.reading import read_volume

        data = np.ascontiguousarray(read_volume(file).data[:, ::-1, ::-1])
        write_volume(file, Volume(data=data, origin_xyz=(59.0, 58.0, 0.0), **grid))
    second = pixels(draw(scene, channels=[0]).rows[0][1][0].svg).astype(int)
    assert np.abs(first - second).max() <= 1
