"""The hippocampus demo: where the crops lie, that sides and orders of axes mean nothing to it."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import ndimage
from typer.testing import CliRunner

import veloxseg
from bundles import small_network, write_small_bundle
from veloxseg.bundle.format import Normalisation
from veloxseg.cli import app
from veloxseg.demos.hippocampus import (
    MODEL,
    Hippocampi,
    HippocampusDemo,
    find_template,
    run_hippocampus_demo,
    segment_hippocampi,
)
from veloxseg.demos.hippocampus_crops import SIDES, box_slices, cut_crop
from veloxseg.demos.hippocampus_picture import draw_parts
from veloxseg.errors import BundleError, GeometryError, VeloxSegError
from veloxseg.models.finding import known_models
from veloxseg.models.installing import install_model
from veloxseg.runtime.model import Model
from veloxseg.runtime.prediction import predict
from veloxseg.volumes.orientation import to_ras
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Volume, same_grid

RAS = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture(autouse=True)
def _own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELOXSEG_MODELS", str(tmp_path / "models"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(
        tmp_path_factory.mktemp("bundle") / "hippocampus.veloxseg",
        network=small_network(in_channels=(1,)),
        channels=("T1",),
        labels={"background": 0, "Anterior": 1, "Posterior": 2},
        spacing=(2.0, 2.0, 2.0),
        normalisation=(Normalisation(scheme="z_score"),),
    )


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return veloxseg.load(bundle, backend="onnxruntime", threads=1)


def brain(**changes: Any) -> Volume:
    """Noise at 2 mm, x from -60 to 60, y from -70 to 30, z from -50 to 40 mm in MNI space."""
    data = np.random.default_rng(0).uniform(1, 255, (46, 51, 61)).astype(np.float32)
    fields = {"data": data, "spacing_zyx": (2.0, 2.0, 2.0), "origin_xyz": (60.0, 70.0, -50.0)}
    return Volume(**(fields | {"direction": RAS} | changes))


def test_the_boxes_lie_where_mni_space_has_the_hippocampi() -> None:
    template = Volume(
        data=np.zeros((189, 233, 197), np.uint8),
        spacing_zyx=(1.0, 1.0, 1.0),
        origin_xyz=(98.0, 134.0, -72.0),  # LPS: voxel 0 is at RAS -98, -134, -72
        direction=RAS,
    )
    z, y, x = box_slices(template, "left")
    assert (z, y, x) == (slice(39, 84), slice(87, 138), slice(55, 92))  # -33..11, -47..3, -43..-7
    z, y, x = box_slices(template, "right")
    assert (z, y, x) == (slice(39, 84), slice(87, 138), slice(105, 142))  # 7..43


def test_of_voxels_that_hit_no_edge_those_inside_the_box_are_taken() -> None:
    _, _, x = box_slices(brain(), "left")
    centres = -60 + 2 * np.arange(61)[x]
    assert (centres.min(), centres.max()) == (-42, -8)


@pytest.mark.parametrize("side", SIDES)
def test_a_crop_s_voxels_lie_where_they_lay(side: str) -> None:
    image = brain()
    crop = cut_crop(image, side)
    assert crop.data.shape == (22, 25, 18)
    for corner in [(0, 0, 0), (21, 0, 0), (0, 24, 5), (3, 4, 17)]:
        x, y, z = crop.grid.positions_xyz(corner)  # LPS
        voxel = (round((z + 50) / 2), round((70 - y) / 2), round((60 - x) / 2))
        assert crop.data[corner] == image.data[voxel]


def test_the_right_crop_is_stored_as_a_left_one_looks() -> None:
    noise = brain().data
    symmetric = brain(data=noise + noise[..., ::-1])
    left, right = (cut_crop(symmetric, side) for side in SIDES)
    assert np.array_equal(left.data, right.data)
    assert not np.array_equal(left.data, left.data[..., ::-1])
    assert (left.grid.positions_xyz((0, 0, 0))[0], right.grid.positions_xyz((0, 0, 0))[0]) == (
        42.0,  # LPS: to the left
        -42.0,
    )


def test_a_symmetric_brain_has_a_symmetric_mask(model: Model) -> None:
    noise = brain().data
    found = segment_hippocampi(brain(data=noise + noise[..., ::-1]), model)
    left, right = np.where(found.mask < 3, found.mask, 0), np.where(found.mask > 2, found.mask, 0)
    assert set(np.unique(found.mask)) == {0, 1, 2, 3, 4}
    assert np.array_equal(np.where(left > 0, left + 2, 0), right[..., ::-1])
    sides = [found.volumes_ml[f"{side} anterior"] for side in ("left", "right")]
    assert sides[0] == sides[1] > 0


def test_the_mask_stays_inside_the_boxes_and_its_volumes_are_its_voxels(model: Model) -> None:
    image = brain()
    found = segment_hippocampi(image, model)
    boxes = np.zeros(image.data.shape, np.uint8)
    for number, side in enumerate(("left", "right"), start=1):
        boxes[box_slices(image, side)] = number
    assert np.array_equal(np.isin(found.mask, (1, 2)), (boxes == 1) & (found.mask > 0))
    assert np.array_equal(np.isin(found.mask, (3, 4)), (boxes == 2) & (found.mask > 0))
    assert list(found.labels) == [
        "left anterior",
        "left posterior",
        "right anterior",
        "right posterior",
    ]
    for name, value in found.labels.items():
        assert found.volumes_ml[name] == pytest.approx(8e-3 * (found.mask == value).sum())


def test_the_order_and_sense_of_axes_mean_nothing(model: Model) -> None:
    image = brain()
    turned = Volume(
        data=np.ascontiguousarray(image.data[::-1].transpose(2, 0, 1)[:, :, ::-1]),
        spacing_zyx=(2.0, 2.0, 2.0),
        # x was y reversed, y was z reversed, z was x: columns are their LPS directions.
        direction=(0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
        origin_xyz=(60.0, -30.0, 40.0),
    )
    assert np.array_equal(to_ras(turned).data, image.data)
    found = segment_hippocampi(turned, model)
    back = to_ras(Volume.on_grid(found.mask, turned.grid)).data
    assert np.array_equal(back, segment_hippocampi(image, model).mask)


def test_an_image_that_does_not_hold_the_boxes_is_refused(model: Model) -> None:
    with pytest.raises(GeometryError, match=r"Expected -33 to 11 mm.*left hippocampus"):
        segment_hippocampi(brain(origin_xyz=(60.0, 70.0, 0.0)), model)


def test_an_oblique_image_is_refused(model: Model) -> None:
    with pytest.raises(GeometryError, match="oblique"):
        segment_hippocampi(brain(direction=(-0.8, 0.6, 0, -0.6, -0.8, 0, 0, 0, 1)), model)


def test_a_model_of_two_channels_is_refused(tmp_path: Path) -> None:
    two = write_small_bundle(tmp_path / "two.veloxseg")
    with pytest.raises(BundleError, match=r"takes CT, PET.*Expected one channel"):
        segment_hippocampi(brain(), veloxseg.load(two, backend="onnxruntime", threads=1))


def test_a_file_in_the_outputs_place_is_refused_at_once(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("years of work")
    told = Console(record=True)
    with pytest.raises(VeloxSegError, match=r"out: a file\. Expected a folder"):
        run_hippocampus_demo(tmp_path / "out", console=told, model=bundle)
    assert told.export_text() == ""
    assert (tmp_path / "out").read_text() == "years of work"


def test_more_labels_than_the_picture_has_colours_are_refused_at_once(tmp_path: Path) -> None:
    template = tmp_path / "template.nii.gz"
    write_volume(template, brain())
    subfields = write_small_bundle(
        tmp_path / "subfields.veloxseg",
        network=small_network(in_channels=(1,), num_classes=6),
        channels=("T1",),
        labels={"background": 0, **{f"CA{number}": number for number in range(1, 6)}},
        normalisation=(Normalisation(scheme="z_score"),),
    )
    with pytest.raises(BundleError, match=r"gives CA1, .*CA5\. Expected 4 labels at most"):
        run_hippocampus_demo(
            tmp_path / "out", console=Console(quiet=True), model=subfields, template=template
        )
    assert not (tmp_path / "out").exists()


def test_a_model_that_finds_nothing_leaves_an_earlier_demo_as_it_was(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "template.nii.gz"
    write_volume(template, brain())
    nothing = Hippocampi(mask=np.zeros((46, 51, 61), np.uint8), labels={}, volumes_ml={})
    monkeypatch.setattr("veloxseg.demos.hippocampus.segment_hippocampi", lambda *_: nothing)
    with pytest.raises(VeloxSegError, match=r"found nothing in template\.nii\.gz.*Leave -m out"):
        run_hippocampus_demo(
            tmp_path / "out", console=Console(quiet=True), model=bundle, template=template
        )
    assert not (tmp_path / "out").exists()


def test_the_demo_writes_mask_volumes_and_picture(bundle: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.nii.gz"
    write_volume(template, brain())
    told = Console(record=True, width=200)
    done = run_hippocampus_demo(tmp_path / "out", console=told, model=bundle, template=template)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "crops",
        "hippocampus_mask.nii.gz",
        "hippocampus_mask.png",
        "hippocampus_volumes.json",
    ]
    mask = read_volume(done.mask)
    assert same_grid(mask, read_volume(template))
    assert np.array_equal(mask.data, done.found.mask)
    written = json.loads(done.volumes.read_text())
    assert written["labels"] == done.found.labels
    assert written["volumes_ml"] == pytest.approx(done.found.volumes_ml, abs=1e-4)
    assert done.picture.read_bytes().startswith(b"\x89PNG")
    printed = told.export_text()
    assert f"{done.found.volumes_ml['left anterior']:.2f}" in printed
    assert "symmetric" not in printed  # which only nilearn's template is


def test_masks_of_the_written_crops_are_the_demos_mask(bundle: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.nii.gz"
    write_volume(template, brain())
    quiet = Console(quiet=True)
    done = run_hippocampus_demo(tmp_path, console=quiet, model=bundle, template=template)
    predict(bundle, [done.crops], tmp_path / "masks")
    for number, side in enumerate(SIDES):
        mask = to_ras(read_volume(tmp_path / "masks" / f"hippocampus_{side}.nii.gz"))
        place = box_slices(brain(), side)
        assert same_grid(mask, to_ras(cut_crop(brain(), side)))
        whole = done.found.mask[place].astype(int)
        expected = np.where(whole > 0, whole - 2 * number, 0)
        assert (mask.data == expected).mean() > 0.999  # engines may differ at near ties
        assert (mask.data == expected[..., ::-1]).mean() < 0.9


def test_the_picture_shows_the_mask_and_whose_side_is_whose(tmp_path: Path) -> None:
    from matplotlib.image import imread

    image, mask = brain(), np.zeros((46, 51, 61), np.uint8)
    mask[box_slices(image, "left")] = 1  # the left half of the mask only
    path = draw_parts(
        image, mask, tmp_path / "a.png", parts={"all": (1,)}, title="Title", note="note"
    )
    pixels = imread(path)[..., :3]
    amber = (pixels[..., 0] - pixels[..., 2] > 0.3).astype(int)  # nothing else has a colour
    axial = amber[: len(amber) // 2, : amber.shape[1] // 3]
    assert axial.sum() > 100
    assert axial[:, : axial.shape[1] // 2].sum() == 0  # the patient's left is on the right


def test_an_empty_mask_is_told_and_nothing_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(VeloxSegError, match="found nothing"):
        draw_parts(brain(), np.zeros((46, 51, 61)), tmp_path / "a.png", parts={}, title="", note="")
    assert list(tmp_path.glob("*.png")) == []


def test_without_nilearn_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("installation", "demos.hippocampus"):
        monkeypatch.setattr(f"veloxseg.{module}.find_spec", lambda _: None)
    result = CliRunner().invoke(app, ["demo", "hippocampus"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert 'pip install "veloxseg[demo]"' in result.output
    with pytest.raises(VeloxSegError, match=r"veloxseg\[demo\]"):
        find_template()


def test_a_nilearn_without_the_template_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr("veloxseg.demos.hippocampus.find_spec", lambda _: Spec)
    with pytest.raises(VeloxSegError, match=r"missing.*--upgrade"):
        find_template()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["demo", "hippocampus", "--seed", "0"], "--seed means nothing"),
        (["demo", "hippocampus", "--minutes", "1"], "--minutes means nothing"),
        (["demo", "-m", "x"], "--model means nothing"),
    ],
)
def test_an_option_of_the_other_demo_is_refused(words: list[str], told: str) -> None:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert told in result.output


@pytest.fixture(scope="module")
def template() -> Path:
    if find_spec("nilearn") is None:
        pytest.skip("nilearn is not installed, which ships the MNI152 template")
    return find_template()


_NOT_IMPORTED = """
import sys
from veloxseg.cli import app
try:
    app({arguments!r})
