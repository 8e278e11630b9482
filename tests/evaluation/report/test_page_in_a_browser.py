import json

import pytest

from browser import add_script, dump_page, require_browser, run_in_page
from evaluated_scenes import change, evaluate_scene, evaluate_scene_with_subsets
from veloxseg.evaluation.report.page import write_report

SHIFTS = {"case_10": 9, "case_2": 1, "other": 3}

SCRIPT = """
  const table = document.getElementById("cases");
  const shown = (element) => element.getClientRects().length > 0;
  const rows = () => Array.from(table.tBodies[0].rows).filter(shown)
    .map((row) => Array.from(row.cells).map((cell) => cell.textContent));
  const header = (name) => Array.from(table.querySelectorAll("thead button"))
    .find((button) => button.textContent === name);
  const state = (name) => header(name).closest("th").getAttribute("aria-sort");
  const press = (name) => { header(name).click(); return [rows(), state(name)]; };
  const type = (id, value, event) => {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event(event, { bubbles: true }));
    return rows();
  };
  const columns = () => Array.from(table.tHead.rows[0].cells).filter(shown).length;
  const answers = {};
  answers.up = press("Dice");
  answers.down = press("Dice");
  answers.cases = press("Case");
  answers.diceAfterCases = state("Dice");
  header("Label").focus();
  answers.focused = document.activeElement === header("Label");
  answers.errors = press("Volume error ml");
  answers.text = type("case-filter", "CASE_", "input");
  answers.both = type("label-filter", "tumour", "change");
  answers.none = type("case-filter", "nowhere", "input");
  answers.said = document.getElementById("shown").textContent;
  answers.columns = [columns()];
  document.getElementById("all-metrics").click();
  answers.columns.push(columns());
  answers.loaded = performance.getEntriesByType("resource").map((one) => one.name)
    .filter((name) => !name.startsWith("data:"));
  return JSON.stringify(answers);
"""


