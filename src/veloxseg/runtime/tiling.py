"""The sliding window: where tiles lie, how they are weighted, and logits of a whole grid from them.

Logits are never held for the whole grid. Tiles run in order of z; planes that no later tile touches
leave at once as a finished slab, so that memory holds one patch's depth of logits.

Source: nnU-Net (Isensee et al., 2021), ``sliding_window_prediction``; its accumulation is in
float16, ours in float32.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import Pipeline
from veloxseg.runtime.occupancy import Occupancy
from veloxseg.runtime.separable import Float32Array

Run = Callable[[Float32Array], npt.NDArray[np.floating]]
"""(B, C, Z, Y, X) float32 -> logits (B, K, Z, Y, X)."""

ABSENT_LOGIT = -20.0
"""Logit of a foreground class where no tile was run: e^-20 is no probability to speak of, yet the
number is of a size with true logits, so that resampling moves no border between the two."""

_CHUNK = 8
"""Planes of a tile added at a time: product and sum then stay in the cache."""

Index = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Slab:
    """Finished planes of logits.

    Attributes:
        start: Index along z of the first one.
        logits: (K, planes, Y, X) float32, the weighted mean of the tiles over each voxel.
    """

    start: int
    logits: Float32Array


def tile_starts(shape: Sequence[int], patch_size: Sequence[int], overlap: float) -> list[list[int]]:
    """First voxels of the tiles along each axis.

    Tiles are spread evenly from edge to edge, ``1 - overlap`` of a patch apart or less. An axis
    shorter than the patch has one tile, with the image in its middle: its start is negative.

    Args:
        shape: Voxels of the grid along each axis.
        patch_size: Voxels of a tile along each axis.
        overlap: Share of a tile that the next one covers too, 0 or more, below 1.

    Raises:
        ValueError: the overlap is out of range.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is {overlap}: expected 0 or more, below 1.")
    starts = []
    for size, patch in zip(shape, patch_size, strict=True):
        last = size - patch
        if last <= 0:
            starts.append([-(-last // 2)])
            continue
        steps = int(np.ceil(last / (patch * (1 - overlap))))
        starts.append([int(np.round(last / steps * index)) for index in range(steps + 1)])
    return starts


def gaussian_importance(patch_size: Sequence[int]) -> Float32Array:
    """Weights of a tile's voxels in the mean over tiles: nnU-Net's Gaussian.

    Standard deviation is an eighth of the patch along each axis; the largest weight, 10, is at
    voxel ``size // 2``. None is 0: the smallest are about 4e-10, which float32 holds (nnU-Net's
    float16 does not, and it puts the smallest weight above 0 there).

    Returns:
        (Z, Y, X) float32.
    """
    weights = np.full((1, 1, 1), 10.0)
    for axis, size in enumerate(patch_size):
        distance = (np.arange(size) - size // 2) / (size / 8)
        line = np.exp(-0.5 * distance**2)
        weights = weights * line.reshape([-1 if a == axis else 1 for a in range(3)])
    return weights.astype(np.float32)


def absent_logits(pipeline: Pipeline, *, relative: bool = False) -> tuple[float, ...]:
    """Logits that say background: what a voxel gets that no tile covers, one for each class.

    Args:
        pipeline: Its labels or regions.
        relative: Background itself is left out, as logits are less its own.
    """
    if pipeline.has_regions or relative:
        return (ABSENT_LOGIT,) * len(pipeline.foreground)
    return (0.0, *(ABSENT_LOGIT,) * (pipeline.num_classes - 1))


def mirrored(run: Run, mirror_axes: Sequence[int]) -> Run:
    """Average ``run`` over all mirrorings: test-time augmentation.

    Args:
        run: The network.
        mirror_axes: Spatial axes, 0 to 2, that may be mirrored; n of them make 2^n runs.

    Returns:
        A function like ``run``.
    """
    flips = [
        tuple(axis + 2 for axis in axes)
        for count in range(1, len(mirror_axes) + 1)
        for axes in itertools.combinations(mirror_axes, count)
    ]

    def run_mirrored(batch: Float32Array) -> npt.NDArray[np.floating]:
        # A copy: a backend may return the same memory at every call.
        total = np.array(run(batch), dtype=np.float32)
        for axes in flips:
            total += np.flip(run(np.ascontiguousarray(np.flip(batch, axes))), axes)
        total /= len(flips) + 1
        return total

    return run_mirrored


def slide(
    data: Float32Array,
    run: Run,
    *,
    patch_size: Index,
    overlap: float,
    absent: Sequence[float],
    batch_size: int = 1,
    occupancy: Occupancy | None = None,
    on_tiles: Callable[[int, int], None] | None = None,
) -> Iterator[Slab]:
    """Run the network over all tiles of a grid and average its logits where they overlap.

    An image shorter than the patch is surrounded by zeros.

    Args:
        data: (C, Z, Y, X) float32, the network's input.
        run: The network, called in a thread of its own while the logits before are averaged. It
            must not keep its argument, whose memory is used again, and what it returns must last
            until the call after the next.
        patch_size: Voxels of a tile, z, y, x.
        overlap: Share of a tile that the next one covers too.
        absent: Logit of each class where no tile is run; see :func:`absent_logits`.
        batch_size: Tiles in one run; the last run may have fewer.
        occupancy: Where the image holds anything; tiles elsewhere are left out. None: all are run.
        on_tiles: Told (tiles done, tiles in all): first (0, all), then after each run.

    Yields:
        Slabs in order of z, without gaps, up to the last plane.

    Raises:
        ValueError: ``run`` returns another shape than (B, len(absent), ``patch_size``).
    """
    shape = data.shape[1:]
    tiles = [
        (z, y, x)
        for z, y, x in itertools.product(*tile_starts(shape, patch_size, overlap))
        if occupancy is None or occupancy.touches((z, y, x), _end((z, y, x), patch_size))
    ]
    if on_tiles is not None:
        on_tiles(0, len(tiles))
    rolling = _RollingMean(shape=shape, patch_size=patch_size, absent=absent)
    done = 0
    for chosen, logits in _run_ahead(data, run, tiles, patch_size, batch_size):
        if logits.shape != (len(chosen), len(absent), *patch_size):
            raise ValueError(
                f"The network returned logits of shape {logits.shape} for {len(chosen)} tiles. "
                f"Expected {(len(chosen), len(absent), *patch_size)}."
            )
        for tile, tile_logits in zip(chosen, logits, strict=True):
            yield from rolling.finish(tile[0])
            rolling.add(tile, tile_logits)
        done += len(chosen)
        if on_tiles is not None:
            on_tiles(done, len(tiles))
    yield from rolling.finish(shape[0])


def _run_ahead(
    data: Float32Array, run: Run, tiles: Sequence[Index], patch_size: Index, batch_size: int
) -> Iterator[tuple[Sequence[Index], npt.NDArray[np.floating]]]:
    # Batches of tiles and their logits; the network is one batch ahead of whoever takes them.
    shape = data.shape[1:]
    batches = np.zeros((2, batch_size, len(data), *patch_size), np.float32)
    waiting: tuple[Sequence[Index], Future[npt.NDArray[np.floating]]] | None = None
    with ThreadPoolExecutor(max_workers=1) as pool:
        for number, first in enumerate(range(0, len(tiles), batch_size)):
            chosen, batch = tiles[first : first + batch_size], batches[number % 2]
            for place, tile in zip(batch, chosen, strict=False):
                inside, within = _overlap(tile, patch_size, shape)
                place[inside] = data[within]
            running = pool.submit(run, batch[: len(chosen)])
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = chosen, running
        if waiting is not None:
            yield waiting[0], waiting[1].result()


class _RollingMean:
    # Sums of weighted logits, and of weights, over as many planes as a patch is deep.

    def __init__(self, *, shape: Sequence[int], patch_size: Index, absent: Sequence[float]) -> None:
        depth = min(shape[0], patch_size[0])
        self._shape = shape
        self._patch_size = patch_size
        self._absent = absent
        self._importance = gaussian_importance(patch_size)
        self._sums = np.zeros((len(absent), depth, *shape[1:]), np.float32)
        self._weights = np.zeros((depth, *shape[1:]), np.float32)
        self._start = 0

    def add(self, tile: Index, logits: npt.NDArray[np.floating]) -> None:
        # (K, *patch_size) logits of a tile that starts at the first plane held.
        inside, (_, _, rows, columns) = _overlap(tile, self._patch_size, self._shape)
        importance, logits = self._importance[inside[1:]], logits[inside]
        for start in range(0, len(importance), _CHUNK):
            planes = slice(start, start + _CHUNK)
            self._weights[planes, rows, columns] += importance[planes]
            for sums, values in zip(self._sums, logits, strict=True):
                sums[planes, rows, columns] += values[planes] * importance[planes]

    def finish(self, stop: int) -> Iterator[Slab]:
        # Hand out the planes before `stop`, which no later tile touches.
        while self._start < stop:
            count = min(stop - self._start, len(self._weights))
            yield Slab(start=self._start, logits=self._mean(count))
            self._start += count
            self._shift(count)

    def _mean(self, count: int) -> Float32Array:
        weights = self._weights[:count]
        covered = weights > 0
        if covered.all():
            return self._sums[:, :count] / weights
        mean = np.empty((len(self._sums), *weights.shape), np.float32)
        for values, sums, absent in zip(mean, self._sums, self._absent, strict=True):
            values[:] = absent
            np.divide(sums[:count], weights, out=values, where=covered)
        return mean

    def _shift(self, count: int) -> None:
        # Plane by plane: one assignment of overlapping planes would copy them all first.
        for planes in (*self._sums, self._weights):
            for index in range(len(planes) - count):
                planes[index] = planes[index + count]
            planes[len(planes) - count :] = 0


def _end(tile: Index, patch_size: Sequence[int]) -> Index:
    z, y, x = (start + size for start, size in zip(tile, patch_size, strict=True))
    return z, y, x


def _overlap(
    tile: Index, patch_size: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    # The part of a tile that lies in the grid: slices (C, Z, Y, X) of the tile, and of the grid.
    low = [max(0, start) for start in tile]
    high = [min(end, size) for end, size in zip(_end(tile, patch_size), shape, strict=True)]
    within = tuple(slice(*limits) for limits in zip(low, high, strict=True))
    inside = tuple(slice(a - start, b - start) for a, b, start in zip(low, high, tile, strict=True))
    return (slice(None), *inside), (slice(None), *within)
