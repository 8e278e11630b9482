"""What `veloxseg benchmark --peers` measures and how; not how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from veloxseg.atomic import write_json
from veloxseg.cli import app
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import PlanError, VeloxSegError
from veloxseg.network.config import NetworkConfig
from veloxseg.network.size import count_multiply_adds, count_parameters
from veloxseg.runtime import peer_benchmark
from veloxseg.runtime.peer_benchmark import (
    Comparison,
    benchmark_peers,
    comparison_of_dataset,
    comparison_of_patch,
)
from veloxseg.runtime.peer_benchmark_worker import job_words, measure

CHEAP = ["--patch", "32,32,32", "--network", "veloxseg", "--network", "segresnet"]


def _job(comparison: Comparison, network: str) -> dict[str, Any]:
    words = job_words(
        comparison.architecture(network),
        channels=comparison.channels,
        classes=comparison.classes,
        patch_size=comparison.patch_size,
        threads=1,
        seconds=0.0,
    )
    return json.loads(words[-1])  # type: ignore[no-any-return]


def _run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["benchmark", *map(str, words)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names in the order of their turns; each turn of VeloxSeg takes 1 s, others ever longer."""
    turns: list[str] = []

    def measure_none(name: str, *_: object) -> dict[str, Any]:
        turns.append(name)
        seconds = 1.0 if name == "veloxseg" else 2.0 * len(turns)
        return {
            "parameters": 10,
            "multiply_adds": 100,
            "input_size": [32, 32, 32],
            "seconds": [seconds] * 3,
            "peak_memory_mb": 100.0 + len(turns),
        }

    monkeypatch.setattr(peer_benchmark, "_run", measure_none)
    return turns


def test_networks_take_turns_and_ratios_are_within_a_round(measured: list[str]) -> None:
    comparison = comparison_of_patch((32, 32, 32))
    found = benchmark_peers(comparison, networks=["veloxseg", "vnet"], rounds=3)
    assert measured == ["veloxseg", "vnet"] * 3
    ours, theirs = found.networks
    assert ours.ratio_to_veloxseg == 1.0
    assert theirs.ratio_to_veloxseg == pytest.approx(1 / 8)  # of 1/4, 1/8 and 1/12
    assert theirs.patches_per_second == pytest.approx(1 / 8)
    assert theirs.patches_per_second_max == pytest.approx(1 / 4)
    assert theirs.num_runs == 9
    assert theirs.peak_memory_mb == 106.0
    assert "torch" in found.machine["versions"]


def test_without_veloxseg_there_is_no_ratio(measured: list[str]) -> None:
    found = benchmark_peers(comparison_of_patch((32, 32, 32)), networks=["vnet"])
    assert found.networks[0].ratio_to_veloxseg is None


def test_a_published_patch_has_the_published_network() -> None:
    comparison = comparison_of_patch((96, 96, 96), channels=2)
    arguments = comparison.architecture("veloxseg")["arch_kwargs"]
    config = NetworkConfig(num_classes=2, **arguments)
    assert config.grids[0] == (24, 24, 24)
    assert config.conv_channels == (16, 32, 64, 128)
    # the published one has 1.75 G; planned windows of the deepest grids are larger
    assert count_multiply_adds(config) == pytest.approx(1.75e9, rel=0.02)


def test_a_network_is_measured_on_the_patch_that_it_takes() -> None:
    pytest.importorskip("monai")
    found = measure(_job(comparison_of_patch((16, 16, 32)), "basicunet"))
    assert found["input_size"] == (16, 16, 32)
    assert found["parameters"] == pytest.approx(5.75e6, rel=0.01)
    assert len(found["seconds"]) == 3
    assert found["multiply_adds"] > 1e8


def test_veloxseg_has_the_figures_of_its_own_counts() -> None:
    comparison = comparison_of_patch((32, 32, 32))
    found = measure(_job(comparison, "veloxseg"))
    arguments = comparison.architecture("veloxseg")["arch_kwargs"]
    assert found["parameters"] == count_parameters(arguments, num_classes=2)
    config = NetworkConfig(num_classes=2, **arguments)
    assert found["multiply_adds"] == count_multiply_adds(config)


