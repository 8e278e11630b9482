"""From files to files: what is written, what is refused, and what a killed run leaves."""

import gzip
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest

import veloxseg
from bundles import write_small_bundle
from veloxseg.errors import BundleError, DatasetError, GeometryError, ImageReadError, VeloxSegError
from veloxseg.runtime.case import PredictionWarning
from veloxseg.runtime.prediction import predict
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Volume

SHAPE = (20, 24, 28)
SPACING = (3.0, 2.0, 2.0)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "small.veloxseg")


def image(seed: int = 0, **changes: object) -> Volume:
    data = np.random.default_rng(seed).normal(0, 80, SHAPE).astype(np.float32)
    fields = {"data": data, "spacing_zyx": SPACING, "origin_xyz": (5.0, -7.0, 11.0)}
    return Volume(**(fields | {"direction": OBLIQUE} | changes))  # type: ignore[arg-type]


@pytest.fixture
def case(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"]
    for seed, file in enumerate(files):
        write_volume(file, image(seed))
    return files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for number in range(12):
        for channel in range(2):
            write_volume(
                folder / f"case_{number:02d}_{channel:04d}.nii.gz", image(2 * number + channel)
            )
    return folder


def test_a_mask_lies_on_the_grid_of_its_image_to_the_bit(
    bundle: Path, case: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "out" / "mask.nii.gz"
    done = predict(bundle, case, output)

    assert done.masks == (output,)
    source, mask = nibabel.load(case[0]), nibabel.load(output)
    assert (mask.affine == source.affine).all()
    assert mask.get_data_dtype() == np.uint8
    assert set(np.unique(mask.dataobj)) == {0, 1, 2}


def test_volumes_are_those_of_the_written_masks(bundle: Path, folder: Path, tmp_path: Path) -> None:
    done = predict(bundle, folder, tmp_path / "masks")

    assert len(done.masks) == 12
    volumes = json.loads(done.volumes[0].read_text())["volumes_ml"]
    for path in done.masks:
        data = read_volume(path).data
        for value, label in enumerate(("liver", "lesion"), start=1):
            expected = (data == value).sum() * 12 / 1000  # 3 x 2 x 2 mm
            assert volumes[path.name.removesuffix(".nii.gz")][label] == pytest.approx(expected)
    rows = done.volumes[1].read_text().splitlines()
    assert rows[0] == "case,liver (ml),lesion (ml)"
    assert len(rows) == 13


def test_python_gets_mask_volumes_spacing_and_timings_from_arrays(bundle: Path) -> None:
    found = veloxseg.load(bundle).predict([image(0), image(1)])

    assert found.mask.shape == SHAPE
    assert found.spacing_zyx == SPACING
    assert found.volumes_ml["liver"] == pytest.approx((found.mask == 1).sum() * 0.012)
    assert {"read", "preprocess", "network", "postprocess"} <= set(found.timings)
    assert found.num_tiles > 1


def test_arrays_and_files_give_one_mask(bundle: Path, case: list[Path], tmp_path: Path) -> None:
    model = veloxseg.load(bundle)
    from_arrays = model.predict([image(0), image(1)])
    from_files = model.predict(case)
    np.testing.assert_array_equal(from_arrays.mask, from_files.mask)

    from_files.save(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "m.nii.gz").data, from_files.mask)


def test_a_bundle_that_mirrors_does_so_unless_told_not_to(bundle: Path, tmp_path: Path) -> None:
    mirroring = write_small_bundle(tmp_path / "mirroring.veloxseg", mirroring=True)
    images = [image(0), image(1)]
    plain, mirrored = (
        veloxseg.load(bundle).predict(images, mirroring=asked).mask for asked in (False, True)
    )
    assert not np.array_equal(plain, mirrored)

    model = veloxseg.load(mirroring)
    assert np.array_equal(model.predict(images).mask, mirrored)
    assert np.array_equal(model.predict(images, mirroring=False).mask, plain)


def test_probabilities_are_saved_beside_the_mask(
    bundle: Path, case: list[Path], tmp_path: Path
) -> None:
    predict(bundle, case, tmp_path / "out", probabilities=True)

    chances = np.load(tmp_path / "out" / "a.npz")["probabilities"]
    mask = read_volume(tmp_path / "out" / "a.nii.gz").data
    np.testing.assert_allclose(chances.astype(np.float32).sum(axis=0), 1, atol=2e-3)
    best = np.sort(chances, axis=0)
    clear = best[-1] - best[-2] > 0.01  # float16 makes ties of near ones
    assert (chances.argmax(axis=0) == mask)[clear].all()


@pytest.mark.parametrize("orientation", ["stored", "ras"])
def test_an_image_stored_in_another_order_of_axes_gives_the_mask_in_its_own(
    tmp_path: Path, orientation: str
) -> None:
    model = veloxseg.load(
        write_small_bundle(
            tmp_path / "b.veloxseg", orientation=orientation, spacing=(2.0, 2.0, 2.0)
        )
    )
    plain = [image(seed, spacing_zyx=(2.0, 2.0, 2.0), direction=_IDENTITY) for seed in range(2)]
    flipped = [_flip_x(volume) for volume in plain]

    mask, other = model.predict(plain).mask, model.predict(flipped).mask[:, :, ::-1]

    assert (mask == other).all() == (orientation == "ras")
    assert len(np.unique(mask)) == 3


def test_resume_leaves_finished_masks_and_completes_the_volumes(
    bundle: Path, folder: Path, tmp_path: Path
) -> None:
    first = predict(bundle, [folder], tmp_path)
    before = first.volumes[0].read_text()
    first.masks[3].unlink()
    first.volumes[0].unlink()
    kept = first.masks[0].stat().st_mtime_ns

    again = predict(bundle, [folder], tmp_path, resume=True)

    assert again.skipped == 11
    assert again.masks[0].stat().st_mtime_ns == kept
    assert again.volumes[0].read_text() == before


def test_resume_with_probabilities_makes_those_that_are_missing(
    bundle: Path, folder: Path, tmp_path: Path
) -> None:
    predict(bundle, [folder], tmp_path)
    done = predict(bundle, [folder], tmp_path, resume=True, probabilities=True)
    assert done.skipped == 0
    assert len(list(tmp_path.glob("*.npz"))) == 12


def test_resume_measures_a_mask_again_that_was_changed_by_hand(
    bundle: Path, folder: Path, tmp_path: Path
) -> None:
    mask = predict(bundle, [folder], tmp_path).masks[0]
    volume = read_volume(mask)
    time.sleep(0.02)
    write_volume(mask, Volume.on_grid(np.ones_like(volume.data), volume.grid))
    done = predict(bundle, [folder], tmp_path, resume=True)
    volumes = json.loads(done.volumes[0].read_text())["volumes_ml"]["case_00"]
    assert volumes == {"liver": pytest.approx(np.prod(SHAPE) * 0.012), "lesion": 0}


def test_cases_given_by_files_each_keep_their_volumes(
    bundle: Path, folder: Path, tmp_path: Path
) -> None:
    for number in range(2):
        files = sorted(folder.glob(f"case_{number:02d}_*"))
        predict(bundle, files, tmp_path / "masks")
    names = {path.name for path in (tmp_path / "masks").glob("*.csv")}
    assert names == {"case_00_volumes.csv", "case_01_volumes.csv"}


def test_threads_may_share_a_model(bundle: Path) -> None:
    model = veloxseg.load(bundle)
    cases = [[image(2 * n), image(2 * n + 1)] for n in range(6)]
    expected = [veloxseg.load(bundle).predict(case).mask for case in cases]
    with ThreadPoolExecutor(max_workers=6) as pool:
        found = list(pool.map(model.predict, cases))
    for one, mask in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.mask, mask)


