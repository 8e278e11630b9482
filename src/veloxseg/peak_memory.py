"""How much memory this process has held."""

import sys
from pathlib import Path


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far; None where the system does not say.

    Linux's ``getrusage`` is not asked: it hands the peak of a parent on to its children.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if "VmHWM" in line)
    except (OSError, StopIteration):
        return _peak_by_getrusage()


def _peak_by_getrusage() -> float | None:
    if sys.platform == "win32":
        return None
    import resource

    scale = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
