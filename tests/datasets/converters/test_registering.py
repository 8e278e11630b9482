import json
import pickle

import numpy as np
import pytest

from veloxseg.datasets.converters.registering import RegisterChannels
from veloxseg.datasets.converters.writing import (
    Alignment,
    SourceCase,
    begin_dataset,
    describe_dataset,
    finish_dataset,
    write_cases,
)
from veloxseg.datasets.phantoms import phantom
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.registration_transform import AffineMap, move_header, read_transform
from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Volume

CHANNELS = ("CT", "PET")
DISPLACED = AffineMap.of(np.eye(3), (9.0, -7.0, 8.0))


def thinned(volume):
    """Every second voxel along every axis: enough to register, and eight times as fast."""
    z, y, x = volume.spacing_zyx
    return Volume(
        data=volume.data[::2, ::2, ::2],
        spacing_zyx=(2 * z, 2 * y, 2 * x),
        origin_xyz=volume.origin_xyz,
        direction=volume.direction,
    )


def source_case(index=0, *, displaced=DISPLACED):
    case = phantom(6, index)
    pet = move_header(thinned(case.pet), displaced.inverse())
    return SourceCase(
        images=[thinned(case.ct), pet], label=thinned(case.lesions), notes={"suv": "as stored"}
    )


def prepare_in(folder, **changes):
    settings = {"channels": CHANNELS, "moving": ("PET",), "reference": "CT", "folder": folder}
    return RegisterChannels(**(settings | changes))


def test_a_dataset_is_written_with_its_pet_where_the_ct_is(tmp_path):
    folder = tmp_path / "Dataset001_Moved"
    description = describe_dataset(CHANNELS, {"lesion": 1})
    source, prepare = source_case(), prepare_in(folder / "conversion_Tr")
    seen = []

    def prepare_and_look(name, case):
        seen.append(prepare(name, case))
        return seen[-1]

    begin_dataset(folder, description, part="Tr", settings={})
    write_cases(
        folder,
        ["a"],
        lambda _: source,
        description=description,
        part="Tr",
        alignment=Alignment(reference="CT"),
        prepare=prepare_and_look,
        progress=lambda _: None,
    )
    finish_dataset(folder, description, part="Tr")

    [moved] = seen
    assert moved.images[0] is source.images[0]
    assert moved.images[1].data is source.images[1].data  # its header alone is new
    written = read_volume(folder / "imagesTr/a_0001.nii.gz")
    case = phantom(6, 0)
    ideal = resample(thinned(case.pet), thinned(case.ct).grid, interpolation="linear", fill=0)
    unmoved = resample(source.images[1], thinned(case.ct).grid, interpolation="linear", fill=0)
    error, before = (np.abs(image.data - ideal.data).mean() for image in (written, unmoved))
    assert error < 0.35 * before
    label = read_volume(folder / "labelsTr/a.nii.gz")
    np.testing.assert_array_equal(label.data, source.label.data)  # it belongs to the CT's space

    notes = json.loads((folder / "conversion_Tr/a.json").read_text())["notes"]
    record = notes["registration"]["PET"]
    assert notes["suv"] == "as stored"
    assert record["reference"] == "CT"
    assert record["improved"]
    assert record["metric_after"] > record["metric_before"] + 0.1
    transform = read_transform(folder / "conversion_Tr" / record["transform"])
    np.testing.assert_allclose(transform.matrix, record["matrix"], rtol=0, atol=1e-12)
    # One of the thinned PET's voxels is 8 mm and 6.6 mm long.
    assert np.linalg.norm(transform((0, 0, 0)) - DISPLACED((0, 0, 0))) < 6.6
    assert (folder / "conversion_Tr" / record["picture"]).read_bytes().startswith(b"\x89PNG")


def test_an_affinely_moved_channel_lies_on_the_references_grid(tmp_path):
    source = source_case()
    pet = source.images[1]
    wide = Volume(
        data=pet.data,
        spacing_zyx=(pet.spacing_zyx[0], pet.spacing_zyx[1], 1.1 * pet.spacing_zyx[2]),
        origin_xyz=pet.origin_xyz,
        direction=pet.direction,
    )
    stretched = SourceCase(images=[source.images[0], wide], label=None)
    moved = prepare_in(tmp_path, affine=True)("a", stretched)
    record = moved.notes["registration"]["PET"]
    assert record["model"] == "affine"
    assert max(record["stretches"]) == pytest.approx(1.1, abs=0.04)
    assert moved.images[1].grid == source.images[0].grid


def test_it_may_be_sent_to_another_process(tmp_path):
    prepare = prepare_in(tmp_path)
    assert pickle.loads(pickle.dumps(prepare)) == prepare


def test_a_case_without_the_optional_channel_is_passed_over(tmp_path):
    source = source_case()
    alone = SourceCase(images=[source.images[0], None], label=None)
    moved = prepare_in(tmp_path)("a", alone)
    assert moved.images == [source.images[0], None]
    assert moved.notes == {"registration": {}}
    assert list(tmp_path.iterdir()) == []


def test_a_case_without_the_reference_is_refused_by_name(tmp_path):
    source = source_case()
    alone = SourceCase(images=[None, source.images[1]], label=None)
    with pytest.raises(DatasetError, match=r"Case a: has no CT, to which PET"):
        prepare_in(tmp_path)("a", alone)


def test_a_refused_registration_names_case_and_channel_and_writes_nothing(tmp_path):
    source = source_case()
    constant = Volume.on_grid(np.zeros_like(source.images[1].data), source.images[1].grid)
    with pytest.raises(GeometryError, match=r"Case a: PET to CT: .* the moving image is constant"):
        prepare_in(tmp_path)("a", SourceCase(images=[source.images[0], constant], label=None))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes", [{"moving": ("MR",)}, {"reference": "MR"}, {"moving": ("CT", "PET")}]
)
def test_names_that_do_not_fit_together_are_refused_at_once(tmp_path, changes):
    with pytest.raises(DatasetError, match="Correct the names"):
        prepare_in(tmp_path, **changes)
