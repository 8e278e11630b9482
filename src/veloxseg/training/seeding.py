"""One seed for all generators of random numbers that training draws from."""

import random

_BETWEEN_PROCESSES = 1_000_003  # more than there are epochs


def process_seed(seed: int, *, rank: int = 0, epoch: int = 0) -> int:
    """The seed of one process of a training, in a session that begins at ``epoch``.

    Processes must not draw the same patches, augmentation and dropout, nor must a session draw
    those of the session before it. Weights may be drawn from it as well: distributed training gives
    all processes those of the first.

    Args:
        seed: Of the run.
        rank: Number of the process, from 0.
        epoch: That the session begins at, from 0.
    """
    return seed + epoch + _BETWEEN_PROCESSES * rank


def set_seed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
