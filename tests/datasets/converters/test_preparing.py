import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from phantom_trees import contents, put_hecktor, put_numbered, scan
from veloxseg.cli import app
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters.autopet import convert_autopet
from veloxseg.datasets.converters.folder import convert_folder
from veloxseg.datasets.converters.hecktor import convert_hecktor
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.converters.preparing import registration_step
from veloxseg.errors import DatasetError, VeloxSegError
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Volume

SHIFT_XYZ = np.array([9.0, -7.0, 5.0])


@pytest.fixture
def source(tmp_path):
    """A patient whose PET, by its header, lies some millimetres off."""
    folder = tmp_path / "source"
    put_hecktor(folder, "CHUM-001")
    pet = scan().fine_pet
    origin = tuple(float(place) for place in pet.origin_xyz + SHIFT_XYZ)
    moved = Volume.on_grid(pet.data, replace(pet.grid, origin_xyz=origin))
    write_volume(folder / "imagesTr/CHUM-001__PT.nii.gz", moved)
    return folder


def test_a_displaced_pet_is_registered_and_the_record_tells_how(source, workspace):
    settings = {"spacing_zyx": (3.0, 3.0, 3.0), "register": ["PET"], "workspace": workspace}
    folder = convert_hecktor(source, "Dataset122_HaN", **settings)
    assert check_dataset(folder).errors == []
    record = read_records(folder)["CHUM-001"]
    found = record.notes["registration"]["PET"]
    assert found["reference"] == "CT"
    assert found["metric_after"] > found["metric_before"]
    assert (folder / "conversion_Tr" / found["transform"]).is_file()
    assert (folder / "conversion_Tr" / found["picture"]).is_file()
    # Within a voxel of the PET, 3.3 to 4 mm, at the corners of its field of view.
    grid = scan().fine_pet.grid
    corners = grid.positions_xyz([[z, y, x] for z in (0, 57) for y in (0, 51) for x in (0, 63)])
    back = (corners + SHIFT_XYZ - np.array(found["offset_xyz"])) @ np.linalg.inv(
        np.reshape(found["matrix"], (3, 3))
    ).T
    assert np.linalg.norm(back - corners, axis=1).max() < 3.3
    # The lesions are where PET is hot again.
    pet = read_volume(folder / "imagesTr/CHUM-001_0001.nii.gz").data
    lesions = read_volume(folder / "labelsTr/CHUM-001.nii.gz").data > 0
    assert pet[lesions].mean() > 3 * pet.mean()

    before = contents(folder)
    convert_hecktor(source, "Dataset122_HaN", **settings)
    assert contents(folder) == before
    with pytest.raises(DatasetError, match=r"affine was False, is True"):
        convert_hecktor(source, "Dataset122_HaN", **settings, affine=True)


def test_the_step_can_be_sent_to_another_process(tmp_path):
    step = registration_step(
        tmp_path,
        part="Ts",
        channels=["CT", "PET"],
        register=["PET"],
        reference="CT",
        affine=True,
    )
    assert step.folder == tmp_path / "conversion_Ts"
    assert pickle.loads(pickle.dumps(step)) == step


def test_no_channel_to_register_is_no_step(tmp_path):
    words = {"channels": ["CT"], "register": (), "reference": None, "affine": True}
    assert registration_step(tmp_path, part="Tr", **words) is None


@pytest.mark.parametrize("register", [["PET"], ["MR"]])
def test_the_reference_and_unknown_channels_are_not_registered(tmp_path, workspace, register):
    put_numbered(tmp_path / "source", "fdg_a_b")
    with pytest.raises(DatasetError, match="a reference that is not among those"):
        convert_autopet(tmp_path / "source", "1_A", workspace=workspace, register=register)
    assert not workspace.raw.exists()


def test_registration_in_a_folder_asks_for_the_reference(source, workspace):
    channels = {"CT": "imagesTr/{case}__CT.nii.gz", "PET": "imagesTr/{case}__PT.nii.gz"}
    with pytest.raises(DatasetError, match="--reference"):
        convert_folder(
            source,
            "1_A",
            workspace=workspace,
            channels=channels,
            label=None,
            register=["PET"],
        )
    words = [f"--channel={name}={pattern}" for name, pattern in channels.items()]
    result = CliRunner().invoke(
        app,
        ["convert", "folder", str(source), "1_A", *words, "--register=PET", "--reference=PET"],
        env={"nnUNet_raw": "a", "nnUNet_preprocessed": "b", "nnUNet_results": "c"},
    )
    assert result.exit_code == 2
    assert "a reference that is not among those" in " ".join(result.output.split())


def test_a_missing_matplotlib_is_told_before_the_first_registration(source, workspace, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(VeloxSegError, match="needs matplotlib"):
        convert_hecktor(source, "Dataset122_HaN", workspace=workspace, register=["PET"])
    assert not (workspace.raw / "Dataset122_HaN").exists()