SORT_BY_CHANNELS = """
  const table = document.getElementById("cases");
  const header = Array.from(table.querySelectorAll("thead button"))
    .find((button) => button.textContent === "Channels");
  const rows = () => Array.from(table.tBodies[0].rows).filter((row) => !row.hidden)
    .map((row) => Array.from(row.cells).map((cell) => cell.textContent));
  header.click();
  header.click();
  const answers = { channels: rows().map((row) => row[2]) };
  const label = document.getElementById("label-filter");
  label.value = "tumour";
  label.dispatchEvent(new Event("change"));
  answers.tumours = rows().map((row) => [row[0], row[2]]);
  answers.table = Array.from(document.querySelectorAll(".subsets [rowspan]"))
    .map((cell) => cell.textContent);
  return JSON.stringify(answers);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    require_browser()
    folder = tmp_path_factory.mktemp("scene")
    summary = evaluate_scene(folder, SHIFTS)

    def forget(content):
        content["metric_per_case"][2]["metrics"]["2"]["Dice"] = None

    return write_report(change(summary, forget), folder / "report.html", images=folder / "imagesTr")


@pytest.fixture(scope="module")
def answers(page, tmp_path_factory):
    return json.loads(run_in_page(page, tmp_path_factory.mktemp("answers"), SCRIPT))


def column(answer: list[list[str]], number: int) -> list[str]:
    return [row[number] for row in answer]


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("\N{MINUS SIGN}", "-")) for text in texts if text != "–"]


def test_the_pages_own_script_runs_under_its_content_policy(page, tmp_path):
    document = dump_page(page, tmp_path)
    assert document.count('<button type="button">') == 25
    assert "9 of 9 rows" in document


def test_a_header_sorts_by_number_and_again_the_other_way(answers):
    (up, rising), (down, falling) = answers["up"], answers["down"]
    assert numbers(column(up, 2)) == sorted(numbers(column(up, 2)))
    assert numbers(column(down, 2)) == sorted(numbers(column(up, 2)), reverse=True)
    assert up[0][:2] == ["case_10", "tumour"]
    assert (rising, falling) == ("ascending", "descending")


def test_undefined_values_are_last_both_ways(answers):
    for order in ("up", "down"):
        assert answers[order][0][-1][:3] == ["other", "tumour", "–"]
    errors = column(answers["errors"][0], 7 + 10)  # the volume error among all columns
    assert errors[-3:] == ["–"] * 3
    assert numbers(errors) == sorted(numbers(errors))


def test_case_names_sort_by_the_numbers_in_them(answers):
    assert column(answers["cases"][0], 0) == ["case_2"] * 3 + ["case_10"] * 3 + ["other"] * 3
    assert answers["cases"][1] == "ascending"
    assert answers["diceAfterCases"] is None


def test_headers_take_the_keyboards_focus(answers):
    assert answers["focused"]


def test_a_text_and_a_label_filter_the_rows_together(answers):
    assert {tuple(row[:1]) for row in answers["text"]} == {("case_2",), ("case_10",)}
    assert len(answers["text"]) == 6
    assert {tuple(row[:2]) for row in answers["both"]} == {
        ("case_2", "tumour"),
        ("case_10", "tumour"),
    }
    assert answers["none"] == []
    assert answers["said"] == "0 of 9 rows"


def test_all_metrics_are_shown_by_one_click(answers):
    assert answers["columns"] == [8, 25]


def test_nothing_is_loaded(answers):
    assert answers["loaded"] == []


@pytest.fixture(scope="module")
def page_by_channels(tmp_path_factory):
    require_browser()
    folder = tmp_path_factory.mktemp("channels")
    summary = evaluate_scene_with_subsets(folder, SHIFTS, lacking_ct="case_2")
    return write_report(summary, folder / "report.html")


def test_cases_sort_and_filter_beside_their_channels(page_by_channels, tmp_path):
    found = json.loads(run_in_page(page_by_channels, tmp_path, SORT_BY_CHANNELS))
    assert found["channels"] == ["PET"] * 3 + ["CT+PET"] * 6
    assert sorted(found["tumours"]) == [
        ["case_10", "CT+PET"],
        ["case_2", "PET"],
        ["other", "CT+PET"],
    ]
    assert found["table"] == ["CT+PET", "2", "PET", "1", "All", "3"]


FILTER_AND_MEASURE = """
  const rows = () => Array.from(document.getElementById("cases").tBodies[0].rows)
    .filter((row) => !row.hidden);
  const label = document.getElementById("label-filter");
  label.selectedIndex = 1;
  label.dispatchEvent(new Event("change"));
  const answers = { labels: rows().map((row) => row.cells[1].textContent) };
  const field = document.getElementById("case-filter");
  field.value = "K\u00d6LN";
  field.dispatchEvent(new Event("input"));
  answers.cases = rows().length;
  const name = rows()[0].cells[0];
  answers.fits = name.scrollWidth <= name.clientWidth;
  return JSON.stringify(answers);
"""


@pytest.fixture(scope="module")
def page_of_strange_names(tmp_path_factory):
    require_browser()
    folder = tmp_path_factory.mktemp("names")
    summary = evaluate_scene(folder, {"a": 1, "b": 2})

    def rename(content):
        content["label_names"]["1"] = " left  organ <b>"
        # As macOS writes it: the letter and its dots are two characters.
        content["metric_per_case"][0]["case"] = "Ko\u0308ln_" + "a_name_without_a_space_" * 3

    return write_report(change(summary, rename), folder / "report.html")


def test_any_label_and_any_spelling_of_a_case_are_found_and_long_names_are_whole(
    page_of_strange_names, tmp_path
):
    found = json.loads(run_in_page(page_of_strange_names, tmp_path, FILTER_AND_MEASURE))
    assert found["labels"] == [" left  organ <b>"] * 2
    assert found["cases"] == 1
    assert found["fits"]


@pytest.mark.parametrize("which", ["page", "page_by_channels", "page_of_strange_names"])
def test_the_page_is_no_wider_than_a_narrow_window(which, request, tmp_path):
    page = request.getfixturevalue(which)
    # A browser's own window has a least width, a frame has none.
    script = """
      const frame = document.createElement("iframe");
      frame.width = "360";
      frame.srcdoc = document.documentElement.outerHTML.replace(/<script>[^]*?<\\/script>/g, "");
      document.body.append(frame);
      const done = document.createElement("p");
      done.id = "wide";
      frame.addEventListener("load", () => {
        done.textContent = "wide " + frame.contentDocument.documentElement.scrollWidth;
      });
      document.body.append(done);
      return "";
    """
    copy = add_script(page, tmp_path, script)
    document = dump_page(copy, tmp_path, "--virtual-time-budget=5000")
    width = int(document.split(">wide ")[1].split("<")[0])
    assert 300 < width <= 360
