import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dicom_files import write_series
from veloxseg.cli import app
from veloxseg.datasets.workspace import Workspace


@pytest.fixture
def source(tmp_path: Path) -> Path:
    stored = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    write_series(tmp_path / "source", stored)
    (tmp_path / "source" / "read me.txt").write_text("hello")
    return tmp_path / "source"


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["convert", "dicom", *(str(word) for word in words)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_convert_dicom_takes_rules_in_words_or_from_a_file(source: Path, tmp_path: Path) -> None:
    output = run(
        source, "Dataset100_A", "--channel", "CT=modality:CT", "--root", tmp_path / "words"
    )
    assert "7 files: 1 studies with 1 series" in output
    assert "Passed over: 1 not DICOM" in output
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"channels": {"CT": {"modality": "CT"}}}))
    run(source, "Dataset100_A", "--rules", rules, "--root", tmp_path / "file")
    images = [
        Workspace.resolve(tmp_path / name).raw / "Dataset100_A/imagesTs/P1_20240229_0000.nii.gz"
        for name in ("words", "file")
    ]
    assert images[0].read_bytes() == images[1].read_bytes()


def test_rules_given_twice_or_nowhere_are_an_error(source: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text("{}")
    assert "given nowhere" in run(source, "Dataset100_A", "--root", tmp_path, code=2)
    words = ["--channel", "CT=modality:CT", "--rules", rules, "--root", tmp_path]
    assert "given twice" in run(source, "Dataset100_A", *words, code=2)


def test_an_error_is_told_without_a_traceback(source: Path, tmp_path: Path) -> None:
    words = ["--channel", "PET=modality:PT", "--root", tmp_path / "root"]
    output = run(source, "Dataset100_A", *words, code=2)
    assert "Case P1_20240229: PET: no series matches" in output
    assert "Traceback" not in output


def test_the_key_of_patients_may_come_from_the_environment(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VELOXSEG_PATIENT_KEY", "secret")
    run(source, "Dataset100_A", "--channel", "CT=modality:CT", "--root", tmp_path / "root")
    folder = Workspace.resolve(tmp_path / "root").raw / "Dataset100_A"
    assert not list(folder.rglob("P1*"))
    assert len(list((folder / "imagesTs").iterdir())) == 1
