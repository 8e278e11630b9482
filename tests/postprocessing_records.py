"""Records of a chosen postprocessing, for runs whose masks nobody has judged."""

from pathlib import Path

from veloxseg.atomic import write_json
from veloxseg.bundle.format import PostprocessingStep
from veloxseg.bundle.postprocessing import RECORD, PostprocessingRecord, hash_checkpoint
from veloxseg.training.runs import Run


def write_record(run: Run, *steps: PostprocessingStep, held_out_gain: float = 0.04) -> Path:
    """Write what was chosen for a run's folds and its checkpoints as they are."""
    record = PostprocessingRecord(
        steps=steps,
        folds=tuple(fold for fold in run.folds if isinstance(fold, int)),
        num_cases=10,
        checkpoints={str(fold): hash_checkpoint(run, fold) for fold in run.folds},
        groups="folds",
        dice_before={"mean": 0.8},
        dice_after={"mean": 0.85},
        held_out_gain=held_out_gain,
        margin=0.001,
        num_standard_errors=1.645,
        tried=(),
        skipped={},
        created="2026-01-01T00:00:00+00:00",
        versions={},
    )
    write_json(run.folder / RECORD, record.to_json())
    return run.folder / RECORD
