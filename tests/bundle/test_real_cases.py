import json

from veloxseg.bundle.real_cases import find_real_cases
from veloxseg.datasets.description import DatasetDescription

DESCRIPTION = DatasetDescription(
    channel_names={"0": "CT"},
    labels={"background": 0, "lesion": 1},
    numTraining=4,
    file_ending=".nii.gz",
)


def test_neither_validation_cases_nor_those_kept_for_testing_are_training_cases(tmp_path):
    dataset, fold = tmp_path / "Dataset001_Any", tmp_path / "fold_0"
    for name in "abcd":
        for file in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"):
            (dataset / file).parent.mkdir(parents=True, exist_ok=True)
            (dataset / file).touch()
    (fold / "validation").mkdir(parents=True)
    validated = [{"reference_file": "labelsTr/b.nii.gz"}]
    (fold / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": validated}))
    cases = find_real_cases(dataset, DESCRIPTION, [fold], apart=["c"])
    assert [case.name for case in cases.training] == ["a", "d"]
    assert [case.name for case in cases.validation] == ["b"]


def test_of_a_dataset_that_is_gone_there_are_no_cases(tmp_path):
    cases = find_real_cases(tmp_path / "gone", DESCRIPTION, [tmp_path / "fold_0"])
    assert cases.training == cases.validation == ()
