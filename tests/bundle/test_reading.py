"""What is no sound bundle is refused, in a folder and in a zip alike."""

import hashlib
import json
import os
import pickle
import shutil
import time
import zipfile
from pathlib import Path

import pytest

from veloxseg.bundle import container
from veloxseg.bundle.format import FORMAT_VERSION
from veloxseg.bundle.reading import open_bundle
from veloxseg.errors import BundleError

_PIPELINE = {
    "channels": ["CT", "PET"],
    "labels": {"background": 0, "lesion": 1},
    "spacing": [3.0, 1.0, 1.0],
    "normalisation": [{"scheme": "z_score"}, {"scheme": "none"}],
    "patch_size": [32, 64, 64],
}
_MANIFEST = {
    "format_version": FORMAT_VERSION,
    "name": "tiny",
    "created": "2026-01-01T00:00:00Z",
    "versions": {"veloxseg": "0.1.0"},
    "source": "a test",
    "num_parameters": 1,
    "multiply_adds": 1,
}
_SAFETENSORS = (640).to_bytes(8, "little") + b'{"a":{}}'.ljust(640)  # begins as a pickle does


def _files(**changed: object) -> dict[str, bytes]:
    return {
        "pipeline.json": json.dumps(_PIPELINE | changed).encode(),
        "model.onnx": b"\x08\x08 float32",
        "model.int8.onnx": b"\x08\x08 int8",
        "weights.safetensors": _SAFETENSORS,
    }


def _hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