def test_a_gpu_that_is_not_there_is_refused(bundle: Path, case: list[Path], tmp_path: Path) -> None:
    for backend in ("openvino", "onnxruntime"):
        with pytest.raises(VeloxSegError, match=r"--device cuda: .*--backend"):
            predict(bundle, case, tmp_path / "out", backend=backend, device="cuda")


def test_a_bundle_beside_the_folds_of_its_run_is_welcome(
    bundle: Path, case: list[Path], tmp_path: Path
) -> None:
    beside = tmp_path / "run" / "model.veloxseg"
    shutil.copytree(bundle, beside)
    (tmp_path / "run" / "plans.json").write_text("{}")
    assert predict(beside, case, tmp_path / "out").masks


def test_a_run_killed_at_any_time_leaves_whole_masks_and_resumes(
    bundle: Path, folder: Path, tmp_path: Path
) -> None:
    expected = {p.name: read_volume(p).data for p in predict(bundle, [folder], tmp_path).masks}
    output = tmp_path / "killed"
    command = [
        sys.executable, "-c", "from veloxseg.cli import main; main()", "predict",
        "-m", str(bundle), "-i", str(folder), "-o", str(output), "--resume", "--threads", "1",
    ]  # fmt: skip

    def finished() -> int:
        return len(list(output.glob("case_*.nii.gz")))

    for stop_after in (0, 1, 4, 7):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while finished() <= stop_after and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in output.glob("case_*.nii.gz"):
            np.testing.assert_array_equal(read_volume(path).data, expected[path.name])

    subprocess.run(command, check=True, capture_output=True)

    assert {p.name for p in output.glob("case_*.nii.gz")} == set(expected)
    for name, mask in expected.items():
        np.testing.assert_array_equal(read_volume(output / name).data, mask)
    volumes = json.loads((output / "volumes.json").read_text())["volumes_ml"]
    assert volumes == json.loads((tmp_path / "volumes.json").read_text())["volumes_ml"]


