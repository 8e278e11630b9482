"""What figures depend on: processor, cores, memory and versions."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

from veloxseg.installation import module_version, num_cores
from veloxseg.runtime.backends.opening import installed_backends


def describe_machine() -> dict[str, Any]:
    """The machine as JSON: ``processor``, ``cores``, ``memory_gb``, ``system``, ``versions``."""
    packages = ("veloxseg", "numpy", *installed_backends())
    return {
        "processor": processor(),
        "cores": num_cores(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            **{package: module_version(package) for package in packages},
        },
    }


def processor() -> str:
    """The processor's name, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
