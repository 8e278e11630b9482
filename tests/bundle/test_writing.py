"""A bundle is written whole or not at all."""

import random
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from veloxseg.bundle import writing
from veloxseg.bundle.format import Manifest, Normalisation, Pipeline, Verification
from veloxseg.bundle.reading import open_bundle
from veloxseg.bundle.writing import add_model, write_bundle
from veloxseg.errors import BundleError

_PIPELINE = Pipeline(
    channels=("CT",),
    labels={"background": 0, "lesion": 1},
    spacing=(3.0, 1.0, 1.0),
    normalisation=(Normalisation(scheme="none"),),
    patch_size=(32, 64, 64),
)
_MANIFEST = Manifest(
    format_version=1,
    name="tiny",
    created="2026-01-01T00:00:00Z",
    files={},
    versions={},
    source="a test",
    num_parameters=1,
    multiply_adds=1,
)
_FILES = {
    "pipeline.json": _PIPELINE.model_dump_json().encode(),
    "model.onnx": b"\x08\x08 old",
    "network/network.json": b"{}",
}
_VERIFICATION = Verification(
    backend="onnxruntime", num_patches=2, max_error=0.1, max_logit=9.0, agreement=0.999
)


@pytest.fixture(params=["tiny.veloxseg", "tiny.veloxseg.zip"])
def path(request, tmp_path):
    return tmp_path / "deep" / request.param


def _left_beside(path: Path) -> list[str]:
    return [file.name for file in path.parent.iterdir() if file != path]


def test_what_is_written_reads_back(path):
    written = write_bundle(path, _FILES, _MANIFEST)
    again = open_bundle(path)
    assert again == written
    assert again.pipeline == _PIPELINE
    assert {name: again.read(name) for name in again.manifest.files} == _FILES
    assert again.manifest.model_copy(update={"files": {}}) == _MANIFEST
    assert _left_beside(path) == []


def test_a_zip_unpacks_to_the_bundles_folder(tmp_path):
    write_bundle(tmp_path / "tiny.veloxseg.zip", _FILES, _MANIFEST)
    with zipfile.ZipFile(tmp_path / "tiny.veloxseg.zip") as archive:
        archive.extractall(tmp_path)
    assert open_bundle(tmp_path / "tiny.veloxseg").read_model() == b"\x08\x08 old"


def test_a_zip_is_compressed(tmp_path):
    write_bundle(tmp_path / "tiny.zip", {**_FILES, "w.bin": bytes(100_000)}, _MANIFEST)
    assert (tmp_path / "tiny.zip").stat().st_size < 10_000


def test_the_same_bundle_is_the_same_zip(tmp_path):
    for name in ("a", "b"):
        write_bundle(tmp_path / name / "tiny.zip", _FILES, _MANIFEST)
    first, second = (tmp_path / name / "tiny.zip" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_a_bundle_that_is_there_is_replaced_only_when_asked(path):
    write_bundle(path, _FILES, _MANIFEST)
    new = {**_FILES, "model.onnx": b"\x08\x08 new"}
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(path, new, _MANIFEST)
    assert open_bundle(path).read_model() == b"\x08\x08 old"
    write_bundle(path, new, _MANIFEST, overwrite=True)
    assert open_bundle(path).read_model() == b"\x08\x08 new"
    assert _left_beside(path) == []


def test_what_is_no_bundle_is_never_overwritten(path):
    path.mkdir(parents=True)
    (path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is no bundle"):
        write_bundle(path, _FILES, _MANIFEST, overwrite=True)
    assert (path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"../out.onnx": b""}, "could leave"),
        ({"weights.pth": b""}, "pickle"),
        ({"manifest.json": b"{}"}, "Leave it out"),
        ({"pipeline.json": b"{}"}, r"pipeline\.json is not"),
    ],
)
def test_what_could_not_be_read_is_not_written(path, files, said):
    with pytest.raises(BundleError, match=said):
        write_bundle(path, {**_FILES, **files}, _MANIFEST)
    assert not path.exists()
    assert not path.parent.exists() or _left_beside(path) == []


