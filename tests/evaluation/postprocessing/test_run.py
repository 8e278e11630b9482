"""From a run's folder to its record, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from veloxseg.atomic import write_json
from veloxseg.bundle.postprocessing import find_postprocessing, read_record
from veloxseg.cli import app
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import BundleError, DatasetError
from veloxseg.evaluation.postprocessing import choice
from veloxseg.evaluation.postprocessing.choice import postprocess
from veloxseg.training.runs import find_run
from veloxseg.volumes.reading import read_volume, write_mask


def test_the_record_says_what_was_chosen_on_what(run: Path) -> None:
    told: list[tuple[int, int]] = []
    file = postprocess(run, progress=lambda done, total: told.append((done, total)))

    assert file == run / "postprocessing.json"
    record = read_record(file)
    (step,) = record.steps
    assert (step.kind, step.labels, step.minimum_ml) == ("minimum_volume", (1, 2), 0.0021)
    assert record.folds == (0, 1)
    assert record.num_cases == 10
    assert record.groups == "folds"
    assert set(record.checkpoints) == {"0", "1"}
    assert record.dice_before == pytest.approx(
        {"mean": (1 + 54 / 55) / 2, "organ": 54 / 55, "lesion": 1}
    )
    assert record.dice_after == pytest.approx({"mean": 1, "organ": 1, "lesion": 1})
    assert record.held_out_gain == pytest.approx(0.5 / 55)
    assert {"veloxseg", "numpy", "python"} == set(record.versions)
    assert told[9] == (10, 10)
    assert find_postprocessing(find_run(run)).steps == record.steps


def test_one_fold_is_chosen_for_by_groups_of_its_cases(run: Path) -> None:
    record = read_record(postprocess(run / "fold_1"))
    assert record.folds == (1,)
    assert record.num_cases == 5
    assert record.groups == "cases"
    assert len(record.steps) == 1


def test_a_dataset_is_looked_up_and_references_may_lie_elsewhere(run: Path, tmp_path: Path) -> None:
    workspace = Workspace.resolve(tmp_path)
    record = read_record(postprocess("100/0", workspace=workspace))
    assert record.folds == (0,)
    references = shutil.move(workspace.raw / "Dataset100_Tiny" / "labelsTr", tmp_path / "elsewhere")
    postprocess(run / "fold_0", references=Path(references))
    assert read_record(run / "postprocessing.json").steps == record.steps
    with pytest.raises(DatasetError, match=r"no such folder.*--references FOLDER"):
        postprocess(run / "fold_0")
    shutil.move(references, workspace.preprocessed / "Dataset100_Tiny" / "gt_segmentations")
    postprocess(run / "fold_0")
    assert read_record(run / "postprocessing.json").steps == record.steps


def test_a_validation_that_is_missing_or_saw_its_cases_is_refused(run: Path) -> None:
    (run / "fold_1" / "validation" / "summary.json").unlink()
    with pytest.raises(BundleError, match="validation is not finished"):
        postprocess(run)
    assert not (run / "postprocessing.json").exists()
    (run / "fold_0").rename(run / "fold_all")
    with pytest.raises(BundleError, match="trained on every case"):
        postprocess(run / "fold_all")


def test_a_finished_fold_whose_masks_are_gone_is_refused(run: Path) -> None:
    for mask in (run / "fold_1" / "validation").glob("*.nii.gz"):
        mask.unlink()
    with pytest.raises(BundleError, match=r"fold_1.validation: no masks.*--resume"):
        postprocess(run)
    assert not (run / "postprocessing.json").exists()


def test_a_checkpoint_that_changes_meanwhile_is_not_taken_for_the_one_judged(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_meanwhile(*args: Any, **options: Any) -> choice.Choice:
        (run / "fold_1" / "checkpoint_final.pth").write_bytes(b"trained again")
        return choose_steps(*args, **options)

    choose_steps = choice.choose_steps
    monkeypatch.setattr(choice, "choose_steps", train_meanwhile)
    postprocess(run)
    with pytest.raises(BundleError, match="other checkpoints of fold 1"):
        find_postprocessing(find_run(run))


def test_a_mask_without_reference_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "nnUNet_raw" / "Dataset100_Tiny" / "labelsTr" / "case_3.nii.gz").unlink()
    with pytest.raises(DatasetError, match="no reference for case case_3"):
        postprocess(run)


def test_a_case_in_two_folds_is_refused_and_one_of_them_can_be_chosen(run: Path) -> None:
    masks = run / "fold_0" / "validation", run / "fold_1" / "validation"
    shutil.copy(masks[0] / "case_0.nii.gz", masks[1] / "case_0.nii.gz")
    with pytest.raises(DatasetError, match=r"case_0 has a mask in fold_0 and in fold_1.*fold_1$"):
        postprocess(run)
    assert read_record(postprocess(run / "fold_0")).num_cases == 5


def test_masks_beside_the_folds_are_not_those_of_the_validation(run: Path) -> None:
    shutil.copy(run / "fold_0" / "validation" / "case_0.nii.gz", run / "case_0.nii.gz")
    assert read_record(postprocess(run)).num_cases == 10


def test_the_command_says_in_80_columns_what_was_tried_and_shows_no_empty_table(run: Path) -> None:
    description = json.loads((run / "dataset.json").read_text())
    description["labels"] = {"background": 0, "organ_of_the_left_side": 1, "lesion_in_the_organ": 2}
    write_json(run / "dataset.json", description)
    words = ["postprocess", str(run), "--num-workers", "1"]
    table = CliRunner().invoke(app, words, env={"COLUMNS": "80"}).output
    assert all(len(line) <= 80 for line in table.splitlines() if "±" in line)
    assert "…" not in table
    for file in run.parents[2].glob("nnUNet_raw/*/labelsTr/*"):
        reference = read_volume(file)
        write_mask(file, np.zeros_like(reference.data), reference.grid)
    output = CliRunner().invoke(app, words, env={"COLUMNS": "80"}).output
    assert "components of" not in output
    assert "Not tried: whole foreground: no case's reference has any" in output


def test_the_command_shows_what_was_tried(run: Path, tmp_path: Path) -> None:
    words = ["postprocess", "100", "--root", str(tmp_path), "--num-workers", "1"]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "from 0.0021 ml" in done.output
    assert "+0.0091 ± 0.0000  10/0   10 (0)" in done.output
    assert "Postprocessing: remove components of labels 1, 2 below 0.0021 ml" in done.output
    assert "Mean Dice: 0.9909 without, 1.0000 with; on held-out folds +0.0091" in done.output
    assert f"Written: {run / 'postprocessing.json'}" in done.output
    (run / "fold_0" / "checkpoint_final.pth").unlink()
    assert "no trained fold 0" in CliRunner().invoke(app, [*words[:1], "100/0", *words[2:]]).output


def test_a_dataset_without_a_place_to_look_it_up_is_told_how_to_name_one(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(app, ["postprocess", "100"])
    assert done.exit_code == 2
    assert "Give --root DIR" in done.output
    words = ["postprocess", str(run), "--num-workers", "1"]
    assert CliRunner().invoke(app, words).exit_code == 0  # a folder needs none


def test_choosing_needs_no_more_than_prediction(run: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from veloxseg.evaluation.postprocessing.choice import postprocess;"
        f"postprocess(Path({str(run)!r}));"
        "assert not {'torch', 'scipy.ndimage', 'SimpleITK'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert json.loads((run / "postprocessing.json").read_text())["steps"]
