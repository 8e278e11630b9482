import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from masks import write_mask
from veloxseg.cli import app


def run(*words: object, code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and references of six cases with one label."""
    for case in "abcdef":
        write_mask(tmp_path / "masks", case, 1, 1, 0, 0)
        write_mask(tmp_path / "labelsTr", case, 0, 1, 1, 0)
    return tmp_path / "masks", tmp_path / "labelsTr"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    for case in "abcdef":
        write_mask(tmp_path / "other", case, 0, 1, 1, 0)
    return tmp_path / "other"


def test_evaluate_prints_statistics_and_writes_json_and_csv(folders, tmp_path) -> None:
    figures, table = tmp_path / "figures.json", tmp_path / "cases.csv"
    output = run("evaluate", *folders, "-o", figures, "--csv", table)
    assert "95 % interval" in output
    assert "0.500 to 0.500" in output
    assert str(table) in output
    assert len(table.read_text().splitlines()) == 7
    assert json.loads(figures.read_text())["provenance"]["command"].split()[0] == "veloxseg"
    assert len(list((tmp_path / "figures_cases").iterdir())) == 6


def test_evaluate_compares_other_methods_by_name(folders, other, tmp_path) -> None:
    figures = tmp_path / "figures.json"
    words = ["--name", "ours", "--other", f"unet={other}", "--other", f"again={folders[0]}"]
    output = run("evaluate", *folders, *words, "-o", figures)
    assert "ours minus unet, case by case" in output
    assert "-0.500" in output
    content = json.loads(figures.read_text())
    assert list(content["methods"]) == ["ours", "unet", "again"]
    assert content["comparison"]["pairs"][0]["mean_difference"] == pytest.approx(-0.5)


def test_names_are_printed_as_they_are_and_tables_apart(folders, other) -> None:
    words = ["--labels", "[red]:heart:=1", "--name", "[b]", "--other", f":lung:={other}"]
    output = run("evaluate", *folders, *words)
    assert "[red]:heart:" in output
    assert "\n\n[b] minus :lung:, case by case" in re.sub(" +\n", "\n", output)


@pytest.mark.parametrize("text", ["unet", "=folder", "unet="])
def test_another_method_without_name_or_folder_is_refused(folders, text) -> None:
    assert "expected NAME=FOLDER" in run("evaluate", *folders, "--other", text, code=2)


def test_another_method_given_twice_is_refused(folders, other) -> None:
    words = ["--other", f"a={other}", "--other", f"a={other}"]
    assert "each name once" in run("evaluate", *folders, *words, code=2)


@pytest.mark.parametrize("value", ["two", "-1", "1.0", "²"])
def test_a_label_whose_value_is_no_whole_number_is_refused(folders, value) -> None:
    words = ["--labels", f"organ={value}"]
    assert "expected NAME=VALUE" in run("evaluate", *folders, *words, code=2)


def test_evaluate_says_which_folds_and_references_it_is_not_about(folders, tmp_path) -> None:
    results = tmp_path / "run"
    for fold, cases in ((0, "ab"), (3, "cd")):
        for case in cases:
            write_mask(results / f"fold_{fold}" / "validation", case, 1, 1, 0, 0)
    (results / "fold_0" / "validation" / "summary.json").write_text("{}")
    output = run("evaluate", results, folders[1])
    assert "Folds (cases): 0 (2), 3 (2)" in output
    assert "Folds without masks: 1, 2, 4" in output
    assert "may be unfinished: 3" in output
    assert "passed over: 2 (e, f)" in output


def test_evaluate_says_which_cases_were_resampled(folders) -> None:
    shutil.copy(write_mask(folders[0], "x", 1, 1, 0, 0, 0), folders[0] / "b.nii.gz")
    (folders[0] / "x.nii.gz").unlink()
    assert "--resample" in run("evaluate", *folders, code=2)
    output = run("evaluate", *folders, "--resample", "--labels", "organ=1")
    assert "Resampled onto the reference's grid (masks): b" in output


def test_the_bundle_that_predicted_is_named(folders, tmp_path) -> None:
    pytest.importorskip("torch")
    from bundles import write_small_bundle
    from veloxseg.bundle.reading import open_bundle

    bundle = write_small_bundle(tmp_path / "small.veloxseg")
    run("evaluate", *folders, "-m", bundle, "-o", tmp_path / "summary.json")
    model = json.loads((tmp_path / "summary.json").read_text())["provenance"]["model"]
    manifest = open_bundle(bundle).manifest
    assert model["name"] == manifest.name
    assert model["sha256"] == manifest.files["model.onnx"]


def test_the_commands_evaluate_nothing_before_they_are_asked(tmp_path) -> None:
    code = (
        "import sys, veloxseg.commands.evaluating; "
        "sys.exit(any(n in sys.modules for n in ('torch', 'SimpleITK', 'scipy', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
