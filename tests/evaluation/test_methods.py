import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from masks import LABELS, write_mask
from veloxseg.errors import BundleError, DatasetError, GeometryError, ImageReadError, VeloxSegError
from veloxseg.evaluation.measuring import METRICS
from veloxseg.evaluation.summary import evaluate_folder
from veloxseg.evaluation.table import format_comparisons, format_statistics, format_summary

REFERENCE = (0, 1, 1, 2, 2, 0)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture
def labels_tr(tmp_path) -> Path:
    for case in "abcdef":
        write_mask(tmp_path / "labelsTr", case, *REFERENCE)
    return tmp_path / "labelsTr"


@pytest.fixture
def good(tmp_path, labels_tr) -> Path:
    """Misses the lesion of a, otherwise right."""
    for case in "abcdef":
        write_mask(tmp_path / "good", case, *((0, 1, 1, 0, 0, 0) if case == "a" else REFERENCE))
    return tmp_path / "good"


@pytest.fixture
def poor(tmp_path, labels_tr) -> Path:
    """One voxel too many of the organ, one too few of the lesion, and a case more."""
    for case in "abcdefg":
        write_mask(tmp_path / "poor", case, 1, 1, 1, 2, 0, 0)
    return tmp_path / "poor"


def printed(*tables, width: int = 150) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    return capture.get()


def cells(table) -> list[list[str]]:
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return [[str(cell) for cell in row] for row in rows]


def test_methods_are_compared_case_by_case(good, poor, labels_tr):
    summary = evaluate_folder(good, labels_tr, labels=LABELS, others={"poor": poor})
    found = {(one.label, one.metric): one for one in summary.comparisons}
    assert len(found) == 3 * 3
    organ, lesion = found[1, "Dice"], found[2, "Dice"]
    assert organ.mean_difference == pytest.approx(1 - 0.8)
    assert organ.p == pytest.approx(2 / 2**6)
    assert lesion.mean_difference == pytest.approx((5 * (1 - 2 / 3) - 2 / 3) / 6)
    assert (lesion.num_pairs, lesion.num_left_out) == (6, 0)
    # No prediction of a's lesion: its distance is undefined, and the pair is left out.
    distance = found[2, "HD95_mm"]
    assert (distance.num_pairs, distance.num_left_out) == (5, 1)
    assert distance.mean_difference < 0
    mean = found[None, "Dice"]
    assert mean.mean_difference == pytest.approx(
        (organ.mean_difference + lesion.mean_difference) / 2
    )


def test_a_label_that_one_method_misses_is_left_out_of_both_foreground_means(tmp_path):
    for case in "abc":
        write_mask(tmp_path / "r", case, 1, 1, 0, 0, 0, 0, 0, 2)
        write_mask(tmp_path / "far", case, 1, 1, 1, 0, 2, 0, 0, 0)
        write_mask(tmp_path / "missed", case, 1, 1, 1, 0, 0, 0, 0, 0)
    others = {"missed": tmp_path / "missed"}
    summary = evaluate_folder(tmp_path / "far", tmp_path / "r", labels=LABELS, others=others)
    found = {(one.label, one.metric): one for one in summary.comparisons}
    assert found[2, "HD95_mm"].num_pairs == 0
    # What is left is the organ, which both predict alike.
    distance = found[None, "HD95_mm"]
    assert (distance.num_pairs, distance.mean_difference, distance.p) == (3, 0, 1)


def test_one_label_is_compared_once(good, poor, labels_tr):
    labels = {"background": 0, "any": [1, 2]}
    summary = evaluate_folder(good, labels_tr, labels=labels, others={"poor": poor})
    assert [one.label for one in summary.comparisons] == [(1, 2)] * 3


def test_the_json_holds_statistics_methods_and_comparison(good, poor, labels_tr, tmp_path):
    output = tmp_path / "summary.json"
    evaluate_folder(
        good, labels_tr, labels=LABELS, others={"poor": poor}, output=output, command="typed"
    )
    content = json.loads(output.read_text(), parse_constant=refuse_constant)
    assert set(content["statistics"]) == {"1", "2", "foreground_mean"}
    studied = [key for key, metric in METRICS.items() if metric.unit != "voxels"]
    assert list(content["statistics"]["1"]) == studied
    distance = content["statistics"]["2"]["HD95_mm"]
    assert (distance["num_defined"], distance["num_undefined"]) == (5, 1)
    assert content["statistics"]["2"]["Dice"]["mean"] == content["mean"]["2"]["Dice"]
    assert content["bootstrap"]["num_resamples"] == 10_000
    assert list(content["methods"]) == ["good", "poor"]
    assert content["methods"]["good"]["mean"] == content["mean"]
    assert "metric_per_case" not in content["methods"]["good"]
    other = content["methods"]["poor"]["metric_per_case"]
    assert [case["case"] for case in other] == list("abcdef")
    assert other[0]["prediction_file"] == str(poor / "a.nii.gz")
    comparison = content["comparison"]
    assert (comparison["method"], comparison["correction"]) == ("good", "Holm")
    assert comparison["num_comparisons"] == len(comparison["pairs"]) == 9
    assert {pair["label"] for pair in comparison["pairs"]} == {"1", "2", "foreground_mean"}
    provenance = content["provenance"]
    assert provenance["command"] == "typed"
    assert provenance["prediction"] == str(good)
    assert provenance["methods"] == {"good": str(good), "poor": str(poor)}
    assert {"veloxseg", "numpy", "scipy", "python"} == set(provenance["versions"])
    assert (provenance["tolerance_mm"], provenance["model"]) == (1.0, None)


