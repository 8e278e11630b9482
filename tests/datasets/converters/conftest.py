import pytest

from veloxseg.datasets.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.resolve(tmp_path / "work")
