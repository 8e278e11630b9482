"""Where the runtime keeps what it learns about this machine."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """The user's cache folder of VeloxSeg; ``VELOXSEG_CACHE`` names another."""
    chosen = os.environ.get("VELOXSEG_CACHE")
    return Path(chosen) if chosen else user_cache_path("veloxseg", appauthor=False)