@pytest.mark.parametrize("is_there", [False, True])
def test_a_full_disk_leaves_the_old_bundle_or_nothing(path, is_there):
    resource = pytest.importorskip("resource")
    path.parent.mkdir()
    if is_there:
        write_bundle(path, _FILES, _MANIFEST)
    noise = random.Random(0).randbytes(50_000)  # no zip makes it smaller
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as a full disk: writes fail
    try:
        with pytest.raises(OSError, match="File too large"):
            write_bundle(path, {**_FILES, "model.onnx": noise}, _MANIFEST, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _left_beside(path) == []
    assert path.exists() == is_there
    if is_there:
        assert open_bundle(path).read_model() == b"\x08\x08 old"


def test_a_new_bundle_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "tiny.veloxseg"
    write_bundle(path, _FILES, _MANIFEST)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if ".partial." in self.name:
            raise PermissionError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        write_bundle(path, {**_FILES, "model.onnx": b"new"}, _MANIFEST, overwrite=True)
    assert open_bundle(path).read_model() == b"\x08\x08 old"
    assert _left_beside(path) == []


_KILLED = """
import sys, time
from pathlib import Path
from veloxseg.bundle import writing
sys.path.insert(0, sys.argv[2])
from test_writing import _FILES, _MANIFEST

def wait(path):
    print("written", flush=True)
    time.sleep(60)

writing.open_bundle = wait  # the last step before the bundle gets its name
writing.write_bundle(Path(sys.argv[1]), _FILES, _MANIFEST)
"""


def test_a_killed_write_leaves_only_a_hidden_file_and_the_next_write_succeeds(path):
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not path.exists()
    (leftover,) = _left_beside(path)
    assert leftover.startswith(".")
    write_bundle(path, _FILES, _MANIFEST)
    assert open_bundle(path).read_model() == b"\x08\x08 old"


def test_a_model_is_added_with_how_it_was_verified(path):
    write_bundle(path, _FILES, _MANIFEST)
    bundle = add_model(path, "int8", b"\x08\x08 int8", verification=_VERIFICATION)
    assert bundle.precisions == ("float32", "int8")
    again = open_bundle(path)
    assert again.read_model("int8") == b"\x08\x08 int8"
    assert again.read_model() == b"\x08\x08 old"
    assert again.manifest.verification == {"model.int8.onnx": _VERIFICATION}
    add_model(path, "int8", b"\x08\x08 better", verification=_VERIFICATION)
    assert open_bundle(path).read_model("int8") == b"\x08\x08 better"
    assert _left_beside(path) == []


def test_adding_a_model_keeps_what_a_user_laid_into_the_folder(tmp_path):
    path = tmp_path / "tiny.veloxseg"
    write_bundle(path, _FILES, _MANIFEST)
    (path / "notes").mkdir()
    (path / "notes" / "mine.txt").write_text("mine")
    bundle = add_model(path, "bf16", b"\x08\x08 bf16", verification=_VERIFICATION)
    assert (path / "notes" / "mine.txt").read_text() == "mine"
    assert "notes/mine.txt" not in bundle.manifest.files


def test_a_model_is_not_added_to_a_damaged_bundle(path):
    write_bundle(path, _FILES, _MANIFEST)
    if path.is_dir():
        (path / "model.onnx").write_bytes(b"changed")
    else:
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BundleError):
        add_model(path, "int8", b"x", verification=_VERIFICATION)


def test_a_model_that_does_not_fit_the_disk_leaves_the_bundle_as_it_was(path, monkeypatch):
    write_bundle(path, _FILES, _MANIFEST)
    before = open_bundle(path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_write_zip", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        add_model(path, "int8", b"x", verification=_VERIFICATION)
    monkeypatch.undo()
    assert open_bundle(path) == before
    assert _left_beside(path) == []