def test_the_foreground_mean_of_a_case_is_over_its_defined_labels(tmp_path):
    for folder in ("p", "r"):
        write_mask(tmp_path / folder, "a", 1, 1, 0, 0)
        write_mask(tmp_path / folder, "b", 1, 1, 2, 2)
    write_mask(tmp_path / "p", "b", 1, 0, 0, 0)
    summary = evaluate_folder(tmp_path / "p", tmp_path / "r", labels=LABELS)
    assert summary.values("Dice", None) == pytest.approx([1, (2 / 3 + 0) / 2])
    assert summary.statistics[None]["Dice"].mean == pytest.approx((1 + 1 / 3) / 2)
    assert summary.foreground_mean()["Dice"] == pytest.approx(((1 + 2 / 3) / 2 + 0) / 2)


def test_the_csv_has_a_row_for_every_method_case_and_label(good, poor, labels_tr, tmp_path):
    file = tmp_path / "tables" / "cases.csv"
    evaluate_folder(good, labels_tr, labels=LABELS, others={"poor": poor}, csv=file)
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 2 * 6 * 2
    assert list(rows[0])[6:] == list(METRICS)
    missed = rows[1]
    assert [missed[key] for key in ("method", "case", "label", "label_name")] == [
        "good",
        "a",
        "2",
        "lesion",
    ]
    assert (missed["Dice"], missed["HD95_mm"], missed["FN"]) == ("0.0", "", "4")
    assert float(rows[-1]["Dice"]) == pytest.approx(2 / 3)


def test_statistics_are_printed_for_each_method_and_label(good, poor, labels_tr):
    summary = evaluate_folder(good, labels_tr, labels=LABELS, others={"poor": poor})
    tables = format_statistics(summary)
    assert [table.title for table in tables] == ["Over cases: good", "Over cases: poor"]
    organ, lesion, every = cells(tables[0])
    assert [row[0] for row in cells(tables[1])] == ["organ", "lesion", "all"]
    assert [cell.splitlines()[0] for cell in organ[1:]] == [
        "Dice",
        "1.000",
        "0.000",
        "1.000",
        "1.000 to 1.000",
        "6",
        "0",
    ]
    assert [cell.splitlines()[1] for cell in lesion[1:]] == [
        "HD95 mm", "0.0", "0.0", "0.0", "0.0 to 0.0", "5", "1",
    ]  # fmt: skip
    assert [cell.splitlines()[3] for cell in every[1:4]] == ["Volume error ml", "0.00", "0.00"]


def test_comparisons_are_printed_with_both_p_values(good, poor, labels_tr):
    others = {"poor": poor, "again": good}
    summary = evaluate_folder(good, labels_tr, labels=LABELS, others=others, name="ours")
    tables = format_comparisons(summary)
    assert [table.title for table in tables] == [
        "ours minus poor, case by case",
        "ours minus again, case by case",
    ]
    organ, *_, every = cells(tables[0])
    assert [organ[0], *(cell.splitlines()[0] for cell in organ[1:])] == [
        "organ", "Dice", "+0.200", "0.200 to 0.200", "0.031", "0.562", "6", "0",
    ]  # fmt: skip
    assert every[0] == "all"


def test_figures_and_names_stay_whole_in_a_terminal_of_80_columns(good, poor, labels_tr):
    name = "nnUNetTrainer__nnUNetResEncUNetMPlans__3d_fullres"
    labels = {"background": 0, "organ": 1, "lesion_of_the_left_side": 2}
    summary = evaluate_folder(good, labels_tr, labels=labels, others={name: poor})
    statistics = printed(*format_statistics(summary), width=80)
    comparisons = printed(*format_comparisons(summary), width=80)
    cases = printed(format_summary(summary), width=80)
    assert statistics.count("Volume error ml") == 2 * 3
    assert "1.000 to 1.000" in statistics
    assert "+0.200 0.200 to 0.200 0.031 0.281" in " ".join(comparisons.split())
    assert f"Over cases: {name}\n" in re.sub(" +\n", "\n", statistics)
    assert name in " ".join(comparisons.split())
    assert len(statistics.splitlines()) == 2 * (3 + 3 * 4 + 2)  # a long label adds no line
    assert "…" not in statistics + comparisons + cases


