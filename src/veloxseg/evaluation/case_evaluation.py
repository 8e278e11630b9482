"""One case: both masks read, brought onto one grid where asked, and measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from veloxseg.errors import GeometryError
from veloxseg.evaluation.label_set import Label, mask_of, members, read_mask, require_known
from veloxseg.evaluation.measuring import measure
from veloxseg.evaluation.pairing import MaskPair
from veloxseg.evaluation.records import CaseRecord, record_of, write_record
from veloxseg.evaluation.results import CaseResult
from veloxseg.evaluation.spreading import spread
from veloxseg.volumes.volume import Volume, describe_grid, same_grid


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What a case's figures depend on beside its masks.

    Attributes:
        labels: The labels and regions to evaluate.
        ignore_label: Reference value whose voxels count for nothing; None where there is none.
        tolerance_mm: Of the normalised surface Dice.
        resample: Bring predictions on other grids onto their references' grids.
    """

    labels: tuple[Label, ...]
    ignore_label: int | None
    tolerance_mm: float
    resample: bool


@dataclass(frozen=True, kw_only=True)
class EvaluateCase:
    """Evaluates a case, and keeps its figures for the next run.

    Attributes:
        settings: How.
        records: Folder to keep figures in; None keeps none.
    """

    settings: EvaluationSettings
    records: Path | None

    def __call__(self, pair: MaskPair) -> CaseResult:
        """Measure a case.

        Raises:
            DatasetError: a mask holds a value that is no label.
            GeometryError: the grids differ, and resampling was not asked for.
            ImageReadError: a mask cannot be read.
        """
        record = None
        if self.records is not None:  # before reading: a mask that changes meanwhile is read anew
            record = record_of(self.records, pair, asdict(self.settings))
        result = evaluate_pair(pair, self.settings)
        if record is not None:
            write_record(record, result.metrics, resampled=result.resampled)
        return result

    def recall(self, pair: MaskPair) -> CaseResult | None:
        """What an earlier run found; None if there is nothing, or a file or a setting changed."""
        if self.records is None:
            return None
        found = CaseRecord.read(record_of(self.records, pair, asdict(self.settings)))
        if found is None:
            return None
        return _result(pair, found.metrics_of(self.settings.labels), resampled=found.resampled)


def evaluate_cases(
    pairs: Sequence[MaskPair],
    settings: EvaluationSettings,
    *,
    records: Path | None,
    num_workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[CaseResult]:
    """Evaluate every case that no record tells of.

    Args:
        pairs: The cases.
        settings: How.
        records: Folder to keep figures in; None keeps none.
        num_workers: Processes at most.
        progress: Called after each case with the number done, those on record included, and the
            number of all.

    Returns:
        The results, in the order of ``pairs``. Errors are those of `EvaluateCase`.
    """
    evaluate = EvaluateCase(settings=settings, records=records)
    results = {place: evaluate.recall(pair) for place, pair in enumerate(pairs)}
    waiting = [place for place, result in results.items() if result is None]
    num_done = len(pairs) - len(waiting)
    if progress is not None and num_done:
        progress(num_done, len(pairs))
    found = spread(
        evaluate,
        [pairs[place] for place in waiting],
        num_workers=num_workers,
        progress=None if progress is None else lambda n, _: progress(num_done + n, len(pairs)),
    )
    results |= zip(waiting, found, strict=True)
    return [result for result in results.values() if result is not None]


def evaluate_pair(pair: MaskPair, settings: EvaluationSettings) -> CaseResult:
    """Measure every label of a case; raises as `EvaluateCase` says."""
    predicted = read_mask(pair.name, pair.prediction)
    referred = read_mask(pair.name, pair.reference)
    resampled = not same_grid(predicted, referred)
    if resampled:
        predicted = _on_grid_of(referred, predicted, pair, resample=settings.resample)
    values = {0}.union(*(members(label) for label in settings.labels))
    require_known(pair.name, pair.prediction, predicted.data, values)
    counted = None
    if settings.ignore_label is not None:
        values |= {settings.ignore_label}
        counted = referred.data != settings.ignore_label
    require_known(pair.name, pair.reference, referred.data, values)
    metrics = {
        label: measure(
            mask_of(predicted.data, label),
            mask_of(referred.data, label),
            referred.spacing_zyx,
            tolerance_mm=settings.tolerance_mm,
            counted=counted,
        )
        for label in settings.labels
    }
    return _result(pair, metrics, resampled=resampled)


def _result(
    pair: MaskPair, metrics: Mapping[Label, dict[str, float]], *, resampled: bool
) -> CaseResult:
    return CaseResult(
        name=pair.name,
        prediction_file=pair.prediction,
        reference_file=pair.reference,
        metrics=metrics,
        fold=pair.fold,
        resampled=resampled,
    )


def _on_grid_of(reference: Volume, predicted: Volume, pair: MaskPair, *, resample: bool) -> Volume:
    if not resample:
        raise GeometryError(
            f"Case {pair.name}: the prediction ({pair.prediction}) has {describe_grid(predicted)}; "
            f"the reference ({pair.reference}) has {describe_grid(reference)}. Both must share one "
            "grid: predict on the image that the reference was drawn on, or have the prediction "
            "looked up at the reference's voxels: --resample."
        )
    from veloxseg.volumes.resampling import resample as look_up

    return look_up(predicted, reference.grid, interpolation="nearest", fill=0)
