from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine is known to be fastest with must not depend on earlier tests."""
    monkeypatch.setenv("VELOXSEG_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and golden files beside the repository; without it, a test skips."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"real data absent: no {folder.name}/ folder beside the repository")
    return folder
