"""Planning and preprocessing of datasets whose cases may lack channels.

nnU-Net's file lists only grow shorter where a file is missing, so that one channel would be taken
for another. Here every case keeps all its channels: an absent one is zero to the network, after
normalisation and resampling, and counts for no statistics.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from veloxseg.errors import PlanError

ABSENT_KEY = "absent_channels"
"""Where the properties of a preprocessed case say which channels it lacks."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def absent_channels(properties: Mapping[str, Any]) -> tuple[int, ...]:
    """Numbers of the channels that a preprocessed case lacks, from 0, in rising order.

    Args:
        properties: Content of the case's ``.pkl``; nnU-Net's own have no absent channels.
    """
    return tuple(properties.get(ABSENT_KEY, ()))


def map_cases(
    function: Callable[[_Item], _Result], cases: Iterable[_Item], *, num_workers: int
) -> list[_Result]:
    """Call a function for each case, in processes of their own; with one worker, in this one.

    Raises:
        PlanError: a process was killed.
    """
    if num_workers == 1:
        return [function(case) for case in cases]
    try:
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            return list(pool.map(function, cases))
    except BrokenProcessPool as error:
        raise PlanError(
            f"One of {num_workers} processes that read cases was killed, most likely for want of "
            "memory. Use fewer: --num-workers 1"
        ) from error
