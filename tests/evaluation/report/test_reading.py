import json

import pytest

from veloxseg.errors import DatasetError
from veloxseg.evaluation.report.cases import (
    choose_cases,
    find_metrics,
    foreground_dice,
    list_cases,
)
from veloxseg.evaluation.report.reading import FOREGROUND, read_summary

NNUNET = """{"foreground_mean": {"Dice": 0.5}, "mean": {"1": {"Dice": 0.5}},
 "metric_per_case": [
  {"metrics": {"1": {"Dice": 0.5, "IoU": 0.3, "TP": 10}, "2": {"Dice": NaN, "IoU": NaN, "TP": 0}},
   "prediction_file": "/gone/masks/a.b.nii.gz", "reference_file": "/gone/labels/a.b.nii.gz"}],
 "of_a_later_version": [1, 2]}"""


def entries(dice_by_case: dict[str, float | None]) -> dict:
    return {
        "metric_per_case": [
            {"case": case, "metrics": {"1": {"Dice": dice}}} for case, dice in dice_by_case.items()
        ]
    }


def cases_of(tmp_path, content):
    path = tmp_path / "summary.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return list_cases(read_summary(path), folder=tmp_path)


def test_a_plain_summary_of_nnunet_is_read_with_its_nan_and_unknown_keys(tmp_path):
    (case,) = cases_of(tmp_path, NNUNET)
    assert (case.name, case.ending) == ("a.b", ".nii.gz")
    assert case.values["1"] == {"Dice": 0.5, "IoU": 0.3, "TP": 10}
    assert case.values[FOREGROUND]["Dice"] == 0.5
    assert [metric.key for metric in find_metrics([case])] == ["Dice", "IoU", "TP"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "cut short or no JSON"),
        ("[1, 2]", "valid dictionary"),
        ("{}", "metric_per_case: Field required"),
        ('{"metric_per_case": []}', "at least 1 item"),
        ('{"metric_per_case": [{"metrics": {}}]}', "no label in any case"),
        ('{"metric_per_case": [{"metrics": {"1": {"AUC": 0.5}}}]}', "none of the metrics"),
        ('{"metric_per_case": [{"metrics": {"1": {"Dice": "good"}}}]}', "valid number"),
        (
            '{"metric_per_case": [{"metrics": {"1": {"Dice": 1}}}], "label_names": {"2": "x"}}',
            "none of the metrics of veloxseg evaluate for the labels x",
        ),
    ],
)
def test_what_is_no_summary_is_refused_with_what_was_expected(tmp_path, content, found):
    path = tmp_path / "figures.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"figures\.json: no summary") as raised:
        read_summary(path)
    assert found in str(raised.value)
    assert "veloxseg evaluate" in str(raised.value)


def test_a_folder_is_told_which_file_is_expected(tmp_path):
    with pytest.raises(DatasetError, match=r"is a folder.*summary\.json"):
        read_summary(tmp_path)


def test_a_case_of_a_summary_made_on_windows_has_its_files_name(tmp_path):
    content = entries({"a": 1.0})
    del content["metric_per_case"][0]["case"]
    content["metric_per_case"][0]["reference_file"] = r"C:\Users\me\labelsTr\a.nii.gz"
    (case,) = cases_of(tmp_path, content)
    assert (case.name, case.ending) == ("a", ".nii.gz")


def test_a_relative_path_is_looked_up_from_the_summary_where_it_leads_nowhere(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.nii.gz").touch()
    content = entries({"a": 1.0})
    content["metric_per_case"][0]["prediction_file"] = "masks/a.nii.gz"
    content["metric_per_case"][0]["reference_file"] = "labels/a.nii.gz"
    (case,) = cases_of(tmp_path, content)
    assert case.prediction == tmp_path / "masks" / "a.nii.gz"
    assert not case.reference.exists()


def test_a_case_that_is_listed_twice_is_refused(tmp_path):
    content = entries({"a": 1.0, "b": 0.5})
    content["metric_per_case"] *= 2
    with pytest.raises(DatasetError, match="lists case a 2 times"):
        cases_of(tmp_path, content)


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ([0.5], {"The only case": 0.5}),
        ([0.7, 0.5], {"Worst": 0.5, "Best": 0.7}),
        ([0.7, 0.5, 0.6], {"Worst": 0.5, "Median": 0.6, "Best": 0.7}),
        ([0.4, 0.7, 0.5, 0.6], {"Worst": 0.4, "Median": 0.5, "Best": 0.7}),
        (
            [0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5],
            {
                "Worst": 0.1,
                "Second worst": 0.2,
                "Third worst": 0.3,
                "Median": 0.5,
                "Best": 0.9,
            },
        ),
    ],
)
def test_the_worst_the_median_and_the_best_case_are_chosen_once_each(tmp_path, dice, expected):
    cases = cases_of(tmp_path, entries({f"case {place}": one for place, one in enumerate(dice)}))
    chosen = choose_cases(cases)
    assert {rank: foreground_dice(case) for rank, case in chosen} == expected
    assert len({case.name for _, case in chosen}) == len(chosen)


def test_a_case_without_a_defined_dice_is_not_chosen(tmp_path):
    cases = cases_of(tmp_path, entries({"a": None, "b": 0.5}))
    assert [case.name for _, case in choose_cases(cases)] == ["b"]
    assert choose_cases(cases[:1]) == []
