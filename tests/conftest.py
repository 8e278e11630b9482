from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and golden files beside the repository; without it, a test skips."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"real data absent: no {folder.name}/ folder beside the repository")
    return folder