def test_many_cases_are_printed_as_their_means(good, labels_tr, monkeypatch):
    summary = evaluate_folder(good, labels_tr, labels=LABELS)
    assert len(cells(format_summary(summary))) == 6 * 2 + 3
    monkeypatch.setattr("veloxseg.evaluation.table.SHOWN_CASES", 5)
    assert len(cells(format_summary(summary))) == 3


def test_a_cross_validation_is_evaluated_over_all_its_folds(good, labels_tr, tmp_path):
    run = tmp_path / "run"
    for fold, cases in ((0, "ad"), (2, "b")):
        for case in cases:
            write_mask(run / f"fold_{fold}" / "validation", case, 1, 1, 1, 2, 0, 0)
    output, table = tmp_path / "summary.json", tmp_path / "cases.csv"
    summary = evaluate_folder(run, labels_tr, labels=LABELS, output=output, csv=table)
    assert [(case.name, case.fold) for case in summary.cases] == [("a", 0), ("b", 2), ("d", 0)]
    assert summary.not_predicted == ("c", "e", "f")
    content = json.loads(output.read_text())
    assert [case["fold"] for case in content["metric_per_case"]] == [0, 2, 0]
    assert content["cross_validation"] == {
        "num_cases": {"0": 2, "2": 1},
        "missing": [1, 3, 4],
        "unfinished": [0, 2],
    }
    assert content["not_predicted"] == ["c", "e", "f"]
    assert [line.split(",")[2] for line in table.read_text().splitlines()[1::2]] == ["0", "2", "0"]
    both = evaluate_folder(run, labels_tr, labels=LABELS, others={"good": good})
    assert [case.name for case in both.others["good"].cases] == ["a", "b", "d"]


