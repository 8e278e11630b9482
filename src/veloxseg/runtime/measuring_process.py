"""A process of its own for each measurement, so that memory and threads are its alone."""

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from veloxseg.errors import VeloxSegError

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class MeasurementError(VeloxSegError):
    """A measuring process ended with another code than 0.

    Attributes:
        code: Its exit code.
        said: The last line of what it said.
    """

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"The measuring process ended with code {code}: {said}")
        self.code = code
        self.said = said


def run_measurement(words: Sequence[str], *, threads: int) -> dict[str, Any]:
    """Run a command that prints its result as JSON in its last line.

    Args:
        words: The command.
        threads: That numerical libraries may take in it.

    Raises:
        MeasurementError: it ended with another code than 0.
    """
    limits = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    done = subprocess.run(
        words, env={**os.environ, **limits}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message; was memory short?"]
        raise MeasurementError(done.returncode, said[-1])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
