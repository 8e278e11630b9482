"""Doing one thing with every case, in several processes where that saves time."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from veloxseg.workers import results_of

WORTH_PROCESSES_SECONDS = 5.0
"""Work of less is done in this process: others need a second or two to start."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Call ``work`` with every item; the first one, done here, tells whether the rest is worth it.

    Arguments, result and errors are those of `veloxseg.workers.results_of`.
    """
    started = monotonic()
    first = results_of(work, items[:1], num_workers=1)
    seconds = (monotonic() - started) * len(items[1:])
    if progress is not None and first:
        progress(1, len(items))
    return first + results_of(
        work,
        items[1:],
        num_workers=num_workers if seconds > WORTH_PROCESSES_SECONDS else 1,
        progress=None if progress is None else lambda done, _: progress(done + 1, len(items)),
    )
