"""A process that segments all day keeps its memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bundles import write_small_bundle

LEAK = Path(__file__).resolve().parents[2] / "benchmarks" / "leak.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_ten_thousand_tiles_leave_memory_as_it_was(backend: str, tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "small.veloxseg")
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, LEAK, "-m", bundle, "--backend", backend, "--json", report],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(report.read_text())
    assert found["execution"].startswith(backend)
    assert found["tiles"] >= 10_000
    assert found["cases"] >= 200
    assert abs(found["growth_mb"]) <= found["tolerance_mb"] <= 5, found
