import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from veloxseg.demos.phantoms import run_demo
from veloxseg.errors import VeloxSegError


class _ReachedError(Exception):
    """The demo began to generate."""


@pytest.fixture(autouse=True)
def _stop_at_the_first_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise _ReachedError

    monkeypatch.setattr("veloxseg.demos.phantoms.generate_phantoms", stop)


def _begin(output: Path, **settings: Any) -> None:
    with pytest.raises(_ReachedError):
        run_demo(output, console=Console(quiet=True), **settings)


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(VeloxSegError, match="neither an empty folder"):
        run_demo(tmp_path, console=Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ['{"se', '["x"]', '{"name": "mine"}', '{"seed": 0}'])
def test_a_folder_with_another_programs_demo_json_is_refused_and_left_alone(
    content: str, tmp_path: Path
) -> None:
    (tmp_path / "demo.json").write_text(content)
    (tmp_path / "predictions").mkdir()
    with pytest.raises(VeloxSegError, match="nor an earlier demo's"):
        run_demo(tmp_path, console=Console(quiet=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.json", "predictions"]
    assert (tmp_path / "demo.json").read_text() == content


def test_a_file_in_the_outputs_place_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(VeloxSegError, match=r"thesis\.txt: neither an empty folder"):
        run_demo(tmp_path / "thesis.txt", console=Console(quiet=True))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_with_other_settings_no_training_of_the_users_is_deleted(tmp_path: Path) -> None:
    _begin(tmp_path / "demo")
    run = tmp_path / "demo/nnUNet_results/Dataset901_Phantoms"
    run /= "VeloxSegTrainer__VeloxSegPlans__3d_fullres"
    (run / "fold_0").mkdir(parents=True)
    _begin(tmp_path / "demo", minutes=1.0)
    assert not run.exists()
    (run / "fold_1").mkdir(parents=True)
    with pytest.raises(VeloxSegError, match="fold_1: a training that the demo did not make"):
        _begin(tmp_path / "demo", minutes=2.0)
    assert (run / "fold_1").is_dir()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"seed": -1}, "--seed is -1: expected 0 or more"),
        ({"minutes": 0.0}, "--minutes is 0: expected a positive"),
        ({"minutes": float("nan")}, "--minutes is nan"),
        ({"minutes": float("inf")}, "--minutes is inf"),
    ],
)
def test_a_setting_out_of_range_is_refused_before_anything_is_written(
    settings: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(VeloxSegError, match=told):
        run_demo(tmp_path / "demo", console=Console(quiet=True), **settings)
    assert not (tmp_path / "demo").exists()


def test_a_printed_command_is_one_that_a_shell_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise _ReachedError

    monkeypatch.setattr("veloxseg.demos.phantoms.generate_phantoms", lambda *_, **__: None)
    monkeypatch.setattr("veloxseg.demos.phantoms.convert_folder", stop)
    told = Console(record=True, width=1000)
    output = tmp_path / "my scans"
    with pytest.raises(_ReachedError):
        run_demo(output, console=told)
    words = shlex.split(told.export_text().split("veloxseg ")[-1])
    assert words[:3] == ["convert", "folder", str(output / "phantoms" / "train")]
    assert words[-2:] == ["--root", str(output)]


def test_the_demo_again_keeps_what_it_made(tmp_path: Path) -> None:
    _begin(tmp_path / "demo", seed=1)
    result = tmp_path / "demo" / "nnUNet_results" / "Dataset901_Phantoms" / "kept"
    result.mkdir(parents=True)
    _begin(tmp_path / "demo", seed=1)
    assert result.is_dir()


def test_the_demo_with_another_seed_replaces_what_it_made_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    _begin(output, seed=1)
    made = [
        output / "nnUNet_results" / "Dataset901_Phantoms",
        output / "nnUNet_raw" / "Dataset902_UnseenPhantoms",
        output / "phantoms",
        output / "predictions",
    ]
    others = [output / "nnUNet_raw" / "Dataset100_Mine", output / "notes"]
    for folder in (*made, *others):
        folder.mkdir(parents=True)
    _begin(output, seed=2)
    assert not any(folder.exists() for folder in made)
    assert all(folder.is_dir() for folder in others)
    assert json.loads((output / "demo.json").read_text())["seed"] == 2
