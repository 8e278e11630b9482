"""Leaving optional channels out of training samples, as patients leave them out of studies."""

from collections.abc import Sequence

import torch
from torch import Tensor


def drop_channels(
    image: Tensor,
    *,
    optional: Sequence[int],
    absent: Sequence[Sequence[int]],
    rate: float,
) -> Tensor:
    """Set channels that a sample does not have, and some that it could lack, to zero.

    Zero is what a missing channel is to the network everywhere, after normalisation. Each optional
    channel that a sample has is dropped with probability ``rate``, independently; where that would
    leave no channel at all, one of them, drawn evenly, stays.

    Args:
        image: (B, C, Z, Y, X), augmented.
        optional: Indices of the channels that may be dropped.
        absent: For each sample the indices of the channels that its case lacks; augmentation may
            have written noise there.
        rate: Probability from 0 to 1, without 1.

    Returns:
        (B, C, Z, Y, X), a copy.
    """
    batch, channels = image.shape[:2]
    droppable = torch.zeros(channels, dtype=torch.bool)
    droppable[list(optional)] = True
    kept = torch.ones(batch, channels, dtype=torch.bool)
    for sample, missing in enumerate(absent):
        kept[sample, list(missing)] = False
        present = kept[sample].clone()
        kept[sample] &= ~(droppable & (torch.rand(channels) < rate))
        if not kept[sample].any() and present.any():
            candidates = present.nonzero()[:, 0]
            kept[sample, candidates[torch.randint(len(candidates), ())]] = True
    return image * kept[:, :, None, None, None].to(image.device, image.dtype)
