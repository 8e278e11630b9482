"""A dataset's numbers in, a network and a batch out, with the reason for every choice.

The rules, in order:

1. Field of view: the median case, cut along its physically longest axis where the target bounds the
   voxels of a patch.
2. Stem stride: from the size of what must be seen and from anisotropy; coarser where a training
   step of two patches would not fit into the target's memory.
3. What still does not fit is cut off the field of view.
4. Stages until the deepest grid is small; the patch in whole cells of it; windows that tile every
   grid; widths by the size asked for; groups by compression.
5. Batch: two, more where the patch holds the whole case and memory is left.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from veloxseg.errors import PlanError
from veloxseg.network.config import Axes, NetworkConfig
from veloxseg.planning.memory import training_memory_gb
from veloxseg.planning.rules import (
    BASE_CHANNELS,
    MIN_STEM_CELLS,
    Size,
    coarser_stem,
    cut_until,
    make_network,
    modality_groups,
    stage_strides,
    visible_stem,
    whole_patch,
    without_padding,
)
from veloxseg.planning.target import SMALLEST_BATCH, Target

MAX_BATCH_SHARE = 0.05
"""Voxels of a batch over those of the dataset, as nnU-Net has it."""


@dataclass(frozen=True, kw_only=True)
class DatasetNumbers:
    """What the rules look at: a dataset's fingerprint on the target spacing.

    Attributes:
        median_shape: Median case after cropping and resampling, in voxels.
        spacing: Target spacing in mm, axes as the network's.
        structure: What must be seen: 10th percentile, per axis, of the extents of labelled
            components, in voxels at the target spacing; infinite where nothing is labelled.
        channel_names: Of the images.
        num_classes: Outputs of the network.
        num_cases: Training cases.
    """

    median_shape: Sequence[float]
    spacing: Sequence[float]
    structure: Sequence[float]
    channel_names: Sequence[str]
    num_classes: int
    num_cases: int


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One choice of a plan.

    Attributes:
        what: What was chosen, such as ``stem stride``.
        value: The choice.
        why: The numbers and the reason.
    """

    what: str
    value: str
    why: str

    def to_json(self) -> dict[str, str]:
        """The decision as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """A network, its batch and why they are so.

    Attributes:
        network: Sizes.
        batch_size: Patches in a training step.
        memory_gb: Predicted peak of a training step, in GB of 2³⁰ bytes.
        decisions: In the order in which they were made.
    """

    network: NetworkConfig
    batch_size: int
    memory_gb: float
    decisions: tuple[Decision, ...]


def plan_network(
    numbers: DatasetNumbers,
    *,
    target: Target,
    size: Size = "B",
    teachers: bool = True,
    stem: Axes | None = None,
) -> NetworkPlan:
    """Choose all sizes of a network for a dataset.

    Args:
        numbers: The dataset's.
        target: What training may take.
        size: Width of the network.
        teachers: Whether reconstruction decoders are trained too: they take memory.
        stem: A stem stride to plan with; None: by the rules.

    Raises:
        PlanError: the dataset is not three-dimensional, or the target is too small for any network.
    """
    shape = _whole_shape(numbers.median_shape)
    planning = _Planning(numbers, target, size, teachers)
    view = planning.field_of_view(shape)
    stem = planning.stem(view, stem)
    view = planning.affordable_view(view, stem)
    network = planning.network(view, stem)
    planning.explain_network(network)
    batch_size = planning.batch_size(network, shape)
    memory = training_memory_gb(network, batch_size=batch_size, teachers=teachers)
    planning.decisions.append(memory_decision(memory, target))
    return NetworkPlan(
        network=network,
        batch_size=batch_size,
        memory_gb=memory,
        decisions=tuple(planning.decisions),
    )


def memory_decision(memory_gb: float, target: Target) -> Decision:
    """What a training step is predicted to take, beside what there is."""
    return Decision(
        what="memory",
        value=f"{memory_gb:.1f} GB",
        why="predicted peak of a training step; "
        f"the target {target.name} has {target.memory_gb:g} GB",
    )


class _Planning:
    """The numbers that all rules look at, and the decisions made so far."""

    def __init__(self, numbers: DatasetNumbers, target: Target, size: Size, teachers: bool) -> None:
        self.numbers, self.target, self.size, self.teachers = numbers, target, size, teachers
        self.in_channels = modality_groups(numbers.channel_names)
        self.decisions: list[Decision] = []

    def decide(self, what: str, value: str, why: str) -> None:
        self.decisions.append(Decision(what=what, value=value, why=why))

    def network(self, view: Axes, stem: Axes) -> NetworkConfig:
        position_mm = [mm * s for mm, s in zip(self.numbers.spacing, stem, strict=True)]
        grid = _ceil_divide(view, stem)
        strides = without_padding(view, stem, stage_strides(grid, position_mm))
        return make_network(
            patch_size=whole_patch(view, stem, strides),
            in_channels=self.in_channels,
            num_classes=self.numbers.num_classes,
            stem=stem,
            strides=strides,
            size=self.size,
        )

    def fits(self, network: NetworkConfig, *, batch_size: int = SMALLEST_BATCH) -> bool:
        most = self.target.max_positions
        if most is not None and math.prod(network.grids[0]) > most:
            return False
        memory = training_memory_gb(network, batch_size=batch_size, teachers=self.teachers)
        return memory <= self.target.memory_gb

    def field_of_view(self, shape: Axes) -> Axes:
        most = self.target.max_voxels or math.prod(shape)
        view = cut_until(shape, self.numbers.spacing, lambda v: math.prod(v) <= most)
        if view == shape:
            why = "the whole median case"
        else:
            why = (
                f"the median case is {_times(shape)}; {self.target.name} trains patches of at most "
                f"{most / 1e6:.2f} M voxels, cut along the physically longest axis"
            )
        self.decide("field of view", _times(view), why)
        return view

    def stem(self, view: Axes, given: Axes | None) -> Axes:
        if given is not None:
            self.decide("stem stride", _times(given), "given")
            return given
        spacing, structure = self.numbers.spacing, self.numbers.structure
        stem, largest = visible_stem(view, structure, spacing)
        why = (
            f"the smallest structures (10th percentile) are {_times_mm(structure, spacing)} mm, "
            f"{_times(round(s, 1) for s in structure)} voxels: the largest of 4, 2, 1 that leaves "
            f"them {MIN_STEM_CELLS} cells across, cells of {_times_mm(stem, spacing)} mm"
        )
        while not self.fits(self.network(view, stem)):
            coarser = coarser_stem(stem, largest, view, spacing)
            if coarser is None:
                break
            stem, visible = coarser
            lost = "" if visible else ", though the smallest structures then have fewer cells"
            why += f"; coarser, {_times(stem)}, for what {self.target.name} can take{lost}"
        self.decide("stem stride", _times(stem), why)
        return stem

    def affordable_view(self, view: Axes, stem: Axes) -> Axes:
        cut = cut_until(
            view, self.numbers.spacing, lambda smaller: self.fits(self.network(smaller, stem))
        )
        smallest = self.network(cut, stem)
        if not self.fits(smallest):
            memory = training_memory_gb(smallest, batch_size=SMALLEST_BATCH, teachers=self.teachers)
            raise PlanError(
                f"The target {self.target.name} has {self.target.memory_gb:g} GB. Training with "
                f"patches of {_times(smallest.patch_size)}, the smallest, is predicted to take "
                f"{memory:.2f} GB. Give a larger one, such as --target 2gb."
            )
        if cut != view:
            self.decide(
                "field of view",
                _times(cut),
                f"cut from {_times(view)} along the physically longest axis until "
                f"{self.target.name} can take two patches",
            )
        return cut

    def explain_network(self, network: NetworkConfig) -> None:
        deepest = network.grids[-1]
        self.decide(
            "stages",
            str(network.num_stages),
            "fine axes halve while two positions stay "
            f"({', '.join(map(_times, network.strides))}); "
            f"grids {', '.join(map(_times, network.grids))}, four stages at most, and none for "
            "whose sake the patch would grow by a quarter",
        )
        self.decide(
            "patch",
            _times(network.patch_size),
            f"the field of view in whole cells of the deepest grid {_times(deepest)}",
        )
        self.decide(
            "windows",
            ", ".join(map(_times, network.big_windows)),
            "the published 3, 6, 3, 3, moved per axis to the nearest grid / 2^k: they double up to "
            "the whole grid and tile it",
        )
        self.decide(
            "modalities",
            " + ".join(map(str, network.in_channels)),
            "neighbouring channels of one kind go together: "
            + ", ".join(self.numbers.channel_names),
        )
        self.decide(
            "widths",
            ", ".join(map(str, network.conv_channels)),
            f"size {self.size} of S, B, L: {network.conv_channels[0]} channels in the first stage, "
            f"doubling; B has the published {BASE_CHANNELS['B']}",
        )
        self.decide(
            "group widths",
            ", ".join(map(str, network.group_widths)),
            "the power of two nearest to 0.78 log2(modalities x voxels of a position), from 4 to "
            "16: in the spirit of the Johnson-Lindenstrauss bound, fitted to the published widths",
        )
        self.decide(
            "dropout", f"{network.conv_dropout:g}", "augmentation regularises, as in nnU-Net's own"
        )

    def batch_size(self, network: NetworkConfig, shape: Axes) -> int:
        voxels = math.prod(network.patch_size)
        of_dataset = MAX_BATCH_SHARE * math.prod(shape) * self.numbers.num_cases
        batch, why = SMALLEST_BATCH, "the smallest"
        if self.target.max_batch > batch and all(
            p >= s for p, s in zip(network.patch_size, shape, strict=True)
        ):
            while (
                batch < self.target.max_batch
                and (batch + 1) * voxels <= of_dataset
                and self.fits(network, batch_size=batch + 1)
            ):
                batch += 1
            why = (
                f"the patch holds the whole case, so memory goes to the batch: at most "
                f"{self.target.max_batch}, a twentieth of the dataset's voxels, and what fits"
            )
        elif self.target.max_batch > batch:
            why = "memory goes to the field of view first"
        self.decide("batch", str(batch), why)
        return batch


def _whole_shape(median_shape: Sequence[float]) -> Axes:
    shape = [max(1, round(extent)) for extent in median_shape]
    if len(shape) != 3 or min(shape) < 2:
        raise PlanError(
            f"The median case has the shape {tuple(shape)} (z, y, x). VeloxSeg needs 3-D volumes "
            "of at least two voxels an axis; use nnU-Net's 2d configuration for single slices."
        )
    z, y, x = shape
    return (z, y, x)


def _ceil_divide(view: Axes, stem: Axes) -> Axes:
    z, y, x = (-(-v // s) for v, s in zip(view, stem, strict=True))
    return (z, y, x)


def _times(values: Iterable[object]) -> str:
    return " x ".join(str(value) for value in values)


def _times_mm(voxels: Sequence[float], spacing: Sequence[float]) -> str:
    return " x ".join(f"{v * mm:.3g}" for v, mm in zip(voxels, spacing, strict=True))
