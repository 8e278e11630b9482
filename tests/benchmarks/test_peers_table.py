"""The table of networks: what it prints, what it refuses to mix, and a run of it."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planned_dataset import NAME, planned_workspace
from veloxseg.atomic import read_json, write_json
from veloxseg.errors import VeloxSegError
from veloxseg.training.record import read_record, write_record
from veloxseg.training.settings import TrainingSettings

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "peers_table.py"

TRAINED = {
    "minutes": 10.0,
    "clock": "CPU",
    "wall_minutes_of_last_session": 13.3,  # as tables made before have it
    "steps": 1111,
    "seed": 0,
    "patch_size": [40, 56, 40],
    "batch_size": 2,
    "learning_rate": 0.001,
    "optimizer": "adamw",
    "peak_training_mb": 1523.38,
}
COST = {
    "cases": 2,
    "cpu_seconds_per_case": 0.497,
    "peak_inference_mb": None,
    "parameters": 4700931,
    "multiply_adds": 6207488000,
}


def judged(*, interval=(0.83, 0.85), undefined=0):
    dice = {"mean": 0.8412, "interval_95": interval}
    distance = {"mean": 1.9216, "num_undefined": undefined}
    means = {"Dice": dice, "HD95_mm": distance, "NSD": {"mean": None}}
    return {"statistics": {"foreground_mean": means}}


@pytest.fixture
def script():
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("peers_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(tmp_path):
    """Results of two networks, of which one is trained only."""
    for name, content in (("train", TRAINED), ("judge", judged()), ("measure", COST)):
        write_json(tmp_path / f"segresnet.{name}.json", content)
    write_json(tmp_path / "veloxseg_b.train.json", TRAINED)
    return tmp_path


def printed(script, results, capsys):
    script.main(["table", str(results)])
    return capsys.readouterr().out.splitlines()


def test_the_table_has_a_row_of_every_network_that_was_trained_ours_first(script, results, capsys):
    heads, line, ours, theirs = printed(script, results, capsys)
    columns = [head.strip() for head in heads.strip("|").split("|")]
    cells = [cell.strip() for cell in theirs.strip("|").split("|")]
    assert dict(zip(columns, cells, strict=True)) == {
        "network": "segresnet",
        "parameters": "4.70 M",
        "multiply-adds": "6.21 G",
        "patch, batch": "40×56×40, 2",
        "rate": "0.001",
        "steps": "1111",
        "Dice (95 %)": "0.841 (0.830 to 0.850)",
        "HD95 mm": "1.92",
        "NSD at 1 mm": "–",
        "CPU s a case": "0.50",
        "peak MB: training, inference": "1523, –",
    }
    assert ours.startswith("| veloxseg_b | | |")
    assert {row.count("|") for row in (heads, line, ours, theirs)} == {12}


def test_a_single_case_has_no_interval_and_undefined_distances_are_counted(script, results, capsys):
    write_json(results / "segresnet.judge.json", judged(interval=None, undefined=3))
    row = printed(script, results, capsys)[-1]
    assert "| 0.841 | 1.92, undefined in 3 |" in row


def test_the_table_says_how_fast_the_machine_was_for_all_rows(script, results, capsys):
    for network, rates in (("segresnet", [61.2, 58.7]), ("unetr", [60.1, 64.4])):
        write_json(results / f"{network}.train.json", {**TRAINED, "matrix_product_gflops": rates})
    for name, content in (("judge", judged()), ("measure", COST)):
        write_json(results / f"unetr.{name}.json", content)
    last = printed(script, results, capsys)[-1]
    assert last == "Matrix products, one thread, GFLOP/s: 59 to 64."


def test_the_table_says_the_settings_above(script, results, capsys):
    script.require_same_settings(script.parse(["run", "ROOT", str(results), "--fold", "1"]))
    assert printed(script, results, capsys)[0] == (
        "dataset 4, fold 1, minutes 30.0, clock CPU, seed 0, max_cases 20"
    )


def test_without_a_budget_it_is_thirty_minutes_of_cpu_time(script):
    assert script.parse(["run", "ROOT", "RESULTS"]).cpu_minutes == 30
    by_wall = script.parse(["run", "ROOT", "RESULTS", "--minutes", "5"])
    assert (by_wall.minutes, by_wall.cpu_minutes) == (5, None)


def test_two_budgets_are_refused(script, capsys):
    with pytest.raises(SystemExit):
        script.parse(["run", "ROOT", "RESULTS", "--minutes", "5", "--cpu-minutes", "5"])
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changed",
    [["--cpu-minutes", "10"], ["--minutes", "30"], ["--seed", "1"], ["--fold", "1"],
     ["--dataset", "5"], ["--max-cases", "2"], ["--learning-rate", "1e-3"]],
)  # fmt: skip
def test_results_of_other_settings_are_not_put_into_the_same_table(script, results, changed):
    words = ["run", "ROOT", str(results)]
    script.require_same_settings(script.parse(words))
    before = read_json(results / "settings.json")
    script.require_same_settings(script.parse([*words, "segresnet"]))
    with pytest.raises(SystemExit, match="Give another folder of results"):
        script.require_same_settings(script.parse([*words, *changed]))
    assert read_json(results / "settings.json") == before


def test_a_training_that_something_else_began_is_refused(script, tmp_path):
    wanted = TrainingSettings(dataset=NAME, fold=0, network="segresnet", cpu_minutes=30.0, seed=1)
    script.require_same_training(tmp_path, wanted)  # nothing there yet
    (tmp_path / "checkpoint_latest.pth").touch()
    begun = {"network": "segresnet", "cpu_minutes": 30.0, "seed": 1}
    write_record(tmp_path, plans={}, **begun)
    script.require_same_training(tmp_path, wanted)
    write_record(tmp_path, plans={}, **begun, learning_rate=1e-3)
    with pytest.raises(VeloxSegError, match=r"learning_rate is 0\.001 and not None"):
        script.require_same_training(tmp_path, wanted)
    (tmp_path / "run.json").unlink()
    with pytest.raises(VeloxSegError, match="network is None and not segresnet"):
        script.require_same_training(tmp_path, wanted)


def test_a_stage_that_fails_leaves_the_other_networks_their_turn(
    script, tmp_path, monkeypatch, capsys
):
    begun = []

    def end(words):
        stage, network = words[2], words[5]
        begun.append((network, stage))
        return 2 if (network, stage) == ("vnet", "judge") else 0

    monkeypatch.setattr(script, "_run_to_its_end", end)
    with pytest.raises(SystemExit, match="Failed: vnet"):
        script.main(["run", "ROOT", str(tmp_path), "vnet", "unetr"])
    stages = ["train", "judge", "measure"]
    assert begun == [("vnet", s) for s in stages[:2]] + [("unetr", s) for s in stages]
    assert "vnet: judge failed with code 2" in capsys.readouterr().out


def test_a_module_changes_no_environment_and_imports_no_pytorch():
    code = (
        "import os, sys; before = dict(os.environ); import peers_table; "
        "assert before == dict(os.environ); assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent, check=True)


@pytest.mark.slow  # processes that load PyTorch and nnU-Net, three of them twice
def test_networks_are_trained_judged_and_measured_and_a_stopped_training_goes_on(
    tmp_path, monkeypatch
):
    workspace = planned_workspace(tmp_path / "root", monkeypatch)
    results = tmp_path / "results"
    words = [sys.executable, str(SCRIPT), "run", str(tmp_path / "root"), str(results)]
    words += ["veloxseg_s", "--dataset", NAME, "--cpu-minutes", "0.2", "--max-cases", "1"]
    folder = workspace.results / NAME / "VeloxSegTrainer__VeloxSegPlans_veloxseg_s__3d_fullres"
    stopped = _stopped_in_training(words, folder / "fold_0")
    assert stopped["steps"] > 0
    assert not (results / "veloxseg_s.train.json").exists()

    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    row = _row(done.stdout)
    trained = read_json(results / "veloxseg_s.train.json")
    record = read_record(folder / "fold_0")
    assert trained["steps"] == record["steps"] > stopped["steps"]
    assert (trained["minutes"], trained["clock"], trained["batch_size"]) == (0.2, "CPU", 2)
    assert record["cpu_seconds"] == pytest.approx(12, abs=4)
    assert f"| {trained['learning_rate']:g} | {trained['steps']} |" in row
    assert read_json(results / "veloxseg_s.measure.json")["cases"] == 1
    assert len(read_json(results / "veloxseg_s.judge.json")["cases"]) == 1

    before = {file: file.stat().st_mtime_ns for file in results.iterdir()}
    again = subprocess.run(words, capture_output=True, text=True, check=True)
    assert _row(again.stdout) == row
    assert {file: file.stat().st_mtime_ns for file in results.iterdir()} == before


def _row(printed):
    (row,) = (line for line in printed.splitlines() if line.startswith("| veloxseg_s |"))
    return row


def _stopped_in_training(words, fold):
    """The record of a training that SIGTERM stopped after its first epoch."""
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    end = time.monotonic() + 300
    while not (fold / "checkpoint_best.pth").is_file():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < end
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    return read_record(fold)
