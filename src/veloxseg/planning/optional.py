"""Planning and preprocessing of datasets whose cases may lack channels.

nnU-Net's file lists only grow shorter where a file is missing, so that one channel would be taken
for another. Here every case keeps all its channels: an absent one is zero to the network, after
normalisation and resampling, and counts for no statistics.
"""

from collections.abc import Mapping
from typing import Any

ABSENT_KEY = "absent_channels"
"""Where the properties of a preprocessed case say which channels it lacks."""


def absent_channels(properties: Mapping[str, Any]) -> tuple[int, ...]:
    """Numbers of the channels that a preprocessed case lacks, from 0, in rising order.

    Args:
        properties: Content of the case's ``.pkl``; nnU-Net's own have no absent channels.
    """
    return tuple(properties.get(ABSENT_KEY, ()))
