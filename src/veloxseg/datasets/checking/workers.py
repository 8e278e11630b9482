"""Doing one thing with every case, in this process or in several, the results in order."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from veloxseg.errors import DatasetError
from veloxseg.installation import num_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def results_of(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Call ``work`` with every item.

    Args:
        work: What to do; with several workers it must be picklable, and so must what it returns: a
            function of a module, or a dataclass with ``__call__``. Processes are spawned, so a
            script that asks for several must begin below ``if __name__ == "__main__"``.
        items: What to do it with.
        num_workers: Number of processes; 1 works in this one.
        progress: Called after each item with the number done and the number of all.

    Returns:
        What ``work`` returned, in the order of ``items``.

    Raises:
        DatasetError: a process was killed, for one by a system that has run out of memory.
        Exception: what ``work`` raised.
    """
    report = progress or (lambda done, total: None)
    num_workers = min(num_workers, len(items))
    if num_workers <= 1:
        results = []
        for done, item in enumerate(items, start=1):
            results.append(work(item))
            report(done, len(items))
        return results
    try:
        with _pool(num_workers) as pool:
            futures: list[Future[Result]] = [pool.submit(work, item) for item in items]
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                report(done, len(items))
            return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise DatasetError(
            f"One of {num_workers} processes was killed, perhaps for want of memory. "
            "Run the command again with fewer: --num-workers 1"
        ) from error


@contextmanager
def _pool(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        max_workers=num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_process,
        initargs=(max(1, num_cores() // num_workers),),
    )
    try:
        yield pool
    except BaseException:  # Ctrl-C: nothing that is half done is wanted
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_process(num_threads: int) -> None:
    """Leave Ctrl-C to the parent, do not outlive it, and share the cores."""
    import os
    import signal
    import threading

    from veloxseg.volumes.itk import sitk

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(num_threads)