def test_wrong_number_of_channels_is_refused(
    bundle: Path, case: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=r"1 input given.*2 channel.*CT, PET"):
        predict(bundle, case[:1], tmp_path / "out")
    with pytest.raises(DatasetError, match=r"1 image given. The model needs 2: CT, PET"):
        veloxseg.load(bundle).predict(image())


def test_channels_on_different_grids_are_refused(
    bundle: Path, case: list[Path], tmp_path: Path
) -> None:
    write_volume(case[1], image(1, origin_xyz=(9.0, -7.0, 11.0)))
    with pytest.raises(DatasetError, match=r"CT has origin 5, -7, 11 mm.*PET has 9, -7, 11 mm"):
        predict(bundle, case, tmp_path / "out")
    with pytest.raises(GeometryError, match=r"CT has origin .*PET has .*one grid"):
        veloxseg.load(bundle).predict(case)


def test_a_spacing_far_from_the_training_is_a_warning_with_both(bundle: Path) -> None:
    coarse = [image(seed, spacing_zyx=(9.0, 2.0, 2.0)) for seed in range(2)]
    with pytest.warns(PredictionWarning, match=r"spacing 9 x 2 x 2 mm.*trained at 3 x 2 x 2 mm"):
        veloxseg.load(bundle).predict(coarse)


def test_an_image_of_one_value_is_a_warning(bundle: Path) -> None:
    flat = image(data=np.full(SHAPE, 7.0, np.float32))
    with pytest.warns(PredictionWarning, match="CT: every voxel is 7"):
        found = veloxseg.load(bundle).predict([flat, image(1)])
    assert found.mask.shape == SHAPE


def test_an_image_of_zeros_is_background(bundle: Path) -> None:
    empty = image(data=np.zeros(SHAPE, np.int16))
    with pytest.warns(PredictionWarning, match="every voxel is 0"):
        found = veloxseg.load(bundle).predict([empty, empty])
    assert not found.mask.any()
    assert found.num_tiles == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bundle: Path, value: float) -> None:
    volume = image()
    volume.data[3, 4, 5] = value
    with pytest.raises(DatasetError, match="PET: has voxels that are NaN or infinite"):
        veloxseg.load(bundle).predict([image(), volume])


def test_a_case_that_cannot_be_read_does_not_keep_the_others_waiting(
    bundle: Path, folder: Path, tmp_path: Path
) -> None:
    spoilt = folder / "case_03_0001.nii.gz"
    whole = spoilt.read_bytes()
    spoilt.write_bytes(whole[:-200])
    with pytest.raises(
        DatasetError, match=r"(?s)11 of 12 masks written.*case_03.*cut short"
    ) as told:
        predict(bundle, folder, tmp_path / "masks")
    assert "--resume" in str(told.value)
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 11
    spoilt.write_bytes(whole)
    done = predict(bundle, folder, tmp_path / "masks", resume=True)
    assert done.skipped == 11
    assert len(done.masks) == len(list((tmp_path / "masks").glob("*.nii.gz"))) == 12


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _with_shape(*shape: int) -> Callable[[Path], None]:
    return lambda path: nibabel.save(
        nibabel.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), path
    )


