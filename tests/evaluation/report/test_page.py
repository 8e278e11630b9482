import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from evaluated_scenes import (
    change,
    evaluate_scene,
    evaluate_scene_with_subsets,
    prediction,
    reference,
    write,
)
from veloxseg.errors import DatasetError, VeloxSegError
from veloxseg.evaluation.report.origin import hide_folders
from veloxseg.evaluation.report.page import write_report
from veloxseg.evaluation.summary import evaluate_folder

SHIFTS = {"near": 1, "middle": 3, "far": 9}


class Page(HTMLParser):
    """Text of a page's cells by table row, its tags, and its attributes that lead elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        if tag == "tr":
            self.rows.append([])
        self._in_cell = self._in_cell or tag in ("td", "th")
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._in_cell:
            self.rows[-1][-1] += data

    def row(self, *start: str) -> list[str]:
        return next(row for row in self.rows if row[: len(start)] == list(start))


def report(summary, **options) -> str:
    page = write_report(summary, summary.parent / "report.html", **options)
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return evaluate_scene(tmp_path_factory.mktemp("scene"), SHIFTS)


@pytest.fixture(scope="module")
def page(scene):
    return report(scene, images=scene.parent / "imagesTr", title="Three <cases>")


def test_the_page_is_one_file_that_names_no_other_and_no_address(page):
    found = Page(page)
    assert all(link.startswith("data:image/png;base64,") for link in found.links)
    assert not {"link", "iframe", "object", "embed"} & set(found.tags)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", page)
    assert "default-src 'none'" in page


def test_its_figures_are_those_that_evaluate_writes(scene, page):
    statistics = json.loads(scene.read_text())["statistics"]
    for label, name in (("1", "organ"), ("2", "tumour"), ("foreground_mean", "Mean of labels")):
        found = statistics[label]["Dice"]
        low, high = found["interval_95"]
        assert Page(page).row(name, "Dice")[2:] == [
            f"{found['mean']:.3f}",
            f"{found['sd']:.3f}",
            f"{found['median']:.3f}",
            f"{low:.3f} to {high:.3f}",
            "3",
            "0",
        ]


def test_every_label_of_every_case_has_a_row_with_all_metrics(scene, page):
    header = Page(page).row("Case", "Label")
    row = Page(page).row("far", "tumour")
    content = json.loads(scene.read_text())["metric_per_case"]
    values = next(case for case in content if case["case"] == "far")["metrics"]["2"]
    assert len(row) == len(header) == 2 + len(values)
    assert row[header.index("Dice")] == "0.000"
    assert row[header.index("HD95 mm")] == f"{values['HD95_mm']:.1f}"
    assert "NSD at 1 mm" in header
    assert len([row for row in Page(page).rows if row[0] in SHIFTS]) == 9


def test_there_are_plots_of_dice_hd95_nsd_and_volumes_and_pictures_of_three_cases(page):
    assert page.count('<svg class="plot"') == 3 + 2
    assert page.count('<svg class="panel"') == 3 * 3 * 2
    ranks = re.findall(r'<span class="rank">(\w+)</span> (\w+)', page)
    assert ranks == [("Worst", "far"), ("Median", "middle"), ("Best", "near")]
    assert page.count("aria-label=") == page.count('role="img"') + page.count('role="group"')


def test_the_title_and_names_from_files_are_escaped(tmp_path):
    name = "<script>alert(1)<"
    summary = evaluate_scene(tmp_path, {"a": 1, "b": 2})

    def rename(content):
        content["label_names"]["1"] = name
        content["metric_per_case"][0]["case"] = name
        content["provenance"]["command"] = name

    text = report(change(summary, rename), title=name)
    assert text.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;" in text


def test_a_case_named_as_a_tag_is_reported_from_its_file_on(tmp_path):
    summary = evaluate_scene(tmp_path, {"<script>": 2, "b&b": 3})
    text = report(summary, images=tmp_path / "imagesTr")
    assert text.count("<script") == 1
    assert Page(text).row("<script>", "organ")
    assert text.count("<image") == 2 * 3 * 2


def test_a_name_that_is_no_text_is_shown_as_escapes(tmp_path):
    summary = evaluate_scene(tmp_path, {"a": 1})

    def rename(content):
        content["metric_per_case"][0]["case"] = "\udcff"

    assert Page(report(change(summary, rename))).row("\\udcff", "organ")


def test_a_plain_summary_of_nnunet_is_reported_without_what_it_lacks(scene, tmp_path):
    content = json.loads(scene.read_text())
    kept = ("Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref")
    for case in content["metric_per_case"]:
        del case["case"]
        for label, metrics in case["metrics"].items():
            case["metrics"][label] = {key: metrics[key] for key in kept}
    plain = {key: content[key] for key in ("foreground_mean", "mean", "metric_per_case")}
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(plain))
    text = report(path)
    assert Page(text).row("label 1", "Dice")
    assert Page(text).row("far", "label 2")
    assert "HD95" not in text
    assert "Volume agreement" not in text
    assert text.count('<svg class="panel"') == 9


def test_methods_are_compared_as_the_summary_has_them(scene, tmp_path):
    other = tmp_path / "other"
    for case, shift in SHIFTS.items():
        write(other / f"{case}.nii.gz", prediction(shift + 1))
    summary = tmp_path / "summary.json"
    evaluate_folder(
        scene.parent / "masks",
        scene.parent / "labelsTr",
        name="ours",
        others={"other <b>": other},
        output=summary,
    )
    text = report(summary)
    (pair,) = (
        pair
        for pair in json.loads(summary.read_text())["comparison"]["pairs"]
        if (pair["label"], pair["metric"]) == ("1", "Dice")
    )
    row = Page(text).row("other <b>", "organ", "Dice")
    assert row[5] == f"{pair['mean_difference']:.3f}"
    assert row[7:] == [f"{pair['p']:.3f}", f"{pair['p_holm']:.3f}", "3", "0"]
    assert "<h1>Evaluation of ours</h1>" in text


def test_cases_with_the_same_channels_have_means_of_their_own(tmp_path):
    summary = evaluate_scene_with_subsets(tmp_path, SHIFTS, lacking_ct="middle")
    both = json.loads(summary.read_text())["subsets"]["CT+PET"]
    page = Page(report(summary))
    dice, distance, nsd = (both["mean"]["1"][key] for key in ("Dice", "HD95_mm", "NSD"))
    row = page.row("CT+PET", "2", "organ")
    assert [row[3], *row[5:]] == [f"{dice:.3f}", f"{distance:.1f}", f"{nsd:.3f}"]
    assert page.rows[page.rows.index(row) + 2][:2] == [
        "Mean of labels",
        f"{both['foreground_mean']['Dice']:.3f}",
    ]
    assert page.row("PET", "1", "organ")[4] == "–"  # one case has no interval
    whole = page.row("organ", "Dice")
    assert page.row("All", "3", "organ")[3:5] == [whole[2], whole[5]]
    header = page.row("Case", "Label", "Channels")
    assert len(page.row("middle", "organ", "PET")) == len(header)


def test_cases_that_all_have_the_same_channels_are_not_listed_by_them(tmp_path):
    summary = evaluate_scene(tmp_path, {"a": 1, "b": 2}, images=tmp_path / "imagesTr")
    assert list(json.loads(summary.read_text())["subsets"]) == ["CT+PET"]
    assert "By channels" not in report(summary)


def test_undefined_values_of_a_subset_are_counted(tmp_path):
    summary = evaluate_scene_with_subsets(tmp_path, {"a": 1, "b": 2, "c": 3}, lacking_ct="c")

    def forget(content):
        content["metric_per_case"][0]["metrics"]["2"]["HD95_mm"] = None

    page = Page(report(change(summary, forget)))
    rows = page.rows[page.rows.index(page.row("CT+PET", "2")) :]
    assert rows[1][3].endswith(" (1 undefined)")


def test_a_summary_without_subsets_or_folds_says_nothing_of_them(page):
    assert "By channels" not in page
    assert "Channels" not in page
    assert "Cross-validation" not in page


def test_folds_that_are_missing_or_unfinished_are_named(tmp_path):
    for fold, cases in ((0, {"a": 1, "b": 2}), (3, {"c": 3})):
        for case, shift in cases.items():
            masks = tmp_path / "run" / f"fold_{fold}" / "validation"
            write(masks / f"{case}.nii.gz", prediction(shift))
            write(tmp_path / "labelsTr" / f"{case}.nii.gz", reference())
    write(tmp_path / "labelsTr" / "d.nii.gz", reference())
    (tmp_path / "run" / "fold_0" / "validation" / "summary.json").write_text("{}")
    summary = tmp_path / "summary.json"
    evaluate_folder(tmp_path / "run", tmp_path / "labelsTr", output=summary)
    text = report(summary)
    assert "Cross-validation, folds 0 (2 cases), 3 (1 case)." in text
    assert "Missing from the cross-validation: folds 1, 2, 4." in text
    assert "Perhaps unfinished, with cases missing: fold 3." in text
    assert "Not predicted, and not counted: 1 of the references (d)." in text


def test_a_long_list_of_cases_without_prediction_is_shortened(tmp_path):
    summary = evaluate_scene(tmp_path, {"a": 1})
    missing = [f"case_{number}" for number in range(8)]
    text = report(change(summary, lambda content: content.update(not_predicted=missing)))
    assert "8 of the references (case_0, case_1, case_2, case_3, case_4 and 3 more)." in text


def test_one_method_names_the_page_too_where_the_summary_names_it(tmp_path):
    summary = evaluate_scene(tmp_path, {"a": 1})
    assert "<h1>Evaluation of masks</h1>" in report(summary)
    plain = change(summary, lambda content: content.pop("provenance"))
    assert "<h1>Evaluation</h1>" in report(plain)


def test_it_says_where_it_comes_from_without_naming_folders(scene, page):
    made = json.loads(scene.read_text())["provenance"]
    assert made["versions"]["veloxseg"] in page
    assert str(scene.parent) not in page
    assert "<dt>Predictions</dt><dd>masks</dd>" in page
    assert re.search(r"<dt>Summary SHA-256</dt><dd>[0-9a-f]{64}</dd>", page)


def test_the_model_is_named_with_its_hash_where_the_summary_knows_it(tmp_path):
    summary = evaluate_scene(tmp_path, {"a": 1})

    def add(content):
        content["provenance"]["model"] = {"name": "net", "sha256": "f" * 64, "path": "/home/me/net"}

    text = report(change(summary, add))
    assert f"<dt>Model SHA-256</dt><dd>{'f' * 64}</dd>" in text
    assert "/home/me" not in text


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("veloxseg evaluate /home/me/masks ../labelsTr", "veloxseg evaluate masks labelsTr"),
        (
            "veloxseg evaluate --other=unet=/home/me/b=c/masks",
            "veloxseg evaluate --other=unet=b=masks",
        ),
        ("veloxseg evaluate '/home/me/my masks/'", "veloxseg evaluate 'my masks'"),
        (r"veloxseg evaluate 'C:\Users\me\masks'", "veloxseg evaluate masks"),
        ("veloxseg evaluate 'open", "veloxseg evaluate ''\"'\"'open'"),
        (None, ""),
    ],
)
def test_paths_in_commands_are_cut_to_their_last_names(command, shown):
    assert hide_folders(command) == shown


def test_one_case_has_no_interval_and_is_the_only_picture(tmp_path):
    text = report(evaluate_scene(tmp_path, {"a": 2}, tumours=False))
    assert Page(text).row("organ", "Dice")[3:] == ["–", "0.900", "–", "1", "0"]
    assert text.count("The only case") == 1
    assert "1 case, 1 label: organ. Mean Dice 0.900." in text


def test_all_undefined_is_said_and_no_case_is_drawn(tmp_path):
    for folder in ("masks", "labelsTr"):
        for case in "ab":
            write(tmp_path / folder / f"{case}.nii.gz", np.zeros_like(reference()))
    summary = tmp_path / "summary.json"
    evaluate_folder(tmp_path / "masks", tmp_path / "labelsTr", labels={"organ": 1}, output=summary)
    text = report(summary)
    assert "Dice is undefined in every case" in text
    assert "No pictures: Dice is undefined in every case." in text
    assert Page(text).row("organ", "Dice")[2:] == ["–", "–", "–", "–", "0", "2"]


def test_a_case_whose_masks_are_gone_keeps_its_row(tmp_path):
    summary = evaluate_scene(tmp_path, {"a": 1, "b": 2})
    (tmp_path / "masks" / "b.nii.gz").unlink()
    text = report(summary)
    assert Page(text).row("b", "organ")
    assert "The prediction&#39;s file b.nii.gz is not there any more." in text
    assert text.count('<svg class="panel"') == 3


def test_a_missing_folder_of_images_is_refused_and_nothing_is_written(scene, tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        write_report(scene, tmp_path / "page.html", images=tmp_path / "imagesTs")
    assert not list(tmp_path.iterdir())


def test_the_page_never_takes_the_place_of_its_summary(scene):
    before = scene.read_bytes()
    with pytest.raises(VeloxSegError, match="would take the summary's place"):
        write_report(scene, scene)
    assert scene.read_bytes() == before


def test_a_page_that_cannot_be_written_is_refused_before_cases_are_drawn(
    scene, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "report.html", tmp_path / "file" / "deep" / "report.html"):
        with pytest.raises(VeloxSegError, match=r"file is a file\. Expected a folder"):
            write_report(scene, output)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(VeloxSegError, match=r"nothing can be written.*such as.*report\.html"):
        write_report(scene, tmp_path / "new" / "report.html")


def test_channels_without_images_are_refused(scene, tmp_path):
    with pytest.raises(DatasetError, match=r"no images are given.*--images"):
        write_report(scene, tmp_path / "page.html", channels=[0])


def test_no_folder_of_a_summary_made_on_windows_is_shown(tmp_path):
    summary = evaluate_scene(tmp_path, {"a": 1})

    def move(content):
        entry = content["metric_per_case"][0]
        entry["prediction_file"] = r"C:\Users\me\masks\a.nii.gz"

    text = report(change(summary, move))
    assert "The prediction&#39;s file a.nii.gz is not there any more." in text
    assert "Users" not in text


def test_a_folder_is_no_page_to_write(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VeloxSegError, match=r"is a folder.*report\.html"):
        write_report(scene, Path())


def test_five_hundred_cases_with_two_labels_stay_below_four_megabytes(scene, tmp_path):
    content = json.loads(scene.read_text())
    entry = content["metric_per_case"][0]
    content["metric_per_case"] = [
        {**entry, "case": f"case_{number:03d}", "prediction_file": f"/gone/{number}.nii.gz"}
        for number in range(500)
    ]
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(content))
    page = write_report(path, tmp_path / "report.html")
    assert page.stat().st_size < 4e6
