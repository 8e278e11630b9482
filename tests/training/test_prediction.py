"""Which run and which cases a user means, before anything is computed."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from veloxseg.atomic import write_json
from veloxseg.datasets.description import DatasetDescription
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import BundleError, DatasetError
from veloxseg.training.prediction_inputs import find_prediction_cases
from veloxseg.training.runs import find_run
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

_DATASET = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
_DESCRIPTION = DatasetDescription.model_validate(_DATASET)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.resolve(tmp_path / "root")


def _make_run(
    workspace: Workspace, trainer: str, *, finished: Sequence[str], begun: Sequence[str] = ()
) -> Path:
    folder = workspace.results / "Dataset100_Tiny" / f"{trainer}__VeloxSegPlans__3d_fullres"
    write_json(folder / "dataset.json", _DATASET)
    write_json(folder / "plans.json", {})
    for fold in (*finished, *begun):
        (folder / f"fold_{fold}").mkdir()
        name = "checkpoint_final.pth" if fold in finished else "checkpoint_latest.pth"
        (folder / f"fold_{fold}" / name).touch()
    return folder


def _write_image(path: Path, *, spacing: float = 1.0) -> Path:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_volume(path, Volume(data=data, spacing_zyx=(spacing, 1.0, 1.0)))
    return path


def _write_case(folder: Path, name: str, *, pet_spacing: float = 1.0) -> None:
    _write_image(folder / f"{name}_0000.nii.gz")
    _write_image(folder / f"{name}_0001.nii.gz", spacing=pet_spacing)


def test_a_results_folder_means_all_its_finished_folds(workspace: Workspace) -> None:
    folder = _make_run(workspace, "VeloxSegTrainer", finished=["0", "2", "all"], begun=["1"])
    assert find_run(folder).folds == (0, 2)
    assert find_run(folder).folder == folder


def test_a_fold_folder_means_that_fold(workspace: Workspace) -> None:
    folder = _make_run(workspace, "VeloxSegTrainer", finished=["0", "all"])
    assert find_run(folder / "fold_0").folds == (0,)
    assert find_run(str(folder / "fold_all")).folds == ("all",)


def test_a_model_trained_on_all_cases_is_taken_where_there_is_no_other(
    workspace: Workspace,
) -> None:
    assert find_run(_make_run(workspace, "T", finished=["all"])).folds == ("all",)


def test_a_dataset_means_its_newest_run(workspace: Workspace) -> None:
    old = _make_run(workspace, "Old", finished=["0", "1"])
    new = _make_run(workspace, "New", finished=["1"])
    os.utime(old / "fold_0" / "checkpoint_final.pth", (1e9, 1e9))
    os.utime(old / "fold_1" / "checkpoint_final.pth", (1e9, 1e9))
    assert find_run("100", workspace=workspace).folder == new
    assert find_run("Dataset100_Tiny/1", workspace=workspace).folder == new
    assert find_run("100/0", workspace=workspace).folder == old


def test_an_unfinished_fold_is_refused_with_how_to_finish_it(workspace: Workspace) -> None:
    folder = _make_run(workspace, "VeloxSegTrainer", finished=["0"], begun=["1"])
    with pytest.raises(BundleError, match=r"unfinished.*veloxseg train DATASET 1 --resume"):
        find_run(folder / "fold_1")
    with pytest.raises(BundleError, match=r"unfinished.*1 --resume"):
        find_run("100/1", workspace=workspace)


def test_what_is_no_run_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    _make_run(workspace, "VeloxSegTrainer", finished=["0"])
    with pytest.raises(BundleError, match="no trained model"):
        find_run(tmp_path)
    with pytest.raises(BundleError, match="no trained fold 3"):
        find_run("100/3", workspace=workspace)
    with pytest.raises(DatasetError, match="no dataset 7"):
        find_run("7", workspace=workspace)


def test_a_results_folder_copied_without_its_plan_is_refused(workspace: Workspace) -> None:
    folder = _make_run(workspace, "VeloxSegTrainer", finished=["0"])
    (folder / "plans.json").unlink()
    with pytest.raises(BundleError, match=r"no plans\.json"):
        find_run(folder / "fold_0")


def test_a_folder_gives_its_cases_with_channels_in_order(tmp_path: Path) -> None:
    _write_case(tmp_path / "in", "b")
    _write_case(tmp_path / "in", "a_1")
    cases = find_prediction_cases([tmp_path / "in"], tmp_path / "out", _DESCRIPTION)
    assert [case.name for case in cases] == ["a_1", "b"]
    assert [path.name for path in cases[0].images] == ["a_1_0000.nii.gz", "a_1_0001.nii.gz"]
    assert cases[0].output == tmp_path / "out" / "a_1.nii.gz"


def test_files_are_the_channels_of_one_case(tmp_path: Path) -> None:
    files = [_write_image(tmp_path / "ct.nii.gz"), _write_image(tmp_path / "pet.nii.gz")]
    to_file, to_folder = (
        find_prediction_cases(files, tmp_path / output, _DESCRIPTION)[0]
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
        find_prediction_cases([tmp_path], tmp_path / "out", _DESCRIPTION)


def test_a_channel_that_the_network_does_not_know_is_refused(tmp_path: Path) -> None:
    _write_case(tmp_path, "a")
    shutil.copy(tmp_path / "a_0000.nii.gz", tmp_path / "a_0002.nii.gz")
    with pytest.raises(DatasetError, match="channel 0002"):
        find_prediction_cases([tmp_path], tmp_path / "out", _DESCRIPTION)


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    _write_case(tmp_path, "a", pet_spacing=2.0)
    with pytest.raises(DatasetError, match=r"Case a: CT has spacing 1 x 1 x 1 mm.*--reference CT"):
        find_prediction_cases([tmp_path], tmp_path / "out", _DESCRIPTION)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    _write_case(tmp_path, "a")
    (tmp_path / "a_0001.nii.gz").write_text("not an image")
    with pytest.raises(DatasetError, match="Case a, PET"):
        find_prediction_cases([tmp_path], tmp_path / "out", _DESCRIPTION)


def test_an_empty_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DatasetError, match="no image"):
        find_prediction_cases([tmp_path / "in"], tmp_path / "out", _DESCRIPTION)
    absent = [tmp_path / "absent.nii.gz"] * 2
    with pytest.raises(DatasetError, match="found nothing"):
        find_prediction_cases(absent, tmp_path / "out", _DESCRIPTION)


def test_a_mistyped_folder_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"typo: found nothing\. Expected a folder of cases"):
        find_prediction_cases([tmp_path / "typo"], tmp_path / "out", _DESCRIPTION)


def test_a_sheared_header_that_nnunet_refuses_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    _write_case(tmp_path / "in", "a")
    for path in (tmp_path / "in").iterdir():
        image = nibabel.load(path)
        affine = image.affine.copy()
        affine[0, 1] += 0.02
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), path)
    with pytest.raises(DatasetError, match=r"(?s)2 problems.*Case a, CT: .*convert folder.*PET"):
        find_prediction_cases([tmp_path / "in"], tmp_path / "out", _DESCRIPTION)
    by_nibabel = _DESCRIPTION.model_copy(update={"overwrite_image_reader_writer": "NibabelIO"})
    assert len(find_prediction_cases([tmp_path / "in"], tmp_path / "out", by_nibabel)) == 1


def test_too_few_files_are_refused_with_the_channels_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="CT, PET"):
        find_prediction_cases(
            [_write_image(tmp_path / "ct.nii.gz")], tmp_path / "mask.nii.gz", _DESCRIPTION
        )


def test_a_folder_of_cases_does_not_go_into_one_file(tmp_path: Path) -> None:
    _write_case(tmp_path, "a")
    with pytest.raises(DatasetError, match="Give a folder"):
        find_prediction_cases([tmp_path], tmp_path / "mask.nii.gz", _DESCRIPTION)


def test_an_input_is_not_overwritten(tmp_path: Path) -> None:
    files = [_write_image(tmp_path / "ct.nii.gz"), _write_image(tmp_path / "pet.nii.gz")]
    with pytest.raises(DatasetError, match="overwritten"):
        find_prediction_cases(files, tmp_path / "pet.nii.gz", _DESCRIPTION)


def test_a_mask_cut_short_by_a_full_disk_is_not_left_behind(tmp_path: Path) -> None:
    from veloxseg.training import prediction

    class FullDisk:
        def write_seg(self, mask: object, path: str, properties: object) -> None:
            whole = _write_image(tmp_path / "whole.nii.gz").read_bytes()
            Path(path).write_bytes(whole[: len(whole) // 2])  # and no error, as ITK has it

    with pytest.raises(OSError, match="space left on the disk"):
        prediction.write_mask(tmp_path / "mask.nii.gz", None, {}, FullDisk)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.nii.gz"]


def test_a_mask_that_itk_cannot_write_is_an_error_of_one_line(tmp_path: Path) -> None:
    from veloxseg.training import prediction

    mask = np.ones((2, 3, 4), np.uint8)
    grid = {"spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": tuple(np.eye(3).flat)}
    properties = {"sitk_stuff": grid}
    prediction.write_mask(tmp_path / "mask.nii.gz", mask, properties, SimpleITKIO)
    with pytest.raises(OSError, match=r"mask\.strange: the mask could not be written \(.*ImageIO"):
        prediction.write_mask(tmp_path / "mask.strange", mask, properties, SimpleITKIO)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nii.gz"]
