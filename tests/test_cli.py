import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from veloxseg import __version__
from veloxseg.cli import app
from veloxseg.installation import extension_folder, inspect_installation
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

_NOT_IMPORTED = """
import sys
from veloxseg.cli import app
try:
    app({arguments!r})
except SystemExit as end:
    assert end.code in (0, None), end.code
found = {{"torch", "nnunetv2", "matplotlib"}} & set(sys.modules)
assert not found, found
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five cases of one channel and a label on one grid."""
    folder = tmp_path / "source"
    for index in range(5):
        image = np.random.default_rng(index).normal(size=(6, 7, 8)).astype(np.float32)
        mask = (image > 1).astype(np.uint8)
        for name, data in (("MR", image), ("tumour", mask)):
            path = folder / f"case_{index}" / f"{name}.nii.gz"
            write_volume(path, Volume(data=data, spacing_zyx=(2.0, 1.0, 1.0)))
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "root"


def _convert_words(source: Path, root: Path) -> list[str]:
    return [
        "convert", "folder", str(source), "Dataset100_Tiny", "--channel", "MR={case}/MR.nii.gz",
        "--label", "{case}/tumour.nii.gz", "--labels", "tumour=1", "--root", str(root),
    ]  # fmt: skip


def _run(*words: object, code: int = 0) -> str:
    """Standard output and error of a command that ends with ``code``."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture
def dataset(source: Path, root: Path) -> Path:
    _run(*_convert_words(source, root))
    return root / "nnUNet_raw" / "Dataset100_Tiny"


def test_convert_folder_writes_a_dataset_that_check_finds_nothing_wrong_with(
    dataset: Path, root: Path, tmp_path: Path
) -> None:
    description = json.loads((dataset / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "tumour": 1}
    assert description["channel_names"] == {"0": "MR"}
    report = tmp_path / "report.json"
    assert "5 cases, 0 errors" in _run("check", "100", "--root", root, "-o", report)
    assert json.loads(report.read_text())["problems"] == []


def test_a_dataset_is_found_by_the_short_name_that_convert_takes(source: Path, root: Path) -> None:
    words = _convert_words(source, root)
    _run(*["100_Tiny" if word == "Dataset100_Tiny" else word for word in words])
    assert "0 errors" in _run("check", "100_Tiny", "--root", root)


def test_check_lists_errors_and_exits_with_2(dataset: Path, root: Path) -> None:
    (dataset / "labelsTr" / "case_1.nii.gz").unlink()
    output = _run("check", "100", "--root", root, code=2)
    assert "case_1" in output
    assert "1 error," in output


def test_folders_may_be_named_by_nnunets_variables(
    source: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(root / name))
    _run(*_convert_words(source, root)[:-2])
    assert (root / "nnUNet_raw" / "Dataset100_Tiny" / "dataset.json").is_file()


def test_without_root_and_variables_an_error_names_both(source: Path, root: Path) -> None:
    output = _run(*_convert_words(source, root)[:-2], code=2)
    assert "--root" in output
    assert "nnUNet_raw" in output


def test_labels_may_be_repeated_or_separated_by_commas(source: Path, tmp_path: Path) -> None:
    for number, labels in enumerate((["--labels", "a=1,b=2"], ["--labels", "a=1", "--labels=b=2"])):
        root = tmp_path / str(number)
        words = [word for word in _convert_words(source, root) if word not in ("--labels",)]
        words.remove("tumour=1")
        _run(*words, *labels)
        description = json.loads(
            (root / "nnUNet_raw" / "Dataset100_Tiny" / "dataset.json").read_text()
        )
        assert description["labels"] == {"background": 0, "a": 1, "b": 2}


@pytest.mark.parametrize("channel", ["MR", "=x", "MR="])
def test_a_channel_without_name_or_pattern_is_refused(
    channel: str, source: Path, root: Path
) -> None:
    output = _run(
        "convert", "folder", source, "100_Tiny", "--channel", channel, "--root", root, code=2
    )
    assert "NAME=PATTERN" in output


@pytest.mark.parametrize("labels", ["tumour", "tumour=one", "=1", "a=1,a=2", "a=1,b=1"])
def test_labels_without_name_or_value_are_refused(labels: str, source: Path, root: Path) -> None:
    words = [labels if word == "tumour=1" else word for word in _convert_words(source, root)]
    assert "NAME=VALUE" in _run(*words, code=2)


def test_a_dataset_number_taken_twice_is_refused(dataset: Path, root: Path) -> None:
    (root / "nnUNet_results" / "Dataset100_Other").mkdir(parents=True)
    assert "taken twice" in _run("check", "100", "--root", root, code=2)


def test_evaluate_prints_a_table_and_writes_nnunets_keys(dataset: Path, tmp_path: Path) -> None:
    labels = dataset / "labelsTr"
    figures = tmp_path / "summary.json"
    output = _run("evaluate", labels, labels, "-o", figures)
    assert "tumour" in output
    assert "1.000" in output
    summary = json.loads(figures.read_text())
    assert summary["foreground_mean"]["Dice"] == 1.0
    assert len(summary["metric_per_case"]) == 5


def test_evaluate_takes_the_labels_names_from_the_command_line(
    dataset: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "masks"
    shutil.copytree(dataset / "labelsTr", labels)
    words = ["evaluate", labels, labels, "-o", tmp_path / "summary.json"]
    for names in (["--labels", "lesion=1,node=2"], ["--labels", "lesion=1", "--labels", "node=2"]):
        assert "lesion" in _run(*words, *names)
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert summary["label_names"] == {"1": "lesion", "2": "node"}
    assert "--labels NAME=VALUE" in _run(*words, "--labels", "node=2", code=2)
    assert "NAME=VALUE" in _run(*words, "--labels", "lesion", code=2)


def test_an_error_keeps_square_brackets_of_a_path(root: Path) -> None:
    output = _run("evaluate", root / "[bold]pred[/bold]", root, code=2)
    assert "[bold]pred[/bold]" in output


def test_debug_shows_where_an_error_arose(root: Path) -> None:
    result = CliRunner().invoke(app, ["check", "100", "--root", str(root), "--debug"])
    assert result.exit_code == 2
    assert "Traceback" in result.output
    assert "workspace.py" in result.output


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take no such name")
def test_a_file_name_of_any_bytes_is_printed(dataset: Path, root: Path) -> None:
    (dataset / "imagesTr" / os.fsdecode(b"\xff.nii.gz")).touch()
    program = [sys.executable, "-c", "from veloxseg.cli import main; main()"]
    done = subprocess.run(
        [*program, "check", dataset.name, "--root", str(root)],
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict", "COLUMNS": "200"},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 2, done.stderr
    assert "\\udcff.nii.gz" in done.stdout


def test_a_full_disk_is_said_in_words(
    dataset: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    output = _run("check", "100", "--root", root, "-o", tmp_path / "report.json", code=2)
    assert "the disk is full" in output
    assert not (tmp_path / "report.json").exists()


def test_ctrl_c_says_how_to_go_on_and_exits_with_130(
    dataset: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("veloxseg.datasets.check.check_dataset", interrupted)
    monkeypatch.setattr(sys, "argv", ["veloxseg", "check", "100"])
    assert "Go on with: veloxseg check 100" in _run("check", "100", "--root", root, code=130)


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "7"],
        ["preprocess", "7"],
        ["train", "7", "0"],
        ["run", "7"],
        ["export", "7", "x.veloxseg"],
    ],
)
def test_without_torch_a_command_says_what_to_install(
    words: list[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veloxseg.installation.find_spec", lambda _: None)
    assert 'pip install "veloxseg[train]"' in _run(*words, "--root", root, code=2)


def test_info_shows_versions_and_the_path_for_nnunet() -> None:
    output = _run("info")
    assert __version__ in output
    assert str(extension_folder()) in output.replace("\n", "")


def test_info_nnunet_path_prints_that_folder_alone() -> None:
    printed = _run("info", "--nnunet-path")
    assert printed == f"{extension_folder()}\n"
    assert Path(printed.strip()).is_absolute()
    assert (extension_folder() / "veloxseg_trainer.py").is_file()


def test_an_installation_without_torch_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("veloxseg.installation.find_spec", lambda _: None)
    installation = inspect_installation()
    assert installation.devices == {}
    assert installation.num_threads is None
    assert installation.num_cores >= 1


def test_version() -> None:
    assert _run("--version").strip() == __version__


_PLAIN_INSTALL = """
import sys
for name in ("torch", "nnunetv2", "SimpleITK", "scipy", "matplotlib", "safetensors", "onnx"):
    sys.modules[name] = None