except SystemExit as end:
    assert end.code in (0, None), end.code
found = {{"torch", "SimpleITK", "sklearn", "nilearn", "pandas"}} & set(sys.modules)
assert not found, found
"""


def test_the_template_needs_neither_torch_nor_simpleitk_nor_an_import_of_nilearn(
    template: Path, bundle: Path, tmp_path: Path
) -> None:
    install_model(bundle, replace=True)  # before the shipped one of that name
    (tmp_path / MODEL).mkdir()  # a folder that is called as the model is in nobody's way
    done = subprocess.run(
        [sys.executable, "-c", _NOT_IMPORTED.format(arguments=["demo", MODEL])],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "symmetric" in done.stdout
    mask = read_volume(tmp_path / "demo_hippocampus" / "hippocampus_mask.nii.gz")
    assert same_grid(mask, read_volume(template))


@pytest.fixture(scope="module")
def shown(template: Path, tmp_path_factory: pytest.TempPathFactory) -> HippocampusDemo:
    """The demo with the model that is shipped."""
    output = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VELOXSEG_MODELS", str(output / "models"))
        if MODEL not in known_models():
            pytest.skip(f"no model called {MODEL} is shipped")
        return run_hippocampus_demo(output, console=Console(quiet=True))


def test_the_models_hippocampi_of_the_template_are_of_human_size(shown: HippocampusDemo) -> None:
    for side in SIDES:
        parts = [shown.found.volumes_ml[f"{side} {part}"] for part in ("anterior", "posterior")]
        assert 3.5 < sum(parts) < 5.5  # MNI brains are a quarter larger than people's
        assert 0.35 < parts[0] / sum(parts) < 0.65


def test_the_models_hippocampi_lie_where_atlases_have_them(shown: HippocampusDemo) -> None:
    mask = to_ras(read_volume(shown.mask))
    for number, side in enumerate(SIDES):
        centre = centre_ras_mm(mask, (1 + 2 * number, 2 + 2 * number))
        # The AAL atlas (Tzourio-Mazoyer et al. 2002): -25, -21, -10 and 29, -20, -10 mm.
        assert centre == pytest.approx((-27 if side == "left" else 27, -20, -10), abs=5)
        anterior, posterior = (centre_ras_mm(mask, (part + 2 * number,)) for part in (1, 2))
        assert 10 < anterior[1] - posterior[1] < 25


def test_the_models_hippocampi_are_each_in_one_piece(shown: HippocampusDemo) -> None:
    mask = read_volume(shown.mask).data
    for values in ((1, 2), (3, 4), (1,), (2,), (3,), (4,)):
        part = np.isin(mask, values)
        pieces, _ = ndimage.label(part)
        assert np.bincount(pieces[part])[1:].max() > 0.98 * part.sum()


def test_the_template_s_right_mask_is_the_left_one_mirrored(
    shown: HippocampusDemo, template: Path
) -> None:
    assert same_grid(read_volume(shown.mask), read_volume(template))
    mask = to_ras(read_volume(shown.mask))
    assert mask.grid.positions_xyz((0, 0, 0))[0] == -mask.grid.positions_xyz((0, 0, 196))[0]
    assert mask.data.shape[2] == 197
    left = np.where(np.isin(mask.data, (1, 2)), mask.data + 2, 0)
    right = np.where(np.isin(mask.data, (3, 4)), mask.data, 0)
    assert left.any()
    assert np.array_equal(left[..., ::-1], right)


def centre_ras_mm(mask: Volume, values: tuple[int, ...]) -> tuple[float, float, float]:
    x, y, z = mask.grid.positions_xyz(np.argwhere(np.isin(mask.data, values))).mean(axis=0)
    return -x, -y, z
