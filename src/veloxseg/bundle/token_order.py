"""In which order the attention stream keeps the positions of a grid, as index arrays.

A stage's windows nest: each window of one scale is a block of windows of the next smaller scale. In
*window order* they lie one after the other at all scales at once, so that cutting a grid into
windows is a reshape. In *cell order* the same holds for the cells that are pooled into tokens.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from veloxseg.network.config import Axes, divide

Order = npt.NDArray[np.int64]


def nested_order(grid: Axes, boxes: Sequence[Axes]) -> Order:
    """Flat positions of a grid sorted by boxes that nest, given from small to large.

    Inside the smallest box, and among the largest, the last axis runs fastest.
    """
    flat = np.arange(math.prod(grid))
    position = np.stack(np.unravel_index(flat, grid))
    keys = [flat]
    for box in boxes:
        place = position // np.array(box)[:, None]
        keys.append(np.ravel_multi_index(tuple(place), divide(grid, box)))
    return np.lexsort(keys)


def inverse(order: Order) -> Order:
    """Where each flat position stands in an order."""
    result = np.empty_like(order)
    result[order] = np.arange(len(order))
    return result


def cells(grid: Axes, stride: Axes) -> Order:
    """(coarse positions, Π stride): the flat positions in every cell, the last axis fastest."""
    flat = np.arange(math.prod(grid)).reshape(grid)
    (sz, sy, sx), (z, y, x) = stride, divide(grid, stride)
    blocks: Order = flat.reshape(z, sz, y, sy, x, sx).transpose(0, 2, 4, 1, 3, 5)
    return blocks.reshape(z * y * x, -1)


def tokens_of_windows(
    grid: Axes, scales: Sequence[tuple[Axes, Axes]], scale: int, cell_order: Order
) -> Order:
    """For the tokens of all windows of a scale, in window order: which pooled cell each is.

    Args:
        grid: The stage's grid.
        scales: Its (big, small) windows, from small to large.
        scale: The one in question.
        cell_order: The order in which positions were pooled.
    """
    _, small = scales[scale]
    coarse = divide(grid, small)
    first = np.stack(np.unravel_index(cell_order[:: math.prod(small)], grid), axis=-1)
    rank = np.empty(math.prod(coarse), np.int64)
    rank[np.ravel_multi_index(tuple((first // small).T), coarse)] = np.arange(len(rank))
    return rank[nested_order(coarse, [divide(big, small) for big, _ in scales[scale:]])]


def relative_positions(tokens: Axes) -> Order:
    """(L, L): row of the position table for each (query, key) of a window's tokens, as in Swin."""
    position = np.stack(np.unravel_index(np.arange(math.prod(tokens)), tokens), axis=-1)
    offset = position[:, None] - position[None] + np.array(tokens) - 1
    extent = [2 * n - 1 for n in tokens]
    rows: Order = np.ravel_multi_index(tuple(offset.transpose(2, 0, 1)), extent)
    return rows


def linear_interpolation(num: int, extent: int) -> npt.NDArray[np.float64]:
    """(extent, num): along one axis, the first and the last of both coinciding."""
    place = np.linspace(0, num - 1, extent) if extent > 1 else np.zeros(1)
    weights: npt.NDArray[np.float64] = 1.0 - np.abs(place[:, None] - np.arange(num))
    return weights.clip(min=0.0)
