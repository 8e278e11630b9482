import json

import numpy as np
import pytest

from phantom_trees import contents, put_numbered, put_study, scaled, scan, with_data
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters.autopet import convert_autopet
from veloxseg.datasets.converters.intensities import modality_of
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.description import read_description
from veloxseg.errors import DatasetError, GeometryError, ImageReadError
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Volume

STUDIES = (
    "PETCT_0011f3deaf/03-23-2003-NA-PET-CT Ganzkoerper primaer mit KM-04624",
    "PETCT_0011f3deaf/09-12-2004-NA-PET-CT Ganzkoerper primaer mit KM-55555",
    "PETCT_01140d52d8/08-13-2005-NA-PET-CT Ganzkoerper  primaer mit KM-56839",
)
NUMBERED = ("fdg_0b57b247b6_05-02-2002", "psma_95b833d65be26d2e_2018-04-23")


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "FDG-PET-CT-Lesions"
    for number, study in enumerate(STUDIES):
        put_study(folder / study, factor=1 + 0.1 * number)
    return folder


@pytest.fixture
def numbered(tmp_path):
    folder = tmp_path / "autoPET"
    for case in NUMBERED:
        put_numbered(folder, case)
    return folder


def convert(source, workspace, **change):
    return convert_autopet(source, "Dataset221_AutoPET", workspace=workspace, **change)


def test_the_studies_of_a_patient_are_cases_of_their_own(tree, workspace):
    folder = convert(tree, workspace)
    assert check_dataset(folder).errors == []
    assert read_description(folder).channels == ("CT", "PET")
    assert read_description(folder).labels == {"background": 0, "lesion": 1}
    records = read_records(folder)
    assert list(records) == [
        "PETCT_0011f3deaf_03-23-2003-NA-PET-CT_Ganzkoerper_primaer_mit_KM-04624",
        "PETCT_0011f3deaf_09-12-2004-NA-PET-CT_Ganzkoerper_primaer_mit_KM-55555",
        "PETCT_01140d52d8_08-13-2005-NA-PET-CT_Ganzkoerper_primaer_mit_KM-56839",
    ]
    patients = ["PETCT_0011f3deaf", "PETCT_0011f3deaf", "PETCT_01140d52d8"]
    assert [record.patient for record in records.values()] == patients
    case, record = list(records.items())[1]
    assert record.sources["PET"] == f"{STUDIES[1]}/SUV.nii.gz"
    pet = read_volume(folder / f"imagesTr/{case}_0001.nii.gz").data
    np.testing.assert_array_equal(pet, scaled(scan().pet, 1.1).data)
    ct = read_volume(folder / f"imagesTr/{case}_0000.nii.gz").data
    np.testing.assert_array_equal(ct, scan().ct_on_pet.data)
    label = read_volume(folder / f"labelsTr/{case}.nii.gz").data
    np.testing.assert_array_equal(label, scan().lesions_on_pet.data)


def test_nnunet_s_naming_tells_tracer_patient_and_date(numbered, workspace):
    put_numbered(numbered, "fdg_0b57b247b6_11-02-2002", part="Ts", label=False)
    folder = convert(numbered, workspace)
    assert check_dataset(folder).errors == []
    assert [record.patient for record in read_records(folder).values()] == [
        "fdg_0b57b247b6",
        "psma_95b833d65be26d2e",
    ]
    assert [r.patient for r in read_records(folder, part="Ts").values()] == ["fdg_0b57b247b6"]


@pytest.mark.parametrize("declared", ["by intensities", "by dataset.json", "by the caller"])
@pytest.mark.parametrize("order", [("CT", "PET"), ("PET", "CT")])
def test_ct_is_written_first_whatever_the_order_at_the_source(tmp_path, workspace, order, declared):
    source = tmp_path / "source"
    put_numbered(source, NUMBERED[0], order=order)
    if declared == "by dataset.json":
        names = {"0": order[0], "1": order[1].replace("PET", "suv")}
        (source / "dataset.json").write_text(json.dumps({"channel_names": names}))
    folder = convert(source, workspace, order=order if declared == "by the caller" else None)
    record = read_records(folder)[NUMBERED[0]]
    for number, channel in enumerate(("CT", "PET")):
        at_source = order.index(channel)
        assert record.sources[channel] == f"imagesTr/{NUMBERED[0]}_{at_source:04d}.nii.gz"
        written = read_volume(folder / f"imagesTr/{NUMBERED[0]}_{number:04d}.nii.gz")
        assert modality_of(written) == channel
    settings = json.loads((folder / "conversion_Tr.json").read_text())
    assert settings["order"] == {name: f"{order.index(name):04d}" for name in ("CT", "PET")}


def test_a_dataset_json_whose_channels_are_no_mapping_names_no_order(numbered, workspace):
    (numbered / "dataset.json").write_text('{"channel_names": ["PET", "CT"]}')
    folder = convert(numbered, workspace)
    settings = json.loads((folder / "conversion_Tr.json").read_text())
    assert settings["order"] == {"CT": "0000", "PET": "0001"}


def test_an_order_that_the_voxels_contradict_is_refused(tmp_path, numbered, workspace):
    with pytest.raises(
        DatasetError, match=r"_0001\.nii\.gz is to be CT, but looks like PET.*--order"
    ):
        convert(numbered, workspace, order=("PET", "CT"))
    (numbered / "dataset.json").write_text('{"channel_names": {"0": "PET", "1": "CT"}}')
    with pytest.raises(DatasetError, match="is to be CT, but looks like PET"):
        convert(numbered, workspace)


def test_one_case_of_another_order_is_refused(numbered, workspace):
    put_numbered(numbered, NUMBERED[1], order=("PET", "CT"))
    with pytest.raises(DatasetError, match=f"Case {NUMBERED[1]}: .* looks like PET"):
        convert(numbered, workspace)


