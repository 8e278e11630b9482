"""From slabs of logits on the network's grid to the mask on the image's own grid.

Slabs are resampled as they come, a few planes at a time, and leave nothing behind but the mask.

Labels are decided by logits relative to background's, which leaves neither the largest nor the
softmax changed and is one class less to resample. Source: nnU-Net (Isensee et al., 2021),
``convert_predicted_logits_to_segmentation_with_correct_shape``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import Pipeline
from veloxseg.runtime.preprocessing import Placement
from veloxseg.runtime.resampling import axis_orders, resample, separate_axis
from veloxseg.runtime.separable import Float32Array, GridMap
from veloxseg.runtime.tiling import Slab

Mask = npt.NDArray[np.uint8 | np.uint16]

_PLANES = 8
"""Planes of the mask made at a time: their scores stay in the cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelling:
    """What the network says of every voxel of the source image; the source's own axes.

    Attributes:
        mask: (Z, Y, X) labels; uint8, or uint16 where a label is above 255.
        probabilities: (K, Z, Y, X) float16, of each class (softmax, background first) or of each
            region (sigmoid), if asked for. Outside the cropped box: background for sure.
    """

    mask: Mask
    probabilities: npt.NDArray[np.float16] | None


def segment(
    slabs: Iterable[Slab],
    *,
    placement: Placement,
    pipeline: Pipeline,
    relative: bool = False,
    with_probabilities: bool = False,
) -> Labelling:
    """Write the mask that slabs of logits make.

    Args:
        slabs: In order of z and without gaps; together (K, *placement.network_shape).
        placement: Where the network's grid lies in the source image.
        pipeline: Labels, transposition and how logits are resampled.
        relative: Logits are less the background's already, which is left out; not for splines of
            order 2 and 3, whose clipping needs them as they are.
        with_probabilities: Whether to keep the classes' probabilities: 2 K bytes a voxel.

    Returns:
        Mask and probabilities on the source image, in its own axes.

    Raises:
        ValueError: the slabs have gaps or end too early.
    """
    # Axis i of the network's grid is axis transpose[i] of the source.
    order = pipeline.transpose
    size = dict(zip(order, placement.source_shape, strict=True))
    shape = (size[0], size[1], size[2])
    mask: Mask = np.zeros(shape, _label_type(pipeline))
    mask_box = mask.transpose(order)[placement.box_slices]
    probabilities = probability_box = None
    if with_probabilities:
        probabilities = np.zeros((pipeline.num_classes, *shape), np.float16)
        if not pipeline.has_regions:
            probabilities[0] = 1
        moved = probabilities.transpose(0, *(axis + 1 for axis in order))
        box = (slice(None), *placement.box_slices)
        probability_box = moved[box]
    whole = _check_order(slabs, placement.network_shape[0])
    if _is_collected(placement, pipeline):
        whole = iter([_resample_whole(whole, placement, pipeline)])
    if not relative and not pipeline.has_regions:
        whole = (Slab(start=s.start, logits=s.logits[1:] - s.logits[0]) for s in whole)
    for start, scores in _resampled_scores(whole, placement, pipeline):
        stop = start + scores.shape[1]
        mask_box[start:stop] = _labels(scores, pipeline)
        if probability_box is not None:
            probability_box[:, start:stop] = _probabilities(scores, pipeline)
    return Labelling(mask=mask, probabilities=probabilities)


def _check_order(slabs: Iterable[Slab], num_planes: int) -> Iterator[Slab]:
    done = 0
    for slab in slabs:
        if slab.start != done:
            raise ValueError(f"A slab starts at plane {slab.start}. Expected plane {done}.")
        done += slab.logits.shape[1]
        yield slab
    if done != num_planes:
        raise ValueError(f"Slabs end after {done} planes. Expected {num_planes}.")


def _label_type(pipeline: Pipeline) -> type[np.uint8] | type[np.uint16]:
    highest = pipeline.num_classes - 1
    if pipeline.has_regions:
        highest = max(pipeline.regions_class_order or (0,))
    return np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16


