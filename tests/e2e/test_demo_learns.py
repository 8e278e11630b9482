import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_the_demo_finds_lesions_of_unseen_patients_and_says_what_next(
    command: Command, tmp_path: Path
) -> None:
    output = tmp_path / "demo"
    said = command("veloxseg", "demo", "--output", output).stdout
    summary = json.loads((output / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] > 0.6
    assert len(summary["metric_per_case"]) == 6
    assert (output / "overlay.png").read_bytes().startswith(b"\x89PNG")
    assert "Next, your own scans" in said