def test_normalised_images_tell_no_order(tmp_path, workspace):
    for case in NUMBERED:
        put_numbered(tmp_path / "source", case)
        path = tmp_path / f"source/imagesTr/{case}_0000.nii.gz"
        write_volume(path, scaled(scan().ct_on_pet, 0.002))  # from -2 to about 2
    with pytest.raises(DatasetError, match="looks like neither"):
        convert(tmp_path / "source", workspace)
    with pytest.raises(DatasetError, match="looks like neither CT nor PET: its lowest value is -2"):
        convert(tmp_path / "source", workspace, order=("CT", "PET"))


@pytest.mark.parametrize("order", [("CT",), ("CT", "MR"), ("CT", "CT")])
def test_an_order_of_other_channels_is_refused(numbered, workspace, order):
    with pytest.raises(DatasetError, match="Expected CT,PET or PET,CT"):
        convert(numbered, workspace, order=order)


def test_a_tree_named_by_modality_has_no_order(tree, workspace):
    with pytest.raises(DatasetError, match="Leave out --order"):
        convert(tree, workspace, order=("CT", "PET"))


def test_a_suv_series_in_the_place_of_the_ct_is_refused(tree, workspace):
    write_volume(tree / STUDIES[2] / "CTres.nii.gz", scan().pet)
    with pytest.raises(DatasetError, match=r"CTres\.nii\.gz is to be CT, but looks like PET"):
        convert(tree, workspace)


def test_a_second_run_changes_nothing_and_an_interrupted_one_goes_on(tree, workspace):
    broken = tree / STUDIES[1] / "CTres.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-100])
    with pytest.raises(ImageReadError, match=r"Case PETCT_0011f3deaf_09-12-2004\S+: "):
        convert(tree, workspace)
    folder = workspace.raw / "Dataset221_AutoPET"
    first = contents(folder)
    assert any(name.startswith("labelsTr") for name in first)
    broken.write_bytes(whole)
    convert(tree, workspace)
    finished = contents(folder)
    assert {name: finished[name] for name in first} == first
    convert(tree, workspace)
    assert contents(folder) == finished


@pytest.mark.parametrize("removed", ["SUV", "CTres", "SEG"])
def test_a_missing_file_of_a_study_is_named(tree, workspace, removed):
    (tree / STUDIES[2] / f"{removed}.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"Case PETCT_01140d52d8_08-13-2005.*: 0 files for"):
        convert(tree, workspace)
    assert not workspace.raw.exists()


def test_a_missing_channel_number_is_named(numbered, workspace):
    (numbered / f"imagesTr/{NUMBERED[1]}_0001.nii.gz").unlink()
    with pytest.raises(DatasetError, match=f"Case {NUMBERED[1]}: 0 files for 0001"):
        convert(numbered, workspace)


def test_two_files_for_one_channel_are_an_error(tree, workspace):
    write_volume(tree / STUDIES[0] / "SUV.nii", scan().pet)
    with pytest.raises(DatasetError, match="2 files for PET match"):
        convert(tree, workspace)


def test_a_tree_of_two_namings_is_refused(tree, workspace):
    put_numbered(tree, NUMBERED[0])
    with pytest.raises(DatasetError, match="named in more than one way"):
        convert(tree, workspace)


def test_a_file_of_no_known_name_is_named(tree, workspace):
    path = tree / STUDIES[0] / "SUV.nii.gz"
    path.rename(path.with_name("SUV_2.nii.gz"))
    with pytest.raises(DatasetError, match=r"SUV_2\.nii\.gz: no name of FDG-PET-CT-Lesions"):
        convert(tree, workspace)


def test_studies_whose_safe_names_are_one_are_refused(tmp_path, workspace):
    for study in ("p1/a b", "p1/a  b"):
        put_study(tmp_path / "source" / study)
    with pytest.raises(DatasetError, match="would both be named p1_a_b"):
        convert(tmp_path / "source", workspace)


def test_a_name_without_a_letter_of_ascii_is_refused(tmp_path, workspace):
    put_numbered(tmp_path / "source", "患者")
    with pytest.raises(DatasetError, match="no letter or digit of ASCII") as caught:
        convert(tmp_path / "source", workspace)
    assert str(caught.value).isascii()


def test_a_label_on_another_grid_is_refused(tree, workspace):
    write_volume(tree / STUDIES[2] / "SEG.nii.gz", scan().lesions)
    with pytest.raises(GeometryError, match=r"Case PETCT_01140d52d8.*: PET has size"):
        convert(tree, workspace)


def test_channels_on_different_grids_are_refused(tree, workspace):
    ct = Volume(data=scan().ct_on_pet.data, spacing_zyx=(3.0, 3.0, 3.0))
    write_volume(tree / STUDIES[2] / "CTres.nii.gz", ct)
    with pytest.raises(GeometryError, match=r"Case PETCT_01140d52d8.*: CT has spacing"):
        convert(tree, workspace)


def test_an_unexpected_label_value_is_refused(numbered, workspace):
    data = scan().lesions_on_pet.data * np.uint8(2)
    path = numbered / f"labelsTr/{NUMBERED[1]}.nii.gz"
    write_volume(path, with_data(scan().lesions_on_pet, data))
    with pytest.raises(DatasetError, match=rf"Case {NUMBERED[1]}: the label has values \[2\]"):
        convert(numbered, workspace)


def test_a_case_without_lesion_is_welcome(numbered, workspace):
    empty = with_data(scan().lesions_on_pet, scan().lesions_on_pet.data * np.uint8(0))
    write_volume(numbered / f"labelsTr/{NUMBERED[1]}.nii.gz", empty)
    assert check_dataset(convert(numbered, workspace)).errors == []
