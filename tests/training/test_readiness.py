import json

import pytest

from veloxseg.atomic import write_json
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, PlanError, VeloxSegError
from veloxseg.planning.files import preprocessing_settings, write_mark
from veloxseg.training.readiness import check_fold, check_preprocessed, check_unspoilt, set_apart

NAME = "Dataset100_Tumour"
CASES = [f"case_{i}" for i in range(6)]


def plans(**changes):
    configuration = {
        "data_identifier": "VeloxSegPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "f",
        "resampling_fn_data_kwargs": {},
        "resampling_fn_seg": "f",
        "resampling_fn_seg_kwargs": {},
        "patch_size": [32, 32, 32],
        **changes,
    }
    return {
        "configurations": {"3d_fullres": configuration},
        "transpose_forward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": {"mean": 1.0}},
    }


@pytest.fixture
def preprocessed(tmp_path):
    workspace = Workspace.resolve(tmp_path)
    folder = workspace.preprocessed / NAME / "VeloxSegPlans_3d_fullres"
    folder.mkdir(parents=True)
    for case in CASES:
        (folder / f"{case}.pkl").touch()
    fingerprint = {"spacings": [[1, 1, 1]] * len(CASES)}
    (folder.parent / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    write_mark(folder, {"settings": preprocessing_settings(plans()), "files": {}})
    return workspace, folder


def test_a_whole_folder_of_cases_is_ready_whatever_the_patch(preprocessed):
    workspace, _ = preprocessed
    assert check_preprocessed(workspace, NAME, plans(patch_size=[64, 64, 64])) == CASES


def test_interrupted_preprocessing_is_never_taken_for_whole(preprocessed):
    workspace, folder = preprocessed
    (folder / "case_3.pkl").unlink()
    with pytest.raises(DatasetError, match="5 preprocessed cases, 6 were planned"):
        check_preprocessed(workspace, NAME, plans())


def test_no_cases_at_all_ask_for_preprocessing(tmp_path):
    with pytest.raises(DatasetError, match="veloxseg preprocess"):
        check_preprocessed(Workspace.resolve(tmp_path), NAME, plans())


def test_cases_of_another_spacing_are_refused(preprocessed):
    workspace, _ = preprocessed
    with pytest.raises(PlanError, match="another spacing"):
        check_preprocessed(workspace, NAME, plans(spacing=[2.0, 1.0, 1.0]))


def test_five_folds_need_five_cases(tmp_path):
    splits = tmp_path / "splits_final.json"
    assert check_fold(splits, 4, CASES, raw=tmp_path) == []
    assert check_fold(splits, "all", CASES[:2], raw=tmp_path) == []
    with pytest.raises(DatasetError, match="fold all"):
        check_fold(splits, 0, CASES[:4], raw=tmp_path)
    with pytest.raises(DatasetError, match="Fold 5"):
        check_fold(splits, 5, CASES, raw=tmp_path)


def test_without_splits_no_patient_may_have_several_cases(tmp_path):
    raw, splits = tmp_path / "raw", tmp_path / "splits_final.json"
    cases = [f"p{patient}_{scan}" for patient in range(4) for scan in range(3)]
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 12,
        "file_ending": ".nii.gz",
    }
    assert check_fold(splits, 0, cases, raw=raw) == []  # nothing is known of them
    write_json(raw / "dataset.json", description)
    assert check_fold(splits, 0, cases, raw=raw) == []
    write_json(raw / "dataset.json", description | {"patient_pattern": "{patient}_*"})
    with pytest.raises(DatasetError, match="12 cases of 4 patients"):
        check_fold(splits, 0, cases, raw=raw)
    assert check_fold(splits, "all", cases, raw=raw) == []
    write_json(splits, [{"train": cases[3:], "val": cases[:3]}])
    assert check_fold(splits, 0, cases, raw=raw) == []


def test_splits_must_name_cases_that_are_there(tmp_path):
    splits = tmp_path / "splits_final.json"
    splits.write_text(json.dumps([{"train": CASES[:3], "val": CASES[3:5]}]))
    assert check_fold(splits, 0, CASES, raw=tmp_path) == [CASES[5]]
    with pytest.raises(DatasetError, match="no fold 1"):
        check_fold(splits, 1, CASES, raw=tmp_path)
    with pytest.raises(DatasetError, match="case_0"):
        check_fold(splits, 0, CASES[1:], raw=tmp_path)


def test_splits_cut_short_are_refused(tmp_path):
    splits = tmp_path / "splits_final.json"
    splits.write_text('[{"train": ["ca')
    with pytest.raises(VeloxSegError, match="cut short"):
        check_fold(splits, 0, CASES, raw=tmp_path)


def test_a_trained_fold_is_neither_overwritten_nor_resumed_unasked(tmp_path):
    fold = tmp_path / "fold_0"
    fold.mkdir()
    check_unspoilt(fold, plans(), resume=False, overwrite=False)
    check_unspoilt(fold, plans(), resume=True, overwrite=False)
    (fold / "checkpoint_final.pth").touch()
    with pytest.raises(VeloxSegError, match="trained already"):
        check_unspoilt(fold, plans(), resume=False, overwrite=False)
    with pytest.raises(VeloxSegError, match="one of them"):
        check_unspoilt(fold, plans(), resume=True, overwrite=True)


def test_a_run_directory_of_another_plan_is_refused(tmp_path):
    fold = tmp_path / "fold_0"
    fold.mkdir()
    (fold / "checkpoint_final.pth").touch()
    (tmp_path / "plans.json").write_text(json.dumps(plans(spacing=[3.0, 1.0, 1.0])))
    with pytest.raises(PlanError, match="another plan"):
        check_unspoilt(fold, plans(), resume=True, overwrite=False)


def test_cases_set_apart_for_testing_are_known_and_five_folds_have_none(tmp_path):
    splits = tmp_path / "splits_final.json"
    assert set_apart(splits) == []
    splits.write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    assert set_apart(splits) == []
    splits.write_text(json.dumps([{"train": ["a"], "val": ["b"], "test": ["d", "c"]}]))
    assert set_apart(splits) == ["c", "d"]
