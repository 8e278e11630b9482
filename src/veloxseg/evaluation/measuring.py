"""All metrics of one mask against another, and the table that names them.

`veloxseg.evaluation.metrics` says what an empty mask means.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from veloxseg.evaluation.lesions import count_lesions
from veloxseg.evaluation.masks import crop_to_union, two_masks
from veloxseg.evaluation.metrics import confusion
from veloxseg.evaluation.surfaces import measure_surfaces


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric as tables and reports show it.

    Attributes:
        key: Its name in JSON and CSV.
        title: Its name for people, without the unit.
        unit: ``mm``, ``ml``, ``voxels``, or empty for a ratio or a count of lesions.
        places: Decimal places worth showing.
        better: Which values are better; ``neither`` where a value says nothing by itself.
    """

    key: str
    title: str
    unit: str = ""
    places: int = 3
    better: Literal["larger", "smaller", "neither"]

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title} {self.unit}".rstrip()


METRICS: Mapping[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(key="Dice", title="Dice", better="larger"),
        Metric(key="IoU", title="IoU", better="larger"),
        Metric(key="FP", title="False positives", unit="voxels", places=0, better="smaller"),
        Metric(key="TP", title="True positives", unit="voxels", places=0, better="larger"),
        Metric(key="FN", title="False negatives", unit="voxels", places=0, better="smaller"),
        Metric(key="TN", title="True negatives", unit="voxels", places=0, better="larger"),
        Metric(key="n_pred", title="Predicted", unit="voxels", places=0, better="neither"),
        Metric(key="n_ref", title="Reference", unit="voxels", places=0, better="neither"),
        Metric(key="precision", title="Precision", better="larger"),
        Metric(key="recall", title="Recall", better="larger"),
        Metric(key="HD95_mm", title="HD95", unit="mm", places=1, better="smaller"),
        Metric(key="ASSD_mm", title="ASSD", unit="mm", places=2, better="smaller"),
        Metric(key="NSD", title="NSD", better="larger"),
        Metric(key="volume_ml", title="Volume", unit="ml", places=2, better="neither"),
        Metric(
            key="reference_volume_ml",
            title="Reference volume",
            unit="ml",
            places=2,
            better="neither",
        ),
        Metric(key="volume_error_ml", title="Volume error", unit="ml", places=2, better="neither"),
        Metric(key="lesions", title="Lesions", places=0, better="neither"),
        Metric(key="reference_lesions", title="Reference lesions", places=0, better="neither"),
        Metric(key="lesion_precision", title="Lesion precision", better="larger"),
        Metric(key="lesion_recall", title="Lesion recall", better="larger"),
        Metric(key="lesion_F1", title="Lesion F1", better="larger"),
        Metric(
            key="false_positive_volume_ml",
            title="False positive volume",
            unit="ml",
            places=2,
            better="smaller",
        ),
        Metric(
            key="false_negative_volume_ml",
            title="False negative volume",
            unit="ml",
            places=2,
            better="smaller",
        ),
    )
}
"""Every metric of `measure`, by key and in its order."""


def measure(
    prediction: ArrayLike,
    reference: ArrayLike,
    spacing_zyx: Sequence[float],
    *,
    tolerance_mm: float = 1.0,
    counted: ArrayLike | None = None,
) -> dict[str, float]:
    """Measure how well a prediction agrees with a reference.

    Args:
        prediction: A mask (Z, Y, X); whatever is not 0 is in it.
        reference: A mask of the same shape.
        spacing_zyx: Distance between voxel centres in mm along each axis.
        tolerance_mm: How far apart two surfaces may be and still agree, for NSD.
        counted: A mask of the same shape: voxels outside it are taken out of both masks and
            counted nowhere, not as true negatives either. None counts every voxel.

    Returns:
        A value for each key of `METRICS`, in its order; NaN where undefined. Voxel and lesion
        counts are whole numbers.

    Raises:
        ValueError: the shapes differ or have not three axes, the spacing is not three positive
            numbers, or the tolerance is negative or NaN.
    """
    predicted, referred = two_masks(prediction, reference)
    _require_three_axes(predicted.shape, spacing_zyx)
    if not tolerance_mm >= 0:
        raise ValueError(f"A tolerance of at least 0 mm expected, got {tolerance_mm}.")
    num_counted = predicted.size
    if counted is not None:
        within, predicted = two_masks(counted, predicted)
        predicted, referred = predicted & within, referred & within
        num_counted = int(np.count_nonzero(within))
    predicted, referred = crop_to_union(predicted, referred)
    num_beyond = num_counted - predicted.size
    counts = confusion(predicted, referred)
    num_predicted = counts.true_positives + counts.false_positives
    num_referred = counts.true_positives + counts.false_negatives
    surfaces = measure_surfaces(predicted, referred, spacing_zyx)
    lesions = count_lesions(predicted, referred)
    voxel_ml = math.prod(map(float, spacing_zyx)) / 1000
    return {
        "Dice": counts.dice,
        "IoU": counts.iou,
        "FP": counts.false_positives,
        "TP": counts.true_positives,
        "FN": counts.false_negatives,
        "TN": counts.true_negatives + num_beyond,
        "n_pred": num_predicted,
        "n_ref": num_referred,
        "precision": counts.precision,
        "recall": counts.recall,
        "HD95_mm": surfaces.hausdorff_95_mm,
        "ASSD_mm": surfaces.average_mm,
        "NSD": surfaces.share_within(tolerance_mm),
        "volume_ml": num_predicted * voxel_ml,
        "reference_volume_ml": num_referred * voxel_ml,
        "volume_error_ml": (num_predicted - num_referred) * voxel_ml,
        "lesions": lesions.predicted,
        "reference_lesions": lesions.referred,
        "lesion_precision": lesions.precision,
        "lesion_recall": lesions.recall,
        "lesion_F1": lesions.f1,
        "false_positive_volume_ml": lesions.false_positive_voxels * voxel_ml,
        "false_negative_volume_ml": lesions.false_negative_voxels * voxel_ml,
    }


def _require_three_axes(shape: tuple[int, ...], spacing_zyx: Sequence[float]) -> None:
    if len(shape) != 3:
        raise ValueError(f"Masks of three axes (z, y, x) expected, got {len(shape)}: {shape}.")
    if len(spacing_zyx) != 3 or not all(0 < step < math.inf for step in spacing_zyx):
        raise ValueError(
            f"Spacing of three positive numbers in mm (z, y, x) expected, got {list(spacing_zyx)}."
        )