def test_methods_need_different_names_and_the_same_cases(good, poor, labels_tr):
    with pytest.raises(DatasetError, match="Two methods are called good"):
        evaluate_folder(good, labels_tr, labels=LABELS, others={"good": poor})
    with pytest.raises(DatasetError, match="no name"):
        evaluate_folder(good, labels_tr, labels=LABELS, name=" ")
    (poor / "c.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"poor .*no prediction for case c"):
        evaluate_folder(good, labels_tr, labels=LABELS, others={"poor": poor})


def test_values_are_found_in_the_masks_of_all_methods(good, poor, labels_tr):
    write_mask(poor, "a", 1, 1, 1, 2, 0, 5)
    summary = evaluate_folder(good, labels_tr, others={"poor": poor})
    assert list(summary.label_names) == [1, 2, 5]


def test_resampling_is_an_explicit_choice_and_said(labels_tr, tmp_path):
    predicted = tmp_path / "predicted"
    for case in "abcdef":
        write_mask(predicted, case, *REFERENCE)
    # The same organ and lesion on voxels of half the size, whose edges are those of the others.
    fine = [value for value in REFERENCE for _ in range(2)]
    write_mask(predicted, "b", *fine, spacing_zyx=(3, 1, 0.25), origin_xyz=(-0.125, 0, 0))
    with pytest.raises(GeometryError, match=r"Case b.* 12 voxels.* 6 voxels.*--resample"):
        evaluate_folder(predicted, labels_tr, labels=LABELS)
    output = tmp_path / "summary.json"
    evaluate_folder(predicted, labels_tr, labels=LABELS, resample=True, output=output)
    evaluate_folder(predicted, labels_tr, labels=LABELS, resample=True, output=output)  # recalled
    content = json.loads(output.read_text())
    assert content["provenance"]["resample"] is True
    moved = [case["case"] for case in content["metric_per_case"] if case.get("resampled")]
    assert moved == ["b"]
    assert content["mean"]["1"]["Dice"] == content["mean"]["2"]["Dice"] == 1


def test_the_tolerance_decides_what_surfaces_agree(good, poor, labels_tr):
    loose, strict = (
        evaluate_folder(
            good, labels_tr, labels=LABELS, tolerance_mm=tolerance, others={"poor": poor}
        ).others["poor"]
        for tolerance in (0.5, 0.4)
    )
    assert loose.mean(1)["NSD"] == 1
    assert strict.mean(1)["NSD"] < 1


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_a_tolerance_that_is_no_distance_is_refused(good, labels_tr, tolerance):
    with pytest.raises(VeloxSegError, match="--tolerance"):
        evaluate_folder(good, labels_tr, labels=LABELS, tolerance_mm=tolerance)


@pytest.mark.parametrize("folder", ["labelsTr", "."])
@pytest.mark.parametrize("kind", ["output", "csv"])
def test_a_folder_to_write_is_refused_before_anything_is_evaluated(
    good, labels_tr, tmp_path, monkeypatch, kind, folder
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VeloxSegError, match="is a folder"):
        evaluate_folder(good, labels_tr, labels=LABELS, **{kind: Path(folder)})
    assert {path.name for path in tmp_path.iterdir()} == {"good", "labelsTr"}


def test_json_and_csv_need_different_files(good, labels_tr, tmp_path):
    file = tmp_path / "figures"
    with pytest.raises(VeloxSegError, match="another file: --csv"):
        evaluate_folder(good, labels_tr, labels=LABELS, output=file, csv=file)


def test_a_dataset_that_is_empty_throughout_has_a_summary_of_undefined_dice(tmp_path):
    for folder in ("p", "r", "q"):
        for case in "ab":
            write_mask(tmp_path / folder, case, 0, 0, 0)
    output = tmp_path / "summary.json"
    summary = evaluate_folder(
        tmp_path / "p",
        tmp_path / "r",
        labels=LABELS,
        others={"q": tmp_path / "q"},
        output=output,
        csv=tmp_path / "cases.csv",
    )
    content = json.loads(output.read_text(), parse_constant=refuse_constant)
    assert content["foreground_mean"]["Dice"] is None
    assert content["statistics"]["1"]["Dice"]["num_undefined"] == 2
    assert content["comparison"]["pairs"][0]["p"] is None
    assert content["comparison"]["num_comparisons"] == 0
    tables = (
        format_summary(summary),
        *format_statistics(summary),
        *format_comparisons(summary),
    )
    assert all("-" in printed(table).splitlines()[-2] for table in tables)


def test_one_case_is_enough_but_for_an_interval(tmp_path):
    write_mask(tmp_path / "p", "a", 1, 1, 0)
    write_mask(tmp_path / "r", "a", 1, 0, 0)
    summary = evaluate_folder(tmp_path / "p", tmp_path / "r", others={"same": tmp_path / "p"})
    found = summary.statistics[1]["Dice"].to_json()
    assert found["mean"] == pytest.approx(2 / 3)
    assert (found["sd"], found["interval_95"]) == (None, None)
    assert summary.comparisons[0].p == 1
    assert [cell.splitlines()[0] for cell in cells(format_statistics(summary)[0])[0][2:6]] == [
        "0.667", "-", "0.667", "-",
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["good", "labelsTr"])
def test_a_voxel_that_is_not_a_number_is_refused(good, labels_tr, tmp_path, folder):
    write_mask(tmp_path / folder, "b", np.nan, 0, 1, 0, 0, 0)
    with pytest.raises(DatasetError, match=r"Case b: .*b\.nii\.gz.*values such as nan"):
        evaluate_folder(good, labels_tr, labels=LABELS)


def test_a_file_that_was_cut_short_is_named(good, labels_tr):
    file = good / "e.nii.gz"
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(ImageReadError, match=r"e\.nii\.gz"):
        evaluate_folder(good, labels_tr, labels=LABELS)


def test_files_that_were_being_written_when_a_run_ended_are_no_masks(good, labels_tr):
    (good / ".1a2b3c4d.partial.a.nii.gz").write_bytes(b"half")
    assert len(evaluate_folder(good, labels_tr, labels=LABELS).cases) == 6


def test_a_folder_of_part_of_the_cases_names_the_rest(good, labels_tr):
    (good / "b.nii.gz").unlink()
    (good / "d.nii.gz").unlink()
    with pytest.raises(DatasetError, match="no prediction for cases b, d of"):
        evaluate_folder(good, labels_tr, labels=LABELS)
    summary = evaluate_folder(good, labels_tr, labels=LABELS, subset=True)
    assert summary.not_predicted == ("b", "d")


def test_a_model_that_is_no_bundle_is_refused(good, labels_tr):
    with pytest.raises(BundleError):
        evaluate_folder(good, labels_tr, labels=LABELS, model=labels_tr)


def test_several_processes_find_what_one_finds(good, labels_tr, tmp_path, monkeypatch):
    monkeypatch.setattr("veloxseg.evaluation.spreading.WORTH_PROCESSES_SECONDS", 0.0)
    steps: list[tuple[int, int]] = []
    many = evaluate_folder(
        good,
        labels_tr,
        labels=LABELS,
        num_workers=2,
        output=tmp_path / "summary.json",
        progress=lambda *step: steps.append(step),
    )
    one = evaluate_folder(good, labels_tr, labels=LABELS)
    assert [case.name for case in many.cases] == list("abcdef")
    assert [case.metrics[1] for case in many.cases] == [case.metrics[1] for case in one.cases]
    assert steps == [(done, 6) for done in range(1, 7)]
    assert len(list((tmp_path / "summary_cases").iterdir())) == 6
