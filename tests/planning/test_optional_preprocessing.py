"""Cases that lack channels, planned and preprocessed: against nnU-Net's own where none lacks."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

from bundles import small_network, write_small_bundle
from veloxseg.bundle.pipeline import pipeline_from_plans
from veloxseg.datasets.cases import find_cases
from veloxseg.datasets.description import read_description
from veloxseg.evaluation.summary import evaluate_folder
from veloxseg.planning.optional import absent_channels
from veloxseg.planning.target import TARGETS
from veloxseg.runtime.prediction import predict
from veloxseg.runtime.preprocessing import preprocess_volumes
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Volume

CHANNELS = ("CT", "PET", "T1")
NUM_CASES = 5
LACKING, COMPLETE, PLAIN = "Dataset001_Lacking", "Dataset002_Complete", "Dataset003_Plain"
WITHOUT_T1 = "Dataset004_WithoutT1"
ABSENT = {"case_1": (0,), "case_2": (1, 2), "case_4": (0, 2)}
"""Of the dataset whose cases lack channels; the others have all."""

_RUN = f"""
from pathlib import Path
import sys
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import PlanError
from veloxseg.planning.plan import plan, preprocess

if __name__ == "__main__":
    workspace = Workspace.resolve(Path(sys.argv[1]))
    workspace.export()
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor

    class FewSamples(fingerprint_extractor.DatasetFingerprintExtractor):
        num_foreground_voxels_for_intensitystats = property(lambda self: 5e5, lambda self, _: None)

    fingerprint_extractor.DatasetFingerprintExtractor = FewSamples  # 1e8 would take a minute
    for name, workers in (("{LACKING}", 2), ("{COMPLETE}", 1), ("{PLAIN}", 1)):
        plan(name, workspace=workspace, num_workers=workers)
        preprocess(name, workspace=workspace, num_workers=workers)
    from veloxseg.planning.planner import VeloxSegPlanner

    target = VeloxSegPlanner("{PLAIN}", gpu_memory_target_in_gb=24).target
    Path(sys.argv[1], "target.txt").write_text(str(target))
    try:
        plan("{WITHOUT_T1}", workspace=workspace)
    except PlanError as error:
        Path(sys.argv[1], "refusal.txt").write_text(str(error))
