"""Working on many cases at once, each in one process and one at a time in each."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess

from veloxseg.errors import DatasetError
from veloxseg.installation import num_cores

_work_of_this_process: Callable[[str], None]


def work_on_cases(
    names: Sequence[str],
    work: Callable[[str], None],
    *,
    num_workers: int,
    progress: Callable[[int], None],
) -> None:
    """Call ``work`` with every name.

    Args:
        names: The cases.
        work: What to do; with several workers it must be picklable: a function of a module, or a
            dataclass with ``__call__``, not a closure. Processes are spawned, so a script that asks
            for several must begin its work below ``if __name__ == "__main__"``.
        num_workers: Number of processes; 1 works in this one.
        progress: Called with the number done after each case, in this process.

    Raises:
        DatasetError: a process was killed, for one by a system that has run out of memory.
        Exception: what ``work`` raised, after the cases at work then are finished. Of several, that
            of the first name. No case is begun then that no process had been handed yet.
    """
    if min(num_workers, len(names)) <= 1:
        for done, name in enumerate(names, start=1):
            work(name)
            progress(done)
        return
    before: set[BaseProcess] = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        max_workers=min(num_workers, len(names)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_process,
        initargs=(work, max(1, num_cores() // num_workers)),
    )
    try:
        with pool:
            futures = [pool.submit(_work_on_case, name) for name in names]
            try:
                _wait_for_all(futures, progress)
            except BaseException:  # Ctrl-C: what is half done is done again by the next run
                _end_processes(before)
                raise
            finally:
                pool.shutdown(cancel_futures=True)
            for future in futures:
                if not future.cancelled():
                    future.result()
    except BrokenProcessPool as error:
        raise DatasetError(
            f"One of {num_workers} processes was killed, perhaps for want of memory. The cases "
            "written before stay. Run the command again with fewer: --num-workers 1"
        ) from error


def _wait_for_all(futures: Sequence["Future[None]"], progress: Callable[[int], None]) -> None:
    """Wait for all, or for the first that fails."""
    for done, future in enumerate(as_completed(futures), start=1):
        if future.exception() is not None:
            break
        progress(done)


def _end_processes(others: set[BaseProcess]) -> None:
    for process in set(multiprocessing.active_children()) - others:
        process.terminate()


def _begin_process(work: Callable[[str], None], num_threads: int) -> None:
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


def _work_on_case(name: str) -> None:
    _work_of_this_process(name)
