"""Which run a user means."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from veloxseg.atomic import write_json
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import BundleError, DatasetError
from veloxseg.training.runs import find_run
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

_DATASET = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.resolve(tmp_path / "root")


def _make_run(
    workspace: Workspace,
    trainer: str,
    *,
    finished: Sequence[str],
    begun: Sequence[str] = (),
    plans: str = "VeloxSegPlans",
) -> Path:
    folder = workspace.results / "Dataset100_Tiny" / f"{trainer}__{plans}__3d_fullres"
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


def test_a_results_folder_means_all_its_finished_folds(workspace: Workspace) -> None:
    folder = _make_run(workspace, "VeloxSegTrainer", finished=["0", "2", "all"], begun=["1"])
    assert find_run(folder).folds == (0, 2)
    assert find_run(folder).folder == folder


def test_a_fold_folder_means_that_fold(workspace: Workspace) -> None:
    folder = _make_run(workspace, "VeloxSegTrainer", finished=["0", "all"])
    assert find_run(folder / "fold_0").folds == (0,)
    assert find_run(str(folder / "fold_all")).folds == ("all",)


def test_a_link_is_the_fold_that_its_place_or_its_target_says(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = _make_run(workspace, "VeloxSegTrainer", finished=["0", "1"])
    (folder / "fold_1").rename(tmp_path / "kept_on_another_disk")
    (folder / "fold_1").symlink_to(tmp_path / "kept_on_another_disk")
    (tmp_path / "fold_5").symlink_to(folder / "fold_0")
    for link, fold in ((folder / "fold_1", 1), (tmp_path / "fold_5", 0)):
        assert find_run(link).folder == folder
        assert find_run(link).folds == (fold,)


def test_a_copy_of_a_fold_is_none(workspace: Workspace) -> None:
    folder = _make_run(workspace, "VeloxSegTrainer", finished=["0", "0_backup", "1.old"])
    assert find_run(folder).folds == (0,)
    with pytest.raises(BundleError, match=r"fold_0_backup: no trained model"):
        find_run(folder / "fold_0_backup")


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


def test_a_newer_run_of_another_network_does_not_stand_for_the_dataset(
    workspace: Workspace,
) -> None:
    own = _make_run(workspace, "T", finished=["0"], begun=["2"])
    os.utime(own / "fold_0" / "checkpoint_final.pth", (1e9, 1e9))
    peer = _make_run(workspace, "T", finished=["0", "1", "2"], plans="VeloxSegPlans_segresnet")
    assert find_run("100", workspace=workspace).folder == own
    assert find_run("100/0", workspace=workspace).folder == own
    assert find_run("100/1", workspace=workspace).folder == peer  # nothing else has that fold
    with pytest.raises(BundleError, match="unfinished"):
        find_run("100/2", workspace=workspace)


def test_an_unfinished_fold_is_refused_with_how_to_finish_it(workspace: Workspace) -> None:
    folder = _make_run(workspace, "VeloxSegTrainer", finished=["0"], begun=["1"])
    with pytest.raises(BundleError, match=r"unfinished.*veloxseg train DATASET 1 --resume"):
        find_run(folder / "fold_1")
    with pytest.raises(BundleError, match=r"unfinished.*1 --resume"):
        find_run("100/1", workspace=workspace)


def test_an_unfinished_fold_of_another_network_is_finished_with_that_network(
    workspace: Workspace,
) -> None:
    folder = _make_run(workspace, "T", finished=[], begun=["1"], plans="VeloxSegPlans_segresnet")
    with pytest.raises(BundleError, match="train DATASET 1 --network segresnet --resume"):
        find_run(folder / "fold_1")


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
