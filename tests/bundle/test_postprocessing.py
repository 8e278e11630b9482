"""A chosen postprocessing on its way into a bundle."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from postprocessing_records import write_record
from veloxseg.bundle.format import Normalisation, Pipeline, PostprocessingStep
from veloxseg.bundle.pipeline import with_postprocessing
from veloxseg.bundle.postprocessing import find_postprocessing
from veloxseg.errors import BundleError
from veloxseg.training.runs import Run

LARGEST = PostprocessingStep(kind="keep_largest", labels=(1, 2))
SMALLEST = PostprocessingStep(kind="minimum_volume", labels=(2,), minimum_ml=0.5)
PIPELINE = Pipeline(
    channels=("CT",),
    labels={"background": 0, "liver": 1, "lesion": 2},
    spacing=(3.0, 1.0, 1.0),
    normalisation=(Normalisation(scheme="z_score"),),
    patch_size=(8, 8, 8),
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    for fold in (0, 1):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(bytes([fold]))
    return Run(folder=tmp_path, folds=(0, 1))


def test_steps_make_a_pipeline_of_format_3_that_reads_as_it_was_written() -> None:
    pipeline = with_postprocessing(PIPELINE, (LARGEST, SMALLEST))
    assert pipeline.format_version == 3
    content = json.loads(pipeline.model_dump_json())
    assert content["postprocessing"] == [
        {"kind": "keep_largest", "labels": [1, 2]},
        {"kind": "minimum_volume", "labels": [2], "minimum_ml": 0.5},
    ]
    assert Pipeline.model_validate(content) == pipeline


def test_a_pipeline_without_steps_is_written_as_before() -> None:
    pipeline = with_postprocessing(PIPELINE, ())
    assert pipeline == PIPELINE
    assert pipeline.format_version == 1
    assert "postprocessing" not in pipeline.model_dump(mode="json")
    assert "postprocessing" not in pipeline.model_dump_json()


def test_a_step_on_values_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(BundleError, match=r"postprocessing names \[3\]"):
        with_postprocessing(PIPELINE, (LARGEST.model_copy(update={"labels": (1, 3)}),))


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "minimum_volume", "labels": [1]},
        {"kind": "minimum_volume", "labels": [1], "minimum_ml": 0},
        {"kind": "minimum_volume", "labels": [1], "minimum_ml": float("nan")},
        {"kind": "keep_largest", "labels": [1], "minimum_ml": 1},
        {"kind": "keep_largest", "labels": []},
        {"kind": "fill_holes", "labels": [1]},
        {"kind": "keep_largest", "labels": [1], "connectivity": 6},
    ],
)
def test_a_step_that_says_something_else_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PostprocessingStep.model_validate(content)


def test_a_record_of_these_folds_and_checkpoints_is_taken_up(run: Run) -> None:
    write_record(run, LARGEST, SMALLEST)
    found = find_postprocessing(run)
    assert found.steps == (LARGEST, SMALLEST)
    assert "keep the largest component of labels 1, 2; remove components of label 2 below" in (
        found.note
    )
    assert "+0.0400 on held-out" in found.note


def test_without_a_record_or_for_other_folds_it_is_said_how_to_make_one(run: Run) -> None:
    assert "veloxseg postprocess RUN" in find_postprocessing(run).note
    write_record(run, LARGEST, SMALLEST)
    found = find_postprocessing(Run(folder=run.folder, folds=(0,)))
    assert found.steps == ()
    assert "chosen on folds 0, 1, exported are 0. Choose it for these" in found.note


def test_a_record_in_which_nothing_gained_says_so(run: Run) -> None:
    write_record(run)
    assert "no step gained enough on 10 validation cases" in find_postprocessing(run).note


def test_a_record_of_other_checkpoints_is_refused(run: Run) -> None:
    write_record(run, LARGEST, SMALLEST)
    (run.folder / "fold_1" / "checkpoint_final.pth").write_bytes(b"trained again")
    with pytest.raises(BundleError, match=r"other checkpoints of fold 1.*--no-postprocessing"):
        find_postprocessing(run)


def test_a_record_with_unknown_keys_is_refused(run: Run) -> None:
    path = write_record(run, LARGEST, SMALLEST)
    path.write_text(path.read_text().replace("{", '{"future": 1,', 1))
    with pytest.raises(BundleError, match=r"no record of a postprocessing \(future: unknown key"):
        find_postprocessing(run)
