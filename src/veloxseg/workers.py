"""Doing one thing with every case, in this process or in several, the results in order."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from veloxseg.errors import DatasetError
from veloxseg.installation import num_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

_work_of_this_process: Callable[[Any], Any]


def results_of(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Call ``work`` with every item, one at a time in each process.

    Args:
        work: What to do; with several workers it must be picklable, and so must what it returns: a
            function of a module, or a dataclass with ``__call__``, not a closure. Processes are
            spawned, so a script that asks for several must begin its work below
            ``if __name__ == "__main__"``.
        items: What to do it with.
        num_workers: Number of processes; 1 works in this one.
        progress: Called in this process after each item with the number done and that of all.

    Returns:
        What ``work`` returned, in the order of ``items``.

    Raises:
        DatasetError: a process was killed, for one by a system that has run out of memory.
        Exception: what ``work`` raised, after the items at work then are finished. Of several, that
            of the first item. No item is begun then that no process had been handed yet.
    """
    report = progress or (lambda done, total: None)
    num_workers = min(num_workers, len(items))
    if num_workers <= 1:
        results = []
        for done, item in enumerate(items, start=1):
            results.append(work(item))
            report(done, len(items))
        return results
    before: set[BaseProcess] = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        max_workers=num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_process,
        initargs=(work, max(1, num_cores() // num_workers)),
    )
    try:
        with pool:
            futures: list[Future[Result]] = [pool.submit(_work_on, item) for item in items]
            try:
                _wait_for_all(futures, report)
            except BaseException:  # Ctrl-C: what is half done is done again by the next run
                _end_processes(before)
                raise
            finally:
                pool.shutdown(cancel_futures=True)
            return [future.result() for future in futures if not future.cancelled()]
    except BrokenProcessPool as error:
        raise DatasetError(
            f"One of {num_workers} processes was killed, perhaps for want of memory. What was "
            "written before stays. Run the command again with fewer: --num-workers 1"
        ) from error


def _wait_for_all(
    futures: Sequence["Future[Result]"], progress: Callable[[int, int], None]
) -> None:
    """Wait for all, or for the first that fails."""
    for done, future in enumerate(as_completed(futures), start=1):
        if future.exception() is not None:
            break
        progress(done, len(futures))


def _end_processes(others: set[BaseProcess]) -> None:
    for process in set(multiprocessing.active_children()) - others:
        process.terminate()


def _begin_process(work: Callable[[Any], Any], num_threads: int) -> None:
    """Prepare a worker: it leaves Ctrl-C to its parent and does not outlive it."""
    global _work_of_this_process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from veloxseg.volumes.itk import sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(num_threads)
    _work_of_this_process = work


def _end_with_parent() -> None:
    # A parent that was killed (kill -9) leaves its workers waiting for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_on(item: Any) -> Any:
    return _work_of_this_process(item)
