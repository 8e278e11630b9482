"""What is said of a model, and the commands that say it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from veloxseg.bundle.format import Manifest
from veloxseg.bundle.reading import open_bundle
from veloxseg.cli import app
from veloxseg.models.carding import add_card
from veloxseg.models.describing import ReportedDice, model_card, reported_dice
from veloxseg.models.installing import bundle_hash


def _run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "120"})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def _manifest(**evaluation: Any) -> Manifest:
    return Manifest(
        format_version=1,
        name="liver",
        created="",
        files={},
        versions={},
        source="",
        num_parameters=1,
        multiply_adds=1,
        evaluation=evaluation,
    )


def test_the_dice_of_several_folds_is_the_mean_over_their_cases() -> None:
    folds = {
        "by": "someone",
        "fold_0": {"num_cases": 1, "mean_dice_mirrored": 0.9},
        "fold_1": {"num_cases": 3, "mean_dice_mirrored": 0.5},
    }
    found = reported_dice(_manifest(validation=folds))
    assert found is not None
    assert found.mean == pytest.approx(0.6)  # (0.9 + 3 * 0.5) / 4
    assert (found.num_cases, found.section) == (4, "validation")


def test_a_cross_validation_stands_before_a_validation_and_its_own_figure_before_its_folds() -> (
    None
):
    found = reported_dice(
        _manifest(
            validation={"fold_0": {"num_cases": 1, "mean_dice_mirrored": 0.9}},
            cross_validation={"mean_dice": 0.8, "fold_0": {"mean_dice": 0.1}},
        )
    )
    assert found == ReportedDice(mean=0.8, num_cases=None, section="cross_validation")


@pytest.mark.parametrize(
    "evaluation",
    [
        {},
        {"validation": "good"},
        {"validation": {"f": {}}},
        {"validation": {"mean_dice": 10**400}},
        {"validation": {"mean_dice": float("nan")}},
    ],
)
def test_without_a_figure_none_is_reported(evaluation: dict[str, Any]) -> None:
    assert reported_dice(_manifest(**evaluation)) is None


def test_a_card_says_what_the_manifest_and_the_pipeline_say(folder_bundle: Path) -> None:
    card = model_card(open_bundle(folder_bundle))
    for words in ("random weights", "liver 1, lesion 2", "CT, PET", bundle_hash(folder_bundle)):
        assert words in card


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_card_added_to_a_bundle_is_verified_and_printed_first(
    kind: str, folder_bundle: Path, zip_bundle: Path, tmp_path: Path
) -> None:
    source = {"folder": folder_bundle, "zip": zip_bundle}[kind]
    copy = tmp_path / source.name
    (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    figures = {"mean_dice": 0.91, "num_cases": 12}
    bundle = add_card(
        copy, "# Liver\n\nFails on ascites.", evaluation={"cross_validation": figures}
    )
    assert model_card(bundle).startswith("# Liver\n\nFails on ascites.\n\n# liver: facts")
    assert reported_dice(bundle.manifest) == ReportedDice(
        mean=0.91, num_cases=12, section="cross_validation"
    )
    assert set(bundle.manifest.files) == {*open_bundle(source).manifest.files, "model_card.md"}
    _run("models", "add", copy, "--name", "carded")
    assert "Fails on ascites." in _run("models", "show", "carded")


def test_a_card_cannot_rewrite_the_terminal(folder_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder_bundle, tmp_path / "evil.veloxseg")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["licence"] = "free\x1b[2J\x07[bold]"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    card = model_card(open_bundle(copy))
    assert "free[2J[bold]" in card
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", card)


def test_models_lists_nothing_at_first_and_says_how_to_add(installed: Path) -> None:
    printed = _run("models")
    assert "veloxseg models add FILE_OR_URL" in printed
    assert str(installed) in printed


def test_a_model_is_added_listed_shown_and_removed(folder_bundle: Path) -> None:
    assert "veloxseg predict -m mine" in _run("models", "add", folder_bundle, "--name", "mine")
    for printed in (_run("models"), _run("models", "list")):
        assert "mine" in printed
        assert "liver 1, lesion 2" in printed
        assert bundle_hash(folder_bundle)[:12] in printed
    assert "random weights" in _run("models", "show", "mine")
    assert "mean mine?" in _run("models", "show", "mind", code=2)
    assert "Removed" in _run("models", "remove", "mine")
    assert "No models yet" in _run("models")


def test_a_damaged_model_is_listed_as_such_beside_sound_ones(
    folder_bundle: Path, installed: Path
) -> None:
    _run("models", "add", folder_bundle, "--name", "sound")
    _run("models", "add", folder_bundle, "--name", "broken")
    (installed / "broken.veloxseg" / "model.onnx").write_bytes(b"")
    printed = _run("models")
    assert "damaged" in printed
    assert "liver 1, lesion 2" in printed
    _run("models", "remove", "broken")


def test_a_model_that_may_not_be_read_is_listed_as_such_beside_sound_ones(
    folder_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run("models", "add", folder_bundle, "--name", "sound")
    _run("models", "add", folder_bundle, "--name", "closed")
    opened = Path.open

    def denied(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.parent.name == "closed.veloxseg":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", denied)
    printed = _run("models")
    assert "cannot be read" in printed
    assert "Permission denied" in printed
    assert "liver 1, lesion 2" in printed


def test_the_same_bundle_again_is_not_said_to_be_written(folder_bundle: Path) -> None:
    for _ in range(2):
        printed = _run("models", "add", folder_bundle, "--name", "mine")
        assert "It lies in " in printed
        assert "Written" not in printed


def test_an_unknown_model_of_a_prediction_is_told_with_the_nearest(
    folder_bundle: Path, tmp_path: Path
) -> None:
    _run("models", "add", folder_bundle)
    words = ("predict", "-m", "livr", "-i", tmp_path, "-o", tmp_path / "masks")
    assert "mean liver?" in _run(*words, code=2)
    assert "mean liver?" in _run("benchmark", "-m", "livr", code=2)
