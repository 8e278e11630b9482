"""ITK on one thread: sums of floats depend on how many threads share them."""

from collections.abc import Iterator
from contextlib import contextmanager

from veloxseg.volumes.itk import sitk


@contextmanager
def one_thread() -> Iterator[None]:
    """Let ITK use one thread within the block.

    A metric's work is shared out by the process's default, whatever its own setting says.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
