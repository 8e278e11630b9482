"""What figures depend on: processor, cores, memory and versions."""

import os
import platform
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


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
