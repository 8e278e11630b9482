"""What may be added to the models, what is refused, and that refusing changes nothing."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import veloxseg
from bundles import small_network, write_small_bundle
from veloxseg.bundle.reading import Bundle, open_bundle
from veloxseg.errors import BundleError
from veloxseg.models import installing
from veloxseg.models.finding import find_model, known_models, resolve_model
from veloxseg.models.installing import bundle_hash, install_model, remove_model
from veloxseg.runtime.prediction import predict
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Volume


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _another(folder: Path) -> Path:
    return write_small_bundle(folder / "other" / "liver.veloxseg", network=small_network(seed=1))


def test_an_added_folder_is_the_same_bundle_byte_by_byte(
    folder_bundle: Path, installed: Path
) -> None:
    model = install_model(folder_bundle)
    assert (model.name, model.origin) == ("liver", "installed")
    assert model.path == installed / "liver.veloxseg"
    assert _files(model.path) == _files(folder_bundle)
    assert list(known_models().values()) == [model]


def test_an_added_zip_is_unpacked_to_the_files_that_its_manifest_lists(
    zip_bundle: Path,
) -> None:
    model = install_model(zip_bundle, name="mine")
    bundle = open_bundle(model.path)
    assert set(_files(model.path)) == {"manifest.json", *bundle.manifest.files}
    assert bundle_hash(model.path) == bundle_hash(zip_bundle)


def test_files_that_the_manifest_does_not_list_are_left_behind(
    folder_bundle: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(folder_bundle, tmp_path / "liver.veloxseg")
    (source / "notes.txt").write_text("patient names")
    assert "notes.txt" not in _files(install_model(source).path)


def test_the_same_bundle_again_changes_nothing(folder_bundle: Path, zip_bundle: Path) -> None:
    model = install_model(folder_bundle)
    before = model.path.stat().st_ino
    assert install_model(folder_bundle) == model
    assert model.path.stat().st_ino == before


def test_another_model_of_that_name_is_refused_unless_it_is_to_be_replaced(
    folder_bundle: Path, tmp_path: Path
) -> None:
    model = install_model(folder_bundle)
    other = _another(tmp_path)
    with pytest.raises(BundleError, match="--replace"):
        install_model(other)
    assert bundle_hash(model.path) == bundle_hash(folder_bundle)
    install_model(other, replace=True)
    assert bundle_hash(model.path) == bundle_hash(other)
    assert [path.name for path in model.path.parent.iterdir()] == ["liver.veloxseg"]


def test_a_link_gives_its_own_name(folder_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "kidney.veloxseg").symlink_to(folder_bundle)
    assert install_model(tmp_path / "kidney.veloxseg").name == "kidney"


def test_a_model_that_another_process_adds_meanwhile_is_not_lost(
    folder_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, copy = _another(tmp_path), installing._copy

    def slow_copy(bundle: Bundle, folder: Path) -> None:
        copy(bundle, folder)
        monkeypatch.setattr(installing, "_copy", copy)
        install_model(other)

    monkeypatch.setattr(installing, "_copy", slow_copy)
    with pytest.raises(BundleError, match="another model is called liver"):
        install_model(folder_bundle)
    (model,) = find_model("liver").path.parent.iterdir()
    assert bundle_hash(model) == bundle_hash(other)


def test_a_shipped_model_is_known_and_only_hidden_on_purpose(
    folder_bundle: Path, shipped: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder_bundle, shipped / "liver.veloxseg")
    assert known_models()["liver"].origin == "shipped"
    with pytest.raises(BundleError, match="comes with veloxseg"):
        remove_model("liver")
    with pytest.raises(BundleError, match="shipped"):
        install_model(_another(tmp_path))
    install_model(tmp_path / "other" / "liver.veloxseg", replace=True)
    assert known_models()["liver"].origin == "installed"
    remove_model("liver")
    assert known_models()["liver"].origin == "shipped"


def test_a_damaged_model_is_mended_by_adding_it_again(folder_bundle: Path) -> None:
    model = install_model(folder_bundle)
    (model.path / "model.onnx").write_bytes(b"damaged")
    install_model(folder_bundle)
    open_bundle(model.path)


def test_a_bundle_with_a_changed_file_is_refused(
    folder_bundle: Path, installed: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(folder_bundle, tmp_path / "liver.veloxseg")
    (source / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match="changed or damaged"):
        install_model(source)
    assert known_models() == {}


def test_a_bundle_without_a_model_is_refused(folder_bundle: Path, tmp_path: Path) -> None:
    source = shutil.copytree(folder_bundle, tmp_path / "liver.veloxseg")
    manifest = json.loads((source / "manifest.json").read_text())
    del manifest["files"]["model.onnx"]
    (source / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"no ONNX model\. Expected model\.onnx"):
        install_model(source)
    with pytest.raises(BundleError, match=r"no ONNX model\. Expected model\.onnx"):
        open_bundle(source).read_model()
    assert known_models() == {}


@pytest.mark.parametrize("name", ["../evil.onnx", "/evil.onnx", "a/../../evil.onnx", "C:\\evil"])
def test_a_zip_with_a_path_that_leaves_the_bundle_is_refused(
    name: str, zip_bundle: Path, installed: Path, tmp_path: Path
) -> None:
    evil = shutil.copy(zip_bundle, tmp_path / "evil.zip")
    with zipfile.ZipFile(evil, "a") as archive:
        archive.writestr(name, "evil")
    with pytest.raises(BundleError, match="could leave the bundle"):
        install_model(evil)
    assert known_models() == {}
    assert not list(tmp_path.rglob("evil.onnx"))


def test_a_manifest_that_lists_a_path_outside_is_refused(
    folder_bundle: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(folder_bundle, tmp_path / "liver.veloxseg")
    (tmp_path / "secret").write_text("secret")
    manifest = json.loads((source / "manifest.json").read_text())
    manifest["files"]["../secret"] = hashlib.sha256(b"secret").hexdigest()
    (source / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="could leave the bundle"):
        install_model(source)


def test_a_link_out_of_the_folder_is_refused(folder_bundle: Path, tmp_path: Path) -> None:
    source = shutil.copytree(folder_bundle, tmp_path / "liver.veloxseg")
    (tmp_path / "elsewhere").write_bytes((source / "model.onnx").read_bytes())
    (source / "model.onnx").unlink()
    (source / "model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="outside the bundle"):
        install_model(source)


def test_a_zip_of_the_expected_hash_is_taken_and_of_another_refused(zip_bundle: Path) -> None:
    right = hashlib.sha256(zip_bundle.read_bytes()).hexdigest()
    with pytest.raises(BundleError, match="it is another file"):
        install_model(zip_bundle, sha256="0" * 64)
    assert known_models() == {}
    assert install_model(zip_bundle, sha256=right.upper()).name == "liver"


def test_a_folder_is_hashed_by_its_manifest(folder_bundle: Path) -> None:
    right = hashlib.sha256((folder_bundle / "manifest.json").read_bytes()).hexdigest()
    with pytest.raises(BundleError, match=r"manifest\.json has SHA-256"):
        install_model(folder_bundle, sha256="0" * 64)
    assert install_model(folder_bundle, sha256=right).name == "liver"


@pytest.mark.parametrize("text", ["abc", "0" * 63, "g" * 64])
def test_a_hash_of_another_form_is_refused(text: str, folder_bundle: Path) -> None:
    with pytest.raises(BundleError, match="64 hexadecimal digits"):
        install_model(folder_bundle, sha256=text)


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", ".hidden", "a b", "a" * 65, "-m"])
def test_a_name_that_could_be_a_path_or_an_option_is_refused(
    name: str, folder_bundle: Path
) -> None:
    with pytest.raises(BundleError, match="--name"):
        install_model(folder_bundle, name=name)


def test_a_file_name_that_is_no_name_asks_for_one(zip_bundle: Path, tmp_path: Path) -> None:
    file = shutil.copy(zip_bundle, tmp_path / "my liver (2).zip")
    with pytest.raises(BundleError, match=r"Expected letters, digits.*Give one: --name"):
        install_model(file)
    assert install_model(file, name="liver-2").name == "liver-2"


def test_a_disk_that_fails_leaves_the_old_model(
    folder_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = install_model(folder_bundle)
    other = _another(tmp_path)

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        install_model(other, replace=True)
    assert _files(model.path) == _files(folder_bundle)
    assert [path.name for path in model.path.parent.iterdir()] == ["liver.veloxseg"]


def test_a_removed_model_is_gone_and_not_known(folder_bundle: Path, installed: Path) -> None:
    install_model(folder_bundle)
    assert remove_model("liver") == installed / "liver.veloxseg"
    assert list(installed.iterdir()) == []
    with pytest.raises(BundleError, match="no model of that name"):
        remove_model("liver")


def test_a_zip_in_either_folder_is_known_by_its_name(
    zip_bundle: Path, installed: Path, shipped: Path, tmp_path: Path
) -> None:
    shipped.mkdir(parents=True)
    shutil.copyfile(zip_bundle, shipped / "liver.zip")
    assert find_model("liver").origin == "shipped"
    with pytest.raises(BundleError, match="comes with veloxseg"):
        remove_model("liver")

    installed.mkdir(parents=True)
    shutil.copyfile(zip_bundle, installed / "liver.zip")
    assert find_model("liver").origin == "installed"
    assert remove_model("liver") == installed / "liver.zip"
    assert find_model("liver").origin == "shipped"


def test_a_zip_that_is_replaced_does_not_come_back(
    zip_bundle: Path, installed: Path, tmp_path: Path
) -> None:
    installed.mkdir(parents=True)
    shutil.copyfile(zip_bundle, installed / "liver.zip")
    model = install_model(_another(tmp_path), replace=True)
    assert list(installed.iterdir()) == [model.path]
    remove_model("liver")
    assert known_models() == {}


def test_a_zip_that_can_no_longer_be_read_may_be_replaced(
    folder_bundle: Path, installed: Path
) -> None:
    installed.mkdir(parents=True)
    (installed / "liver.zip").write_bytes(b"cut short")
    with pytest.raises(BundleError, match="--replace"):
        install_model(folder_bundle)
    assert find_model("liver").path == installed / "liver.zip"
    model = install_model(folder_bundle, replace=True)
    assert list(known_models().values()) == [model]


def test_of_a_linked_model_the_link_goes_and_not_what_it_leads_to(
    folder_bundle: Path, installed: Path, tmp_path: Path
) -> None:
    installed.mkdir(parents=True)
    own = shutil.copytree(folder_bundle, tmp_path / "own.veloxseg")
    (installed / "liver.veloxseg").symlink_to(own)
    remove_model("liver")
    assert list(installed.iterdir()) == []

    (installed / "liver.veloxseg").symlink_to(own)
    install_model(_another(tmp_path), replace=True)
    assert [path.name for path in installed.iterdir()] == ["liver.veloxseg"]
    assert not (installed / "liver.veloxseg").is_symlink()
    assert _files(own) == _files(folder_bundle)


@pytest.mark.parametrize("address", [False, True])
def test_a_user_folder_that_cannot_be_written_to_is_named_with_what_to_do(
    address: bool, zip_bundle: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "http://127.0.0.1:9/liver.zip" if address else zip_bundle
    installed.parent.mkdir()
    installed.write_text("a file")
    with pytest.raises(BundleError, match=rf"{installed}: File exists\. .*VELOXSEG_MODELS"):
        install_model(source)
    installed.unlink()
    monkeypatch.setattr("veloxseg.models.installing.os.access", lambda *_: False)
    with pytest.raises(BundleError, match=rf"{installed}: not to be written to\. .*VELOXSEG"):
        install_model(source)
    assert list(installed.iterdir()) == []


def test_a_folder_of_models_that_is_not_to_be_written_to_serves_the_same_bundle(
    folder_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = install_model(folder_bundle)
    monkeypatch.setattr("veloxseg.models.installing.os.access", lambda *_: False)
    assert install_model(folder_bundle) == model


def test_a_folder_stands_before_a_zip_of_its_name(
    folder_bundle: Path, zip_bundle: Path, installed: Path
) -> None:
    install_model(folder_bundle)
    shutil.copyfile(zip_bundle, installed / "liver.zip")
    assert find_model("liver").path == installed / "liver.veloxseg"


def test_something_else_in_the_models_place_is_left_alone(
    folder_bundle: Path, installed: Path
) -> None:
    (installed / "liver.veloxseg").mkdir(parents=True)
    with pytest.raises(BundleError, match="exists and is no bundle"):
        install_model(folder_bundle, replace=True)


@pytest.mark.parametrize(
    "source",
    ["nowhere.zip", "ftp://127.0.0.1/liver.zip", "file:///etc", "http://[bad/liver.zip"],
)
def test_what_is_not_there_or_no_web_address_is_refused(source: str) -> None:
    with pytest.raises(BundleError, match=r"found nothing|http://"):
        install_model(source)


def test_a_path_that_exists_wins_over_a_name(
    folder_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = install_model(folder_bundle)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert resolve_model("liver") == model.path
    assert resolve_model("./liver") == Path("liver")  # a path, where nothing lies
    Path("liver").mkdir()
    assert resolve_model("liver") == Path("liver")


def test_an_unknown_name_tells_the_nearest_and_the_known(folder_bundle: Path) -> None:
    with pytest.raises(BundleError, match="None is known here"):
        resolve_model("liver")
    install_model(folder_bundle)
    install_model(folder_bundle, name="kidney")
    with pytest.raises(BundleError, match=r"mean liver\? Known: kidney, liver"):
        resolve_model("livr")
    assert resolve_model("folder/livr") == Path("folder/livr")


def test_a_user_folder_that_may_not_be_read_counts_as_empty(
    folder_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path, pattern: str) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "glob", denied)
    assert known_models() == {}
    with pytest.raises(BundleError, match="None is known here"):
        resolve_model("liver")


def test_a_model_that_another_user_keeps_closed_does_not_hide_the_others(
    folder_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = install_model(folder_bundle)
    install_model(folder_bundle, name="closed")
    is_file = Path.is_file

    def denied(self: Path) -> bool:
        if self.parent.name == "closed.veloxseg":
            raise PermissionError(13, "Permission denied", str(self))
        return is_file(self)

    monkeypatch.setattr(Path, "is_file", denied)
    assert list(known_models().values()) == [model]


def test_a_model_predicts_by_its_name_as_by_its_path(folder_bundle: Path, tmp_path: Path) -> None:
    install_model(folder_bundle)
    files = [tmp_path / f"a_000{channel}.nii.gz" for channel in range(2)]
    for seed, file in enumerate(files):
        data = np.random.default_rng(seed).normal(0, 80, (16, 16, 16)).astype(np.float32)
        write_volume(file, Volume(data=data, spacing_zyx=(3.0, 2.0, 2.0)))
    settings: dict[str, Any] = {"backend": "onnxruntime", "threads": 1}
    by_name = predict("liver", files, tmp_path / "name.nii.gz", **settings)
    by_path = predict(folder_bundle, files, tmp_path / "path.nii.gz", **settings)
    masks = [read_volume(found.masks[0]).data for found in (by_name, by_path)]
    assert np.array_equal(*masks)
    assert len(np.unique(masks[0])) > 1
    mask = veloxseg.load("liver", **settings).predict(files).mask
    assert np.array_equal(mask, masks[0])