def test_a_worker_prints_its_result_as_the_last_line() -> None:
    comparison = comparison_of_patch((32, 32, 32))
    words = job_words(
        comparison.architecture("veloxseg_s"),
        channels=1, classes=2, patch_size=(32, 32, 32), threads=1, seconds=0.0,
    )  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["parameters"] > 1000


def test_a_worker_that_fails_is_named_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('no memory left')"]
    monkeypatch.setattr(peer_benchmark, "job_words", lambda *_, **__: failing)
    with pytest.raises(VeloxSegError, match=r"Measuring veloxseg ended with code 1 \(no memory"):
        benchmark_peers(comparison_of_patch((32, 32, 32)), networks=["veloxseg"])


def test_the_command_prints_a_table_and_writes_the_figures(
    measured: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    output = _run("--peers", *CHEAP, "--channels", 2, "--json", file)
    assert "segresnet" in output
    assert "2 channels" in output
    found = json.loads(file.read_text())
    assert (found["patch_size"], found["channels"], found["classes"]) == ([32, 32, 32], 2, 2)
    assert [one["network"] for one in found["networks"]] == ["veloxseg", "segresnet"]


def test_a_datasets_plan_says_patch_channels_and_outputs(tmp_path: Path) -> None:
    workspace = Workspace.resolve(tmp_path)
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    description = {
        "channel_names": {"0": "CT", "1": "PET"}, "labels": labels, "numTraining": 1,
        "file_ending": ".nii.gz", "regions_class_order": [1, 2],
    }  # fmt: skip
    plans = comparison_of_patch((32, 48, 32), channels=2).plans
    write_json(workspace.raw / "Dataset009_Plans" / "dataset.json", description)
    write_json(workspace.preprocessed / "Dataset009_Plans" / "VeloxSegPlans.json", plans)
    comparison = comparison_of_dataset("9", workspace=workspace)
    assert (comparison.channels, comparison.classes) == (2, 2)
    assert comparison.patch_size == (32, 48, 32)
    del description["regions_class_order"]
    description["labels"] = {"background": 0, "organ": 1, "tumour": 2, "ignore": 3}
    write_json(workspace.raw / "Dataset009_Plans" / "dataset.json", description)
    assert comparison_of_dataset("9", workspace=workspace).classes == 3


def test_an_unknown_network_is_answered_with_all_names() -> None:
    with pytest.raises(PlanError, match=r"no 'nope'.*veloxseg, veloxseg_s.*mednext_s"):
        benchmark_peers(comparison_of_patch((32, 32, 32)), networks=["nope"])


def test_a_network_that_cannot_take_the_channels_is_left_out_or_refused_at_once(
    measured: list[str],
) -> None:
    comparison = comparison_of_patch((32, 32, 32), channels=3)
    with pytest.raises(PlanError, match=r"V-Net takes 1, 2, .* has 3"):
        benchmark_peers(comparison, networks=["veloxseg", "vnet"])
    assert measured == []
    names = [one.network for one in benchmark_peers(comparison).networks]
    assert "vnet" not in names
    assert {"veloxseg", "unetr", "nnunet"} <= set(names)


def test_a_patch_that_veloxseg_cannot_take_is_answered_with_the_next_one() -> None:
    with pytest.raises(PlanError, match="The next patch is 32,32,32"):
        comparison_of_patch((30, 31, 32))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Expected a bundle"),
        (("4",), "Expected a bundle"),
        (("--network", "vnet"), "Expected a bundle"),
        (("--peers",), "give one of them"),
        (("--peers", "4", "--patch", "32,32,32"), "give one of them"),
        (("--peers", "--patch", "32x32x32"), "Expected Z,Y,X"),
        (("--peers", "--patch", "32,32"), "Expected Z,Y,X"),
        (("--peers", "--patch", "0,32,32"), "must be positive"),
        (("--peers", "-m", "x.veloxseg"), "leave out --model"),
        (("--peers", *CHEAP, "--threads", "1", "--threads", "2"), "one number of threads"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: tuple[str, ...], said: str) -> None:
    assert said in _run(*words, code=2)
