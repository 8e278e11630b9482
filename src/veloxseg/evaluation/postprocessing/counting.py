"""A case's voxels, counted by component, so that any choice of components has a Dice at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import PostprocessingStep
from veloxseg.errors import GeometryError
from veloxseg.evaluation.label_set import Label, mask_of, members, read_mask, require_known
from veloxseg.evaluation.pairing import MaskPair
from veloxseg.runtime.components import BoolArray, find_components
from veloxseg.runtime.postprocessing import components_kept, postprocess_mask, voxel_volume_ml
from veloxseg.volumes.volume import Volume, describe_grid, same_grid

_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Labels whose components are looked at together.

    Attributes:
        name: Of the label or region, or ``whole foreground``.
        values: Of the mask.
        judged: Labels, by their place, whose mean Dice must gain.
    """

    name: str
    values: tuple[int, ...]
    judged: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetCounts:
    """The components of a target in one predicted mask; L labels, K components.

    Attributes:
        sizes: (K) voxels.
        is_true: (K) whether it has a voxel of the target's reference.
        predicted: (L, K) voxels of each label in each component.
        correct: (L, K) those of them that the reference has as well.
        lesions_ml: Volumes of the components of the reference.
    """

    sizes: _Integers
    is_true: BoolArray
    predicted: _Integers
    correct: _Integers
    lesions_ml: npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseCounts:
    """One case; L labels.

    Attributes:
        voxel_ml: Volume of a voxel.
        predicted: (L) voxels of each label.
        correct: (L) those of them that the reference has as well.
        referred: (L) voxels of the reference.
        targets: Components of each target, in their order.
    """

    voxel_ml: float
    predicted: _Integers
    correct: _Integers
    referred: _Integers
    targets: tuple[TargetCounts, ...]

    @property
    def dice(self) -> npt.NDArray[np.float64]:
        """(L) Dice of each label as the mask is."""
        return _dice(self.predicted, self.correct, self.referred)

    def kept(self, target: int, step: PostprocessingStep) -> BoolArray:
        """(K) which components of a target a step keeps."""
        return components_kept(self.targets[target].sizes, step, voxel_ml=self.voxel_ml)

    def dice_after(self, target: int, step: PostprocessingStep) -> npt.NDArray[np.float64]:
        """(L) Dice of each label after a step on a target."""
        counts, removed = self.targets[target], ~self.kept(target, step)
        return _dice(
            self.predicted - counts.predicted[:, removed].sum(axis=1),
            self.correct - counts.correct[:, removed].sum(axis=1),
            self.referred,
        )


@dataclass(frozen=True, kw_only=True)
class CountCase:
    """Counts a case; other processes can be handed it.

    Attributes:
        labels: Labels and regions that Dice is about.
        targets: Whose components to count.
        ignore_label: Reference value whose voxels count for nothing; None where there is none.
        steps: Taken before.
    """

    labels: tuple[Label, ...]
    targets: tuple[Target, ...]
    ignore_label: int | None = None
    steps: tuple[PostprocessingStep, ...] = ()

    def __call__(self, pair: MaskPair) -> CaseCounts:
        """Read both masks and count.

        Raises:
            DatasetError: a mask holds a value that is no label.
            GeometryError: the grids differ.
            ImageReadError: a mask cannot be read.
        """
        predicted, referred = self._read(pair)
        mask = postprocess_mask(predicted.data, self.steps, spacing_zyx=referred.spacing_zyx)
        counted = np.ones(mask.shape, np.bool_)
        if self.ignore_label is not None:
            counted = referred.data != self.ignore_label
        masks = _Masks(mask=mask, reference=referred.data, counted=counted)
        voxel_ml = voxel_volume_ml(referred.spacing_zyx)
        sums = [[np.count_nonzero(one) for one in masks.of(label)] for label in self.labels]
        predicted_sums, correct_sums, referred_sums = np.array(sums, np.int64).T
        return CaseCounts(
            voxel_ml=voxel_ml,
            predicted=predicted_sums,
            correct=correct_sums,
            referred=referred_sums,
            targets=tuple(
                _count_target(target, masks, self.labels, voxel_ml) for target in self.targets
            ),
        )

    def _read(self, pair: MaskPair) -> tuple[Volume, Volume]:
        predicted = read_mask(pair.name, pair.prediction)
        referred = read_mask(pair.name, pair.reference)
        if not same_grid(predicted, referred):
            raise GeometryError(
                f"Case {pair.name}: the prediction ({pair.prediction}) has "
                f"{describe_grid(predicted)}; the reference ({pair.reference}) has "
                f"{describe_grid(referred)}. Both must share one grid: validate the fold again, or "
                "give the references it was trained on: --references."
            )
        values = {0}.union(*(members(label) for label in self.labels))
        require_known(pair.name, pair.prediction, predicted.data, values)
        ignored = set() if self.ignore_label is None else {self.ignore_label}
        require_known(pair.name, pair.reference, referred.data, values | ignored)
        return predicted, referred


@dataclass(frozen=True, kw_only=True, eq=False)
class _Masks:
    """Both masks of a case; a label's voxels are made when asked for: of all they take gigabytes.

    Attributes:
        mask: (Z, Y, X) predicted labels.
        reference: (Z, Y, X) labels.
        counted: (Z, Y, X) whether a voxel counts.
    """

    mask: npt.NDArray[np.integer]
    reference: npt.NDArray[np.integer]
    counted: BoolArray

    def of(self, label: Label) -> tuple[BoolArray, BoolArray, BoolArray]:
        """Where a label is predicted, correctly predicted, and in the reference."""
        predicted = mask_of(self.mask, label) & self.counted
        referred = mask_of(self.reference, label) & self.counted
        return predicted, predicted & referred, referred


def _count_target(
    target: Target, masks: _Masks, labels: Sequence[Label], voxel_ml: float
) -> TargetCounts:
    components = find_components(masks.mask, target.values)
    numbers, number = components.numbers(), len(components)
    is_true = np.zeros(number + 1, np.bool_)
    is_true[numbers[mask_of(masks.reference, target.values)]] = True
    predicted, correct = np.zeros((2, len(labels), number), np.int64)
    for place, label in enumerate(labels):
        if not set(members(label)).isdisjoint(target.values):  # else its voxels are in none
            predicted_voxels, correct_voxels, _ = masks.of(label)
            predicted[place] = _by_component(numbers, predicted_voxels, number)
            correct[place] = _by_component(numbers, correct_voxels, number)
    return TargetCounts(
        sizes=components.sizes,
        is_true=is_true[1:],
        predicted=predicted,
        correct=correct,
        lesions_ml=find_components(masks.reference, target.values).sizes * voxel_ml,
    )


def _by_component(numbers: npt.NDArray[np.int32], mask: BoolArray, number: int) -> _Integers:
    return np.bincount(numbers[mask], minlength=number + 1)[1:]


def _dice(predicted: _Integers, correct: _Integers, referred: _Integers) -> npt.NDArray[np.float64]:
    """1 where both masks are empty: nothing there, and nothing said to be."""
    sizes = predicted + referred
    dice: npt.NDArray[np.float64] = np.where(sizes > 0, 2 * correct / np.maximum(sizes, 1), 1.0)
    return dice