def _labels(scores: Float32Array, pipeline: Pipeline) -> Mask:
    labels: Mask = np.zeros(scores.shape[1:], _label_type(pipeline))
    if pipeline.has_regions:
        for score, value in zip(scores, pipeline.regions_class_order or (), strict=True):
            np.copyto(labels, labels.dtype.type(value), where=score > 0)
        return labels
    # The first of equal logits wins, as argmax has it: background's score is 0.
    best = np.zeros(scores.shape[1:], np.float32)
    for label, score in enumerate(scores, start=1):
        np.copyto(labels, labels.dtype.type(label), where=score > best)
        if label < len(scores):
            np.maximum(best, score, out=best)
    return labels


def _probabilities(scores: Float32Array, pipeline: Pipeline) -> Float32Array:
    if pipeline.has_regions:
        # exp of a large number would overflow; tanh is the same sigmoid and cannot.
        regions: Float32Array = 0.5 + 0.5 * np.tanh(0.5 * scores)
        return regions
    highest = np.maximum(scores.max(axis=0, initial=0.0), 0)
    powers = np.concatenate([np.exp(-highest)[None], np.exp(scores - highest)])
    powers /= powers.sum(axis=0)
    return powers


def _resampled_scores(
    slabs: Iterable[Slab], placement: Placement, pipeline: Pipeline
) -> Iterator[tuple[int, Float32Array]]:
    # First plane and scores (classes, planes, Y, X) on the box's grid, in order of z.
    resampling = pipeline.logits_resampling
    apart = separate_axis(placement.network_spacing, placement.spacing, resampling)
    orders = axis_orders(apart, resampling)
    grid = GridMap.of_orders(placement.network_shape, placement.box_shape, orders)
    if grid.is_identity or _is_collected(placement, pipeline):
        for slab in slabs:
            yield from _in_blocks(slab)
        return
    yield from _resample_streaming(slabs, grid)


def _in_blocks(slab: Slab) -> Iterator[tuple[int, Float32Array]]:
    for first in range(0, slab.logits.shape[1], _PLANES):
        yield slab.start + first, slab.logits[:, first : first + _PLANES]


def _resample_streaming(slabs: Iterable[Slab], grid: GridMap) -> Iterator[tuple[int, Float32Array]]:
    # `held`: planes from `held_start` on that planes still to be made need.
    num_planes, made, held_start = grid.axes[0].num_out, 0, 0
    held: Float32Array | None = None
    for slab in slabs:
        held = slab.logits if held is None else np.concatenate([held, slab.logits], axis=1)
        while made < num_planes:
            stop = _last_ready(grid, made, held_start + held.shape[1])
            if stop == made:
                break
            low, high = grid.span(made, stop)
            source = held[:, low - held_start : high - held_start]
            yield made, np.stack([grid.planes(channel, made, stop) for channel in source])
            made = stop
        # The next plane may need only planes that are still to come: then nothing is kept.
        keep = held_start + held.shape[1]
        if made < num_planes:
            keep = min(keep, grid.span(made, made + 1)[0])
        held, held_start = held[:, keep - held_start :], keep


def _last_ready(grid: GridMap, made: int, available: int) -> int:
    # How far new planes can be made, at most a block, when old planes up to `available` are there.
    last = grid.axes[0].last[made : made + _PLANES]
    return made + int(np.count_nonzero(last < available))


def _is_collected(placement: Placement, pipeline: Pipeline) -> bool:
    # Splines of order 2 and 3 are clipped to the range of the whole channel, so that all of it must
    # be there first. nnU-Net's plans resample logits linearly unless someone changed that.
    resized = placement.network_shape != placement.box_shape
    return pipeline.logits_resampling.order > 1 and resized


def _resample_whole(slabs: Iterable[Slab], placement: Placement, pipeline: Pipeline) -> Slab:
    logits = np.concatenate([slab.logits for slab in slabs], axis=1)
    resized = np.empty((len(logits), *placement.box_shape), np.float32)
    for channel, out in zip(logits, resized, strict=True):
        resample(
            channel,
            placement.box_shape,
            spacing=placement.network_spacing,
            new_spacing=placement.spacing,
            resampling=pipeline.logits_resampling,
            out=out,
        )
    return Slab(start=0, logits=resized)