def _rgb(path: Path) -> None:
    voxels = np.zeros((4, 5, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)


def _with_header(**fields: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        header = nibabel.Nifti1Header(bytes(content[:348]))
        for name, value in fields.items():
            header[name] = value
        content[:348] = header.binaryblock
        path.write_bytes(gzip.compress(bytes(content)))

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_empty, "empty|no whole|cut short|no NIfTI"),
        (_truncated, "cut short"),
        (_with_shape(4, 5, 6, 2), "4 axes"),
        (_rgb, "3 values a voxel"),
        (_with_header(pixdim=[1, 2, 0, 3, 0, 0, 0, 0]), "spacing"),
        (_with_header(srow_x=[-2, -1.2, 0, 0], sform_code=2, qform_code=0), "not perpendicular"),
        (_with_header(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), "cut short|bytes"),
    ],
    ids=["empty", "truncated", "4-D", "RGB", "zero spacing", "sheared", "gigantic"],
)
def test_a_spoilt_file_is_refused_by_name_and_nothing_is_written(
    bundle: Path,
    case: list[Path],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    for path in case:
        spoil(path)
    with pytest.raises((DatasetError, ImageReadError), match=rf"(?s)a_0000.nii.gz.*({message})"):
        predict(bundle, case, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_training_run_is_refused_with_how_to_export_it(case: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "VeloxSegTrainer__VeloxSegPlans__3d_fullres"
    (run / "fold_0").mkdir(parents=True)
    (run / "plans.json").write_text("{}")
    for path in (run, run / "fold_0"):
        with pytest.raises(BundleError, match=r"veloxseg export .*3d_fullres"):
            predict(path, case, tmp_path / "out")


def test_an_output_folder_that_cannot_be_written_to_is_found_out_first(bundle: Path) -> None:
    locked = Path(tempfile.mkdtemp())  # pytest's folders are closed to others than their owner
    locked.chmod(0o555)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from veloxseg.runtime import prediction\n"
        "prediction.find_prediction_cases = lambda *a, **k: [prediction.PredictionCase("
        "name='a', images=(), output=Path(sys.argv[2], 'a.nii.gz'))]\n"
        "bundle = prediction.open_bundle(Path(sys.argv[1]))\n"
        "prediction.open_bundle = lambda path: bundle\n"
        "os.setuid(65534) if os.getuid() == 0 else None  # nobody: root may write anywhere\n"
        "try: prediction.predict('no/run', [], Path(sys.argv[2]))\n"
        "except PermissionError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle), str(locked)],
        capture_output=True,
        text=True,
        check=True,
    )
    locked.rmdir()
    assert "cannot be written to" in done.stdout


def test_memory_is_estimated_before_anything_is_computed(
    bundle: Path, case: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(VeloxSegError, match=r"Case a: needs about .* GB, --max-memory allows 0.1"):
        predict(bundle, case, tmp_path / "out", max_memory_gb=0.1)
    predict(bundle, case, tmp_path / "out", max_memory_gb=2)


def test_options_out_of_range_are_refused(bundle: Path, case: list[Path], tmp_path: Path) -> None:
    with pytest.raises(VeloxSegError, match="--overlap is 1"):
        predict(bundle, case, tmp_path, overlap=1.0)
    with pytest.raises(VeloxSegError, match="--threads is 0"):
        predict(bundle, case, tmp_path, threads=0)
    with pytest.raises(BundleError, match="no int8 with onnxruntime, only float32"):
        predict(bundle, case, tmp_path / "o", backend="onnxruntime", precision="int8")


def test_prediction_imports_neither_pytorch_nor_nnunet_nor_simpleitk(
    bundle: Path, case: list[Path], tmp_path: Path
) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'nnunetv2', 'SimpleITK', 'scipy', 'skimage', 'onnx'):\n"
        "    sys.modules[name] = None\n"
        "from veloxseg.cli import main\n"
        "main()\n"
    )
    for backend in ("openvino", "onnxruntime"):
        output = tmp_path / f"{backend}.nii.gz"
        subprocess.run(
            [
                sys.executable, "-c", script, "predict", "-m", str(bundle), "--backend", backend,
                "-i", str(case[0]), "-i", str(case[1]), "-o", str(output), "--save-probabilities",
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        assert read_volume(output).data.any()


_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def _flip_x(volume: Volume) -> Volume:
    """The same image in space, stored with x running the other way."""
    far = volume.origin_xyz[0] + (volume.data.shape[2] - 1) * volume.spacing_zyx[2]
    return Volume(
        data=np.ascontiguousarray(volume.data[:, :, ::-1]),
        spacing_zyx=volume.spacing_zyx,
        origin_xyz=(far, *volume.origin_xyz[1:]),
        direction=(-1.0, *_IDENTITY[1:]),
    )
