"""Small masks (Z, Y, X) that the tests of evaluation share."""

import numpy as np

ANISOTROPIC = (4.0, 1.5, 0.5)
EMPTY = np.zeros((4, 5, 6), np.uint8)


def box(*ranges: tuple[int, int], shape: tuple[int, int, int] = (8, 9, 10)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*limits) for limits in ranges)] = 1
    return mask


def ellipsoid(centre, semi_axes, shape=(20, 24, 28)) -> np.ndarray:
    index = np.indices(shape).astype(float)
    away = sum(((index[i] - centre[i]) / semi_axes[i]) ** 2 for i in range(3))
    return (away <= 1).astype(np.uint8)


def random_mask(seed: int, share: float = 0.2) -> np.ndarray:
    return (np.random.default_rng(seed).random((6, 7, 8)) < share).astype(np.uint8)


def voxels(*indices: tuple[int, int, int], shape: tuple[int, int, int] = (8, 9, 10)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for index in indices:
        mask[index] = 1
    return mask
