"""nnU-Net prints a lot: its messages go to the log instead."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

_log = logging.getLogger("veloxseg.nnunet")


class _LogWriter(io.TextIOBase):
    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                _log.info(line)
        return len(text)


@contextmanager
def printing_to_log() -> Iterator[None]:
    """Send what this process prints inside the block to the logger ``veloxseg.nnunet``."""
    with redirect_stdout(_LogWriter()):
        yield
