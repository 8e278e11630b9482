"""Spline interpolation along one axis as a matrix.

Resizing an image with splines is linear in its values and treats one axis after the other, so a
matrix for each axis says all of it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

_REACH = 24
"""Voxels beyond an edge that count: farther ones weigh less than 0.268^24 = 2e-14 of a voxel."""

_POLES = {2: (np.sqrt(8.0) - 3.0, 1 / 8), 3: (np.sqrt(3.0) - 2.0, 1 / 6)}
"""By order: the pole z of the filter that turns samples into coefficients, and the B-spline's value
at distance 1."""


def axis_matrix(num_in: int, num_out: int, order: int) -> Float64Array:
    """Weights with which the voxels of one axis make those of the resized axis.

    Both axes span the same length, edges of voxels meeting edges: new voxel i lies at
    ``(i + 0.5) num_in / num_out - 0.5``, counted in old voxels. Beyond its edges an image goes on
    with the values there.

    Source: scikit-image's ``resize(mode="edge", anti_aliasing=False)``, as nnU-Net (Isensee et
    al., 2021) calls it; B-splines as by Unser, Aldroubi and Eden (1993).

    Args:
        num_in: Number of voxels, 1 or more.
        num_out: Number of voxels wanted, 1 or more.
        order: Of the spline: 0 nearest, 1 linear, 2 quadratic, 3 cubic.

    Returns:
        (num_out, num_in) weights; every row sums to 1.

    Raises:
        ValueError: a number of voxels is below 1 or the order is not 0 to 3.
    """
    if min(num_in, num_out) < 1 or order not in (0, 1, 2, 3):
        raise ValueError(f"Cannot resize {num_in} voxels to {num_out} with order {order}.")
    positions = (np.arange(num_out, dtype=np.float64) + 0.5) * (num_in / num_out) - 0.5
    if order < 2:
        positions = positions.clip(0, num_in - 1)
        return _fold(_evaluation(positions, num_in, order), num_in)
    return _evaluation(positions, num_in, order) @ _fold(_coefficients(num_in, order), num_in)


def nearest_index(num_in: int, num_out: int) -> npt.NDArray[np.intp]:
    """The one voxel that each row of ``axis_matrix(num_in, num_out, 0)`` takes."""
    index: npt.NDArray[np.intp] = axis_matrix(num_in, num_out, 0).argmax(axis=1)
    return index


def _evaluation(positions: Float64Array, num_in: int, order: int) -> Float64Array:
    # (out, num_in + 4): weights of the coefficients -2 to num_in + 1 at each position.
    nearest = np.floor(positions if order % 2 else positions + 0.5)
    first, weights = nearest - order // 2, _basis(positions - nearest, order)
    matrix = np.zeros((len(positions), num_in + 4))
    rows = np.arange(len(positions))
    for tap, weight in enumerate(weights):
        matrix[rows, first.astype(int) + tap + 2] = weight
    return matrix


def _basis(t: Float64Array, order: int) -> tuple[Any, ...]:
    # Values of the B-splines that reach a position: t in 0..1 (odd orders) or -0.5..0.5 (even).
    if order == 0:
        return (np.ones_like(t),)
    if order == 1:
        return (1 - t, t)
    if order == 2:
        return (0.5 * (0.5 - t) ** 2, 0.75 - t**2, 0.5 * (0.5 + t) ** 2)
    s = 1 - t
    return (s**3 / 6, 2 / 3 - t**2 * (2 - t) / 2, 2 / 3 - s**2 * (2 - s) / 2, t**3 / 6)


def _coefficients(num_in: int, order: int) -> Float64Array:
    # (num_in + 4, num_in + 2 REACH): from samples -REACH.. to coefficients -2 to num_in + 1. The
    # inverse of sampling a B-spline of values (a, 1 - 2a, a) is -z / (a (1 - z^2)) z^|distance|.
    pole, neighbour = _POLES[order]
    wanted = np.arange(-2, num_in + 2)[:, None]
    samples = np.arange(-_REACH, num_in + _REACH)[None, :]
    gain = -pole / (neighbour * (1 - pole**2))
    weights: Float64Array = gain * pole ** np.abs(wanted - samples)
    return weights


def _fold(matrix: Float64Array, num_in: int) -> Float64Array:
    # What lies beyond an edge has the value at the edge: add its columns to the outermost one.
    beyond = (matrix.shape[1] - num_in) // 2
    folded: Float64Array = matrix[:, beyond : beyond + num_in].copy()
    folded[:, 0] += matrix[:, :beyond].sum(axis=1)
    folded[:, -1] += matrix[:, beyond + num_in :].sum(axis=1)
    return folded
