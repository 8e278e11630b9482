import json
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
    with pytest.raises(VeloxSegError, match="not empty"):
        run_demo(tmp_path, console=Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


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
