"""What `veloxseg benchmark` measures, writes and remembers; not how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bundles import write_small_bundle
from veloxseg.bundle.format import Verification
from veloxseg.bundle.reading import open_bundle
from veloxseg.bundle.writing import add_model
from veloxseg.cli import app
from veloxseg.errors import BundleError, DatasetError, VeloxSegError
from veloxseg.peak_memory import peak_memory_mb
from veloxseg.runtime.backends.backend import Execution
from veloxseg.runtime.benchmark import benchmark
from veloxseg.runtime.benchmark_worker import job_words, matrix_product_gflops
from veloxseg.runtime.speed import candidates, random_patches, recall_speeds

ROW_KEYS = {
    "backend", "precision", "threads", "batch", "device", "num_runs", "patches_per_second",
    "patches_per_second_min", "patches_per_second_max", "peak_memory_mb", "gflops",
    "matrix_product_gflops", "ratio_to_matrix_product",
}  # fmt: skip
STAGES = ["start", "read", "preprocess", "load", "network", "postprocess", "write"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "small.veloxseg")


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELOXSEG_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_cache")
def test_the_command_writes_a_row_for_each_engine_and_remembers_the_speeds(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(benchmark.__kwdefaults__, "seconds", 0.1)  # ten runs are the fewest
    report = tmp_path / "deep" / "report.json"
    words = ["benchmark", "-m", bundle, "--threads", "1", "--json", report]
    words += ["--backend", "openvino", "--backend", "onnxruntime"]
    result = CliRunner().invoke(app, list(map(str, words)))

    assert result.exit_code == 0, result.output
    assert "onnxruntime" in result.output
    found = json.loads(report.read_text())
    assert (found["model"], found["parameters"], found["multiply_adds"]) == ("small", 1000, 10**7)
    assert found["patch_size"] == [16, 16, 16]
    assert set(found["machine"]) == {"processor", "cores", "memory_gb", "system", "versions"}
    rows = {(row["backend"], row["precision"], row["threads"]): row for row in found["rows"]}
    assert set(rows) == {("openvino", "float32", 1), ("onnxruntime", "float32", 1)}
    for row in rows.values():
        assert set(row) == ROW_KEYS
        rate = row["patches_per_second"]
        assert 0 < row["patches_per_second_min"] <= rate <= row["patches_per_second_max"]
        assert row["num_runs"] >= 10
        assert row["gflops"] == pytest.approx(2 * 10**7 * rate / 1e9)
        assert row["ratio_to_matrix_product"] == pytest.approx(
            row["gflops"] / row["matrix_product_gflops"]
        )
        assert 20 < row["peak_memory_mb"] < 500, "a process with NumPy and an engine, not torch"
    assert found["patches_per_second"] == max(row["patches_per_second"] for row in rows.values())
    case = found["case"]
    assert case["images"] == ["random image"]
    assert case["size_zyx"] == [32, 32, 32]
    assert case["num_tiles"] == 27
    assert list(case["seconds"]) == STAGES
    assert min(case["seconds"].values()) > 0
    assert sum(case["seconds"].values()) == pytest.approx(case["total_seconds"])
    speeds = recall_speeds(open_bundle(bundle), "float32", 1)
    assert {speed.execution.backend: 1 / speed.seconds_per_patch for speed in speeds} == {
        name: pytest.approx(row["patches_per_second"]) for (name, _, _), row in rows.items()
    }


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Execution]:
    """What would be measured: here every run takes 1, 2 or 4 seconds."""
    executions = []

    def run(execution: Execution, words: list[str]) -> dict[str, Any]:
        if json.loads(words[-1])["images"]:
            stages = dict.fromkeys(STAGES[1:], 0.0)
            return {"seconds": stages, "num_tiles": 27, "size_zyx": [32] * 3, "peak_memory_mb": 1}
        executions.append(execution)
        return {
            "device": "a test",
            "seconds": [1.0, 2.0, 4.0],
            "peak_memory_mb": 1.0,
            "matrix_product_gflops": 10.0,
        }

    monkeypatch.setattr("veloxseg.runtime.benchmark._run", run)
    return executions


@pytest.mark.usefixtures("_cache")
def test_what_two_numbers_of_threads_share_is_measured_once_and_remembered_for_both(
    bundle: Path, measured: list[Execution]
) -> None:
    found = benchmark(bundle, backends=["openvino"], threads=[4, 8])

    assert len(measured) == len(set(measured)) == len(found.rates)
    rate = next(rate for rate in found.rates if rate.execution.batch == 4)
    assert rate.patches_per_second == 2, "four patches in the median of two seconds"
    assert (rate.patches_per_second_min, rate.patches_per_second_max) == (1, 4)
    assert rate.gflops == pytest.approx(0.04)
    assert rate.ratio_to_matrix_product == pytest.approx(0.004)
    for threads in (4, 8):
        speeds = recall_speeds(open_bundle(bundle), "float32", threads)
        assert {s.execution for s in speeds} == set(candidates("openvino", "float32", threads))


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            {},
            {
                ("openvino", "float32"),
                ("openvino", "bf16"),
                ("onnxruntime", "float32"),
                ("torch", "float32"),
            },
        ),
        ({"backends": ["onnxruntime"]}, {("onnxruntime", "float32")}),
        ({"precisions": ["bf16"]}, {("openvino", "bf16")}),
        (
            {"backends": ["onnxruntime", "openvino"], "precisions": ["float32", "bf16"]},
            {("onnxruntime", "float32"), ("openvino", "float32"), ("openvino", "bf16")},
        ),
    ],
)
def test_all_that_engines_can_is_measured(
    asked: dict[str, Any],
    expected: set[tuple[str, str]],
    measured: list[Execution],
    tmp_path: Path,
) -> None:
    bundle = write_small_bundle(tmp_path / "small.veloxseg")
    model = open_bundle(bundle).read_model()  # its content does not matter here
    verification = Verification(
        backend="none", num_patches=0, max_error=0.0, max_logit=1.0, agreement=1.0
    )
    add_model(bundle, "bf16", model, verification=verification)

    benchmark(bundle, threads=[1], **asked)

    assert {(one.backend, one.precision) for one in measured} == expected


def test_noise_is_the_same_each_time(bundle: Path) -> None:
    opened = open_bundle(bundle)
    patches = random_patches(opened, 2)
    assert patches.shape == (2, 2, 16, 16, 16)
    assert patches.std() > 0.9
    np.testing.assert_array_equal(patches, random_patches(opened, 2))


def test_a_precision_that_the_bundle_lacks_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"no bf16 with openvino, only float32.*veloxseg export"):
        benchmark(bundle, precisions=["bf16"])
    with pytest.raises(BundleError, match="no int8 with onnxruntime"):
        benchmark(bundle, backends=["onnxruntime"], precisions=["float32", "int8"])


def test_an_engine_that_is_not_installed_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veloxseg.runtime.backends.opening.find_spec", lambda _: None)
    with pytest.raises(VeloxSegError, match=r"openvino is not installed\. Install it: pip"):
        benchmark(bundle, backends=["openvino"])


def test_a_case_of_too_few_files_is_refused_before_anything_is_measured(bundle: Path) -> None:
    with pytest.raises(DatasetError, match=r"1 image given\. The model needs 2: CT, PET"):
        benchmark(bundle, case=[Path("ct.nii.gz")])


def test_what_a_worker_cannot_do_is_said(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('out of memory')"]
    monkeypatch.setattr("veloxseg.runtime.benchmark.job_words", lambda *_, **__: failing)
    with pytest.raises(VeloxSegError, match=r"openvino, float32, 1 thread.* code 1: out of memory"):
        benchmark(bundle, backends=["openvino"], threads=[1])


def test_a_worker_imports_no_torch(bundle: Path) -> None:
    execution = Execution(backend="onnxruntime", precision="float32", threads=1, batch=1)
    job = job_words(bundle, execution)[-1]
    script = (
        "import sys; from veloxseg.runtime import benchmark_worker as worker;"
        f"sys.argv = ['worker', {job!r}]; worker.matrix_product_gflops = lambda: 1.0;"
        "worker._main(); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["matrix_product_gflops"] == 1


def test_the_rate_of_a_matrix_product_is_that_of_a_computer() -> None:
    assert 0.1 < matrix_product_gflops(256) < 1e5


def test_peak_memory_grows_with_what_is_held() -> None:
    before = peak_memory_mb()
    held = np.ones(10**8, np.uint8)
    after = peak_memory_mb()
    if before is None or after is None:
        pytest.skip("this system does not say")
    assert held.sum() == 10**8
    assert after > 100