from veloxseg.cli import main
sys.argv = ["veloxseg", *{arguments!r}]
main()
"""


@pytest.mark.parametrize(
    ("arguments", "missing", "install"),
    [
        (["check", "100"], "SimpleITK", "veloxseg[images]"),
        (["convert", "folder", "x", "y", "--channel", "CT=*"], "SimpleITK", "veloxseg[images]"),
        (["convert", "msd", "x"], "SimpleITK", "veloxseg[images]"),
        (["evaluate", "x", "y"], "scipy", "veloxseg[evaluation]"),
        (["report", "x.json"], "scipy", "veloxseg[evaluation]"),
        (["plan", "100"], "torch, nnunetv2, SimpleITK, scipy", "veloxseg[train]"),
        (["preprocess", "100"], "torch", "veloxseg[train]"),
        (["train", "100", "0"], "torch", "veloxseg[train]"),
        (["run", "100"], "torch", "veloxseg[train]"),
        (["demo"], "torch", "veloxseg[train]"),
    ],
)
def test_on_a_plain_install_a_command_says_what_to_install(
    arguments: list[str], missing: str, install: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN_INSTALL.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, said
    assert f"This needs {missing}" in said
    assert install in said
    assert "Traceback" not in said


@pytest.mark.parametrize("arguments", [["--help"], ["info"], ["predict", "--help"]])
def test_on_a_plain_install_help_and_info_work(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN_INSTALL.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_light_commands_never_import_torch_nnunet_or_matplotlib(
    dataset: Path, source: Path, root: Path
) -> None:
    labels = str(dataset / "labelsTr")
    for arguments in (
        ["--help"],
        ["train", "--help"],
        _convert_words(source, root),
        ["check", "100", "--root", str(root)],
        ["evaluate", labels, labels],
        ["info", "--nnunet-path"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", _NOT_IMPORTED.format(arguments=arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