class Maker:
    """Makes a bundle, sound or not, of one of the kinds."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.folder = folder / "tiny.veloxseg"
        self.zip = folder / "tiny.veloxseg.zip"

    def make(
        self, content: dict[str, bytes], unlisted: dict[str, bytes] | None = None, /, **manifest
    ) -> Path:
        text = json.dumps({**_MANIFEST, "files": _hashes(content), **manifest})
        return self.lay({"manifest.json": text.encode(), **content, **(unlisted or {})})

    def lay(self, files: dict[str, bytes]) -> Path:
        if self.kind == "folder":
            for name, content in files.items():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(content)
            return self.folder
        top = {"zip": "", "zip of folder": "tiny.veloxseg/"}[self.kind]
        with zipfile.ZipFile(self.zip, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(top + name, content)
        return self.zip


@pytest.fixture(params=["folder", "zip", "zip of folder"])
def maker(request, tmp_path):
    return Maker(tmp_path, request.param)


def test_a_sound_bundle_gives_its_files(maker):
    path = maker.make(_files())
    bundle = open_bundle(path)
    assert bundle.path == path
    assert bundle.manifest.name == "tiny"
    assert bundle.pipeline.channels == ("CT", "PET")
    assert bundle.precisions == ("float32", "int8")
    assert bundle.read_model() == b"\x08\x08 float32"
    assert bundle.read_model("int8") == bundle.read("model.int8.onnx") == b"\x08\x08 int8"
    assert bundle.model_hash("int8") == hashlib.sha256(b"\x08\x08 int8").hexdigest()
    assert bundle.read("weights.safetensors") == _SAFETENSORS


def test_a_file_or_precision_that_is_not_there_is_named(maker):
    bundle = open_bundle(maker.make(_files()))
    with pytest.raises(BundleError, match=r"no other\.onnx\. It holds model\.int8\.onnx, model"):
        bundle.read("other.onnx")
    with pytest.raises(BundleError, match=r"no bf16 model\. It holds float32, int8\."):
        bundle.read_model("bf16")
    with pytest.raises(BundleError, match="no bf16 model"):
        bundle.model_hash("bf16")


def test_files_in_folders_and_files_that_are_not_listed_do_no_harm(maker):
    files = {**_files(), "more/notes.txt": b"notes"}
    unlisted = {"README.txt": b"hello", ".DS_Store": b"\0\1", "more/picture.png": b"\x89PNG"}
    bundle = open_bundle(maker.make(files, unlisted))
    assert bundle.read("more/notes.txt") == b"notes"
    with pytest.raises(BundleError, match=r"no README\.txt"):
        bundle.read("README.txt")


@pytest.mark.parametrize("name", ["pipeline.json", "model.onnx", "weights.safetensors"])
def test_one_changed_byte_is_found(maker, name):
    files = _files()
    hashes = _hashes(files)
    files[name] = bytes([files[name][0] ^ 1]) + files[name][1:]
    with pytest.raises(BundleError, match=rf"{name} has SHA-256 .*changed or damaged"):
        open_bundle(maker.make(files, files=hashes))


def test_a_file_changed_after_opening_is_found(tmp_path):
    path = Maker(tmp_path, "folder").make(_files())
    bundle = open_bundle(path)
    (path / "model.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"model\.onnx has SHA-256"):
        bundle.read_model()


def test_a_missing_file_is_named(maker):
    files = _files()
    hashes = _hashes(files)
    del files["model.onnx"]
    with pytest.raises(BundleError, match=r"model\.onnx missing"):
        open_bundle(maker.make(files, files=hashes))


@pytest.mark.parametrize(("version", "optional"), [(1, {}), (2, {"optional": ["PET"]})])
def test_bundles_of_older_formats_are_read(maker, version, optional):
    bundle = open_bundle(maker.make(_files(**optional), format_version=version))
    assert bundle.pipeline.optional == tuple(optional.get("optional", ()))


def test_a_newer_format_asks_for_an_upgrade_even_with_keys_unknown_here(maker):
    newer = FORMAT_VERSION + 1
    path = maker.make(_files(), format_version=newer, of_the_future=True)
    with pytest.raises(BundleError, match=rf"format {newer}.*pip install --upgrade veloxseg"):
        open_bundle(path)


@pytest.mark.parametrize("version", [0, -1, "one", None])
def test_a_format_that_never_was_is_refused(maker, version):
    with pytest.raises(BundleError, match="format"):
        open_bundle(maker.make(_files(), format_version=version))


@pytest.mark.parametrize(
    "name",
    [
        "../model.onnx",
        "more/../../model.onnx",
        "/etc/hostname",
        "C:\\model.onnx",
        "C:model.onnx",
        "more\\model.onnx",
        "./model.onnx",
        "more//model.onnx",
        "..",
        "",
        "model\n.onnx",
    ],
)
def test_a_listed_path_that_could_leave_the_bundle_is_refused(maker, name):
    files = _files()
    hashes = _hashes(files)
    path = maker.make(files, files={**hashes, name: hashes["model.onnx"]})
    with pytest.raises(BundleError, match="could leave the bundle"):
        open_bundle(path)


@pytest.mark.parametrize("name", ["../out.onnx", "/out.onnx", "a\\out.onnx"])
def test_a_zip_with_such_a_path_is_refused_even_if_it_is_not_listed(tmp_path, name):
    path = Maker(tmp_path, "zip").make(_files(), {name: b"x"})
    with pytest.raises(BundleError, match="could leave the bundle"):
        open_bundle(path)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_link_that_leaves_the_folder_is_refused(tmp_path, name):
    path = Maker(tmp_path, "folder").make(_files())
    (path / name).rename(tmp_path / "outside")
    (path / name).symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match=f"{name} is a link to .*outside"):
        open_bundle(path)


def test_a_linked_folder_that_leaves_the_bundle_is_refused(tmp_path):
    path = Maker(tmp_path, "folder").make({**_files(), "more/notes.txt": b"notes"})
    (path / "more").rename(tmp_path / "outside")
    (path / "more").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match=r"more/notes\.txt"):
        open_bundle(path)


def test_links_within_the_bundle_and_to_the_bundle_are_followed(tmp_path):
    path = Maker(tmp_path, "folder").make(_files())
    (path / "model.onnx").rename(path / "really.onnx")
    (path / "model.onnx").symlink_to("really.onnx")
    (tmp_path / "link.veloxseg").symlink_to(path)
    assert open_bundle(tmp_path / "link.veloxseg").read_model() == b"\x08\x08 float32"


def test_an_unlisted_link_that_leaves_the_folder_is_not_opened(tmp_path):
    path = Maker(tmp_path, "folder").make(_files())
    (path / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_bytes(pickle.dumps({"a": 1}))
    (path / "dangling").symlink_to(tmp_path / "nowhere")
    open_bundle(path)


def test_a_link_in_a_zip_is_refused(tmp_path):
    path = Maker(tmp_path, "zip").make(_files())
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/hostname")
    with pytest.raises(BundleError, match="link is a link"):
        open_bundle(path)


def _checkpoint(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "inner.zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    return (folder / "inner.zip").read_bytes()


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize(
    "name", ["weights.pkl", "weights.pth", "weights.PT", "a/b.pickle", "c.ckpt"]
)
def test_a_pickle_by_its_ending_refuses_the_bundle(maker, name, is_listed):
    files, unlisted = ({name: b"x"}, {}) if is_listed else ({}, {name: b"x"})
    with pytest.raises(BundleError, match=f"{name} is a pickle, .*never loaded"):
        open_bundle(maker.make({**_files(), **files}, unlisted))


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5, "checkpoint"])
def test_a_pickle_by_its_content_refuses_the_bundle(maker, tmp_path, protocol, is_listed):
    content = (
        _checkpoint(tmp_path)
        if protocol == "checkpoint"
        else pickle.dumps({"weights": [1, 2]}, protocol=protocol)
    )
    entry = {"notes.txt": content}
    files, unlisted = (entry, {}) if is_listed else ({}, entry)
    with pytest.raises(BundleError, match=r"notes\.txt is a pickle"):
        open_bundle(maker.make({**_files(), **files}, unlisted))


@pytest.mark.parametrize("name", ["manifest.json", "pipeline.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null"])
def test_what_is_no_json_of_ours_is_refused(maker, name, content):
    files = {**_files(), name: content}
    path = maker.make(files) if name == "pipeline.json" else maker.lay(files)
    with pytest.raises(BundleError, match=f"{name} is"):
        open_bundle(path)


def test_unknown_keys_are_refused(maker):
    with pytest.raises(BundleError, match=r"pipeline\.json is not what .*window"):
        open_bundle(maker.make(_files(window=3)))
    with pytest.raises(BundleError, match=r"manifest\.json is not what .*mood"):
        open_bundle(maker.make(_files(), mood="good"))


def test_a_pipeline_that_is_not_vouched_for_is_refused(maker):
    files = _files()
    pipeline = {"pipeline.json": files.pop("pipeline.json")}
    with pytest.raises(BundleError, match=r"lists no pipeline\.json"):
        open_bundle(maker.make(files, pipeline))


@pytest.mark.parametrize("kind", ["zip", "zip of folder"])
@pytest.mark.parametrize("part", [0, 0.3, 0.9, 0.999])
def test_a_zip_cut_short_is_refused(tmp_path, kind, part):
    path = Maker(tmp_path, kind).make(_files())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(BundleError, match="cut short, damaged or no zip"):
        open_bundle(path)


def test_a_zip_damaged_inside_a_file_is_refused(tmp_path):
    path = Maker(tmp_path, "zip").make({**_files(), "model.onnx": os.urandom(10_000)})
    content = bytearray(path.read_bytes())
    content[content.index(b"model.onnx") + 5_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"damaged|SHA-256"):
        open_bundle(path)


def test_a_zip_with_a_name_twice_is_refused(tmp_path):
    path = Maker(tmp_path, "zip").make(_files())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model.onnx", b"another")
    with pytest.raises(BundleError, match=r"holds model\.onnx twice"):
        open_bundle(path)


def test_a_zip_with_the_bundle_deeper_or_with_two_is_refused(tmp_path):
    folder = Maker(tmp_path, "folder").make(_files())
    for number, prefixes in enumerate([("a/b/",), ("a/", "b/")]):
        path = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for prefix in prefixes:
                for file in folder.iterdir():
                    archive.write(file, prefix + file.name)
        with pytest.raises(BundleError, match=r"manifest\.json at its top or in a folder there"):
            open_bundle(path)


@pytest.mark.parametrize(
    "name", [".DS_Store", "__MACOSX/tiny.veloxseg/._manifest.json", "other/model.onnx", "notes.pkl"]
)
def test_what_lies_in_a_zip_beside_the_bundles_folder_does_no_harm(tmp_path, name):
    path = Maker(tmp_path, "zip of folder").make(_files())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"\0\5\x16\7 of macOS")
    assert open_bundle(path).read_model() == b"\x08\x08 float32"


def test_a_file_beside_the_bundles_folder_is_not_taken_for_one_that_is_missing(tmp_path):
    files = _files()
    model = files.pop("model.onnx")
    path = Maker(tmp_path, "zip of folder").make(files, files=_hashes(_files()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model.onnx", model)
    with pytest.raises(BundleError, match=r"model\.onnx missing"):
        open_bundle(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_not_every_python_unpacks_is_refused(tmp_path, method):
    path = Maker(tmp_path, "zip").make(_files())
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr("notes.txt", b"notes")
    with pytest.raises(BundleError, match=rf"notes\.txt is packed by method {method}\. .*Deflate"):
        open_bundle(path)


def test_a_name_in_a_zip_cannot_rewrite_the_terminal(tmp_path):
    path = Maker(tmp_path, "zip").make(_files(), {"a\x1b[2J": b""})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a\x1b[2J", b"")
    with pytest.raises(BundleError) as told:
        open_bundle(path)
    assert "\x1b" not in str(told.value)


def test_a_zip_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    path = Maker(tmp_path, "zip").make({**_files(), "zeros.bin": bytes(50_000_000)})
    open_bundle(path)
    monkeypatch.setattr(container, "LARGEST_ZIP_BYTES", 40_000_000)
    start = time.perf_counter()
    with pytest.raises(BundleError, match=r"unpacks to 0\.0 GiB"):
        open_bundle(path)
    assert time.perf_counter() - start < 1


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path):
    path = Maker(tmp_path, "zip").make({**_files(), "zeros.bin": bytes(50_000_000)})
    content = path.read_bytes().replace(
        (50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    )
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"damaged|SHA-256"):
        open_bundle(path)


def test_what_is_no_bundle_at_all_is_refused(tmp_path):
    with pytest.raises(BundleError, match="found nothing"):
        open_bundle(tmp_path / "absent.veloxseg")
    with pytest.raises(BundleError, match=r"no manifest\.json.*veloxseg export"):
        open_bundle(tmp_path)
    (tmp_path / "text.veloxseg").write_text("hello")
    with pytest.raises(BundleError, match="no zip"):
        open_bundle(tmp_path / "text.veloxseg")


def test_a_bundle_moved_elsewhere_opens(maker, tmp_path):
    path = maker.make(_files())
    moved = tmp_path / "elsewhere" / path.name
    moved.parent.mkdir()
    shutil.move(path, moved)
    assert open_bundle(moved).read_model() == b"\x08\x08 float32"


def test_seven_megabytes_are_verified_at_once(maker):
    path = maker.make({**_files(), "model.onnx": os.urandom(7_000_000)})
    times = []
    for _ in range(5):
        start = time.perf_counter()
        open_bundle(path)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.2  # 10 to 40 ms here; more would mean that files are read many times