"""


def _write_dataset(folder: Path, absent: dict[str, tuple[int, ...]], **extra: Any) -> None:
    for number in range(NUM_CASES):
        name = f"case_{number}"
        generator = np.random.default_rng(number)
        spacing = (2.5 if number % 2 else 2.0, 1.5, 1.5)
        size = (20 + number, 28, 26)
        label = np.zeros(size, np.uint8)
        label[8:13, 9:16, 8 : 15 + number] = 1
        for index in range(len(CHANNELS)):
            data = generator.normal(40 * index, 30, size).astype(np.float32) + 100 * label
            data[:, : 3 + index] = 0  # an edge of zeros to be cropped, of its own width
            if index not in absent.get(name, ()):
                path = folder / "imagesTr" / f"{name}_{index:04d}.nii.gz"
                write_volume(path, Volume(data=data, spacing_zyx=spacing))
        write_volume(
            folder / "labelsTr" / f"{name}.nii.gz", Volume(data=label, spacing_zyx=spacing)
        )
    description = {
        "channel_names": {str(index): name for index, name in enumerate(CHANNELS)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": NUM_CASES,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description | extra))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets planned and preprocessed: lacking channels, complete, none optional, none of T1."""
    root = tmp_path_factory.mktemp("root")
    raw = root / "nnUNet_raw"
    _write_dataset(raw / LACKING, ABSENT, optional=list(CHANNELS))
    _write_dataset(raw / COMPLETE, {}, optional=["PET", "T1"])
    _write_dataset(raw / PLAIN, {})
    nowhere = {f"case_{number}": (2,) for number in range(NUM_CASES)}
    _write_dataset(raw / WITHOUT_T1, nowhere, optional=["T1"])
    script = root / "run.py"
    script.write_text(_RUN)
    done = subprocess.run(
        [sys.executable, str(script), str(root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return root


def _preprocessed(root: Path, dataset: str, case: str) -> tuple[Any, Any, dict[str, Any]]:
    """Image, labels and properties."""
    folder = root / "nnUNet_preprocessed" / dataset
    (file,) = folder.glob(f"*/{case}.b2nd")
    with file.with_suffix(".pkl").open("rb") as properties:
        return (
            blosc2.open(str(file), mode="r")[:],
            blosc2.open(str(file.with_name(f"{case}_seg.b2nd")), mode="r")[:],
            pickle.load(properties),
        )


def _plans(root: Path, dataset: str) -> dict[str, Any]:
    file = root / "nnUNet_preprocessed" / dataset / "VeloxSegPlans.json"
    plans: dict[str, Any] = json.loads(file.read_text())
    return plans


def test_complete_cases_with_optional_channels_are_preprocessed_as_by_nnunet_to_the_bit(
    root: Path,
) -> None:
    for number in range(NUM_CASES):
        ours = _preprocessed(root, COMPLETE, f"case_{number}")
        theirs = _preprocessed(root, PLAIN, f"case_{number}")
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
        assert ours[0].std() > 0.5
        assert absent_channels(ours[2]) == absent_channels(theirs[2]) == ()


def test_complete_cases_with_optional_channels_have_nnunets_fingerprint_and_plan(
    root: Path,
) -> None:
    ours, theirs = (
        json.loads((root / "nnUNet_preprocessed" / name / "dataset_fingerprint.json").read_text())
        for name in (COMPLETE, PLAIN)
    )
    assert ours == theirs
    plans = _plans(root, COMPLETE)
    assert plans["configurations"] == _plans(root, PLAIN)["configurations"]
    assert plans["configurations"]["3d_fullres"]["preprocessor_name"] == "DefaultPreprocessor"


def test_every_choice_of_a_plan_is_said_nnunets_own_first(root: Path) -> None:
    configuration = _plans(root, PLAIN)["configurations"]["3d_fullres"]
    decisions = {one["what"]: one for one in configuration["decisions"]}
    assert list(decisions)[:2] == ["spacing", "normalisation"]
    assert decisions["spacing"]["value"] == "2 x 1.5 x 1.5 mm"
    assert decisions["normalisation"]["value"] == (
        "CTNormalization, ZScoreNormalization, ZScoreNormalization"
    )
    assert {"field of view", "stem stride", "stages", "patch", "windows", "widths", "batch"} <= set(
        decisions
    )


def test_nnunets_memory_target_is_the_target_of_that_name(root: Path) -> None:
    assert (root / "target.txt").read_text() == str(TARGETS["24gb"])


def test_an_absent_channel_is_zero_throughout_and_named_in_the_properties(root: Path) -> None:
    for number in range(NUM_CASES):
        case = f"case_{number}"
        image, labels, properties = _preprocessed(root, LACKING, case)
        absent = absent_channels(properties)
        assert absent == ABSENT.get(case, ())
        assert image.shape[0] == len(CHANNELS)
        assert labels.max() == 1
        for index, channel in enumerate(image):
            assert channel.any() == (index not in absent)


def test_the_crop_is_that_of_the_channels_that_are_there(root: Path) -> None:
    crops = {
        case: _preprocessed(root, LACKING, case)[2]["bbox_used_for_cropping"][1]
        for case in ("case_0", "case_1", "case_2")
    }
    # Channel i begins with 3 + i planes of zeros along y.
    assert {case: list(crop) for case, crop in crops.items()} == {
        "case_0": [3, 28],
        "case_1": [4, 28],
        "case_2": [3, 28],
    }


def test_statistics_of_a_channel_are_those_of_the_cases_that_have_it(root: Path) -> None:
    raw = root / "nnUNet_raw" / LACKING
    found = _plans(root, LACKING)["foreground_intensity_properties_per_channel"]
    for index in range(len(CHANNELS)):
        # Cases have weight alike: as many voxels are drawn of each.
        means = [
            read_volume(path).data[read_volume(case.label).data > 0].mean()
            for case in find_cases(raw, read_description(raw))
            if (path := case.images[index]) is not None and case.label is not None
        ]
        assert len(means) == (3, 4, 3)[index]
        # 1e5 draws a case, of a standard deviation of 30: five times the error of their mean.
        assert found[str(index)]["mean"] == pytest.approx(np.mean(means), abs=0.3)
        assert found[str(index)]["min"] > 0  # not the zeros of a missing file


def test_prediction_prepares_a_case_that_lacks_channels_as_training_did(root: Path) -> None:
    raw = root / "nnUNet_raw" / LACKING
    description = read_description(raw)
    pipeline = pipeline_from_plans(_plans(root, LACKING), "3d_fullres", description)
    for case in find_cases(raw, description):
        images = [None if path is None else read_volume(path) for path in case.images]
        ours = preprocess_volumes(images, pipeline)
        theirs, _, properties = _preprocessed(root, LACKING, case.name)
        assert ours.data.shape == theirs.shape
        assert list(ours.placement.box[1]) == list(properties["bbox_used_for_cropping"][1])
        # The runtime's own splines and sums differ by rounding alone.
        np.testing.assert_allclose(ours.data, theirs, atol=2e-4)
        for index in case.absent:
            assert not ours.data[index].any()


def test_references_for_validation_are_all_there(root: Path) -> None:
    folder = root / "nnUNet_preprocessed" / LACKING / "gt_segmentations"
    assert len(list(folder.glob("*.nii.gz"))) == NUM_CASES


def test_a_channel_that_no_case_has_cannot_be_planned_for(root: Path) -> None:
    refusal = (root / "refusal.txt").read_text()
    assert refusal.startswith("0 training cases have a T1 image")


def test_from_raw_files_to_dice_of_every_subset_with_a_network_of_random_weights(
    root: Path, tmp_path: Path
) -> None:
    raw = root / "nnUNet_raw" / LACKING
    pipeline = pipeline_from_plans(_plans(root, LACKING), "3d_fullres", read_description(raw))
    bundle = write_small_bundle(
        tmp_path / "random.veloxseg",
        network=small_network(in_channels=(1, 1, 1), num_classes=2),
        **dict(pipeline) | {"patch_size": (16, 16, 16)},
    )
    predict(bundle, [raw / "imagesTr"], tmp_path / "masks")
    summary = evaluate_folder(tmp_path / "masks", raw / "labelsTr", images=raw / "imagesTr")
    subsets = summary.by_subset()
    assert {name: len(part.cases) for name, part in subsets.items()} == {
        "CT+PET+T1": 2,
        "PET+T1": 1,
        "CT": 1,
        "PET": 1,
    }
    assert all(part.mean(1)["Dice"] > 0 for part in subsets.values())
