import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evaluated_scenes import evaluate_scene
from veloxseg.cli import app


def run(*words: object, code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture(scope="module")
def summary(tmp_path_factory) -> Path:
    return evaluate_scene(tmp_path_factory.mktemp("scene"), {"a": 1, "b": 4})


def test_report_writes_a_page_beside_the_summary_and_says_where(summary) -> None:
    output = run("report", summary)
    page = summary.parent / "report.html"
    assert f"Written: {page}" in output
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_report_takes_images_channels_a_title_and_another_place(summary, tmp_path) -> None:
    page = tmp_path / "new" / "page.html"
    images = summary.parent / "imagesTr"
    run("report", summary, "-o", page, "--images", images, "--channel", 1, "--title", "Mine")
    text = page.read_text(encoding="utf-8")
    assert "<h1>Mine</h1>" in text
    assert text.count("<figcaption>PET. ") == 6
    assert "<figcaption>CT. " not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gone.json"], "gone.json: No such file or directory"),
        (["SUMMARY", "--images", "gone"], "gone: no such folder"),
        (["SUMMARY", "--images", "IMAGES", "--channel", "7"], "no channel 7"),
        (["SUMMARY", "-o", "SUMMARY"], "would take the summary's place"),
        (["DESCRIPTION"], "no summary of an evaluation"),
    ],
)
def test_what_report_cannot_do_is_said_in_a_sentence(summary, words, said) -> None:
    known = {
        "SUMMARY": summary,
        "IMAGES": summary.parent / "imagesTr",
        "DESCRIPTION": summary.parent / "dataset.json",
    }
    assert said in run("report", *(known.get(word, word) for word in words), code=2)


def test_report_needs_no_torch(summary, tmp_path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None; from veloxseg.cli import app;"
        f"app(['report', {str(summary)!r}, '-o', {str(tmp_path / 'page.html')!r}],"
        "standalone_mode=False)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert (tmp_path / "page.html").is_file()
