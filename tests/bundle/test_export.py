"""Runs and published checkpoints to bundles."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from bundles import SIZES, small_network
from postprocessing_records import write_record
from veloxseg.atomic import write_json
from veloxseg.bundle import acceptance, verification
from veloxseg.bundle.acceptance import Comparison, require_accepted
from veloxseg.bundle.export import export, export_published
from veloxseg.bundle.format import Normalisation, PostprocessingStep
from veloxseg.bundle.provenance import About
from veloxseg.bundle.published import PublishedCase
from veloxseg.bundle.reading import open_bundle
from veloxseg.bundle.verification import ENGINES, open_engine
from veloxseg.bundle.weights import split_folds
from veloxseg.cli import app
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import BundleError, PlanError
from veloxseg.network.plans import NETWORK_CLASS_NAME
from veloxseg.runtime.backends.backend import Backend, Execution
from veloxseg.runtime.backends.opening import open_backend
from veloxseg.runtime.mask import Labelling
from veloxseg.training.runs import Run
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

RUN = Path("nnUNet_results/Dataset100_Tiny/VeloxSegTrainer__VeloxSegPlans__3d_fullres")
DESCRIPTION: dict[str, Any] = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "liver": 1, "lesion": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
    "licence": "CC-BY 4.0",
    "description": "Phantoms",
}
GOLDEN = ("petct_64", "mri4_64x64x32", "mixed_32x48x64")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with four cases and a run of two finished folds, the second of other weights."""
    _write_cases(tmp_path / "nnUNet_raw" / "Dataset100_Tiny")
    folder = tmp_path / RUN
    write_json(folder / "dataset.json", DESCRIPTION)
    write_json(folder / "plans.json", _plans())
    for fold in (0, 1):
        _write_fold(folder / f"fold_{fold}", seed=fold, validated=f"case_{fold}")
    return tmp_path


def test_a_run_becomes_a_bundle_that_says_where_it_comes_from(root: Path, tmp_path: Path) -> None:
    bundle = _export(root, tmp_path / "tiny.veloxseg", run="100/0")

    manifest = bundle.manifest
    assert manifest.name == "tiny"
    assert manifest.source.startswith("Dataset100_Tiny, fold 0, plan VeloxSegPlans")
    assert manifest.licence == "CC-BY 4.0"
    assert manifest.data == "Phantoms"
    assert {"veloxseg", "torch", "onnx", "nnunetv2", "numpy"} == set(manifest.versions)
    network = small_network(0)
    assert manifest.num_parameters == sum(p.numel() for p in network.parameters())
    assert manifest.multiply_adds > 1e6
    assert manifest.evaluation["validation"]["fold_0"] == {
        "num_cases": 1,
        "mean_dice_mirrored": 0.75,
        "dice_mirrored": {"liver": 0.75, "lesion": None},
    }
    verified = manifest.verification["model.onnx"]
    assert verified.num_patches == 4
    assert verified.max_error < 1e-4
    assert verified.max_logit > 0.1
    assert verified.agreement > 0.999
    assert bundle.pipeline.mirror_axes == (0, 1)


def test_optional_channels_go_into_the_bundle_and_cases_that_lack_one_are_used(
    root: Path, tmp_path: Path
) -> None:
    write_json(root / RUN / "dataset.json", DESCRIPTION | {"optional": ["PET"]})
    images = root / "nnUNet_raw" / "Dataset100_Tiny" / "imagesTr"
    for lacking in ("case_0_0001.nii.gz", "case_3_0001.nii.gz"):
        (images / lacking).unlink()
    bundle = _export(root, tmp_path / "tiny.veloxseg")
    assert bundle.pipeline.optional == ("PET",)
    assert bundle.manifest.format_version == 2
    assert bundle.manifest.verification["model.onnx"].agreement > 0.999


def test_what_was_chosen_for_the_folds_goes_into_the_bundle(root: Path, tmp_path: Path) -> None:
    run = Run(folder=root / RUN, folds=(0,))
    step = PostprocessingStep(kind="keep_largest", labels=(2,))
    write_record(run, step, held_out_gain=0.01)
    target = tmp_path / "tiny.veloxseg"

    output = _invoke("export", "100/0", str(target), "--root", str(root))

    assert "Postprocessing: keep the largest component of label 2 (Dice +0.0100" in output
    bundle = open_bundle(target)
    assert bundle.pipeline.postprocessing == (step,)
    assert bundle.manifest.format_version == 3
    checkpoint = root / RUN / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes() + b"changed")
    words = ["export", "100/0", str(target), "--root", str(root), "--overwrite"]
    assert "Choose it again: veloxseg postprocess" in _invoke(*words, code=2)
    _write_fold(root / RUN / "fold_0", seed=3, validated="case_0")
    output = _invoke(*words, "--no-postprocessing")
    assert "Postprocessing" not in output
    assert open_bundle(target).pipeline.postprocessing == ()


def test_fp16_weights_take_half_the_room_and_all_engines_compute_with_them(
    root: Path, tmp_path: Path
) -> None:
    full = _export(root, tmp_path / "full.veloxseg", run="100")
    target = tmp_path / "half.veloxseg"
    _invoke("export", "100", str(target), "--root", str(root), "--fp16-weights", "--tta")
    half = open_bundle(target)

    assert len(half.read("weights.safetensors")) < 0.7 * len(full.read("weights.safetensors"))
    assert len(half.read_model()) < 0.9 * len(full.read_model())
    assert half.pipeline.mirroring
    assert not full.pipeline.mirroring
    assert half.manifest.format_version == 4
    torch = open_backend(
        half, Execution(backend="torch", precision="float32", threads=1, batch=1), device="cpu"
    )
    engines = [open_engine(name, half.read_model(), has_regions=False) for name in ENGINES]
    found = [_relative_logits(engine) for engine in (torch, *engines)]
    for logits in found[1:]:
        np.testing.assert_allclose(logits, found[0], rtol=1e-4, atol=1e-4)
    unrounded = _relative_logits(open_engine("onnxruntime", full.read_model(), has_regions=False))
    assert 0 < np.abs(found[0] - unrounded).max() < 1e-3 * np.abs(unrounded).max()


def test_folds_are_averaged_and_their_weights_kept(root: Path, tmp_path: Path) -> None:
    bundle = _export(root, tmp_path / "tiny.zip", run="100")

    image = np.random.default_rng(0).standard_normal((1, 2, 16, 16, 16)).astype(np.float32)
    engine = open_engine("onnxruntime", bundle.read_model(), has_regions=False)
    with torch.no_grad():
        logits = [small_network(fold)(torch.from_numpy(image)).numpy() for fold in (0, 1)]
    assert np.abs(logits[0] - logits[1]).max() > 0.1
    np.testing.assert_allclose(engine.run(image), np.mean(logits, axis=0), atol=1e-4)
    folds = split_folds(load(bundle.read("weights.safetensors")))
    for fold, weights in enumerate(folds):
        for name, value in small_network(fold).state_dict().items():
            np.testing.assert_array_equal(weights[name], value.numpy())
    assert len(folds) == 2
    one = _export(root, tmp_path / "one.veloxseg", run="100/0")
    assert bundle.manifest.multiply_adds == 2 * one.manifest.multiply_adds


def test_what_the_exporter_says_goes_before_what_the_dataset_says(
    root: Path, tmp_path: Path
) -> None:
    about = About(name="A", licence="B", data="C", intended_use="D")
    manifest = _export(root, tmp_path / "tiny.veloxseg", about=about).manifest
    assert (manifest.name, manifest.licence, manifest.data, manifest.intended_use) == tuple("ABCD")


def test_a_results_folder_alone_is_enough(root: Path, tmp_path: Path) -> None:
    bundle = export(root / RUN / "fold_0", tmp_path / "tiny.veloxseg")
    assert bundle.manifest.verification["model.onnx"].num_patches == 4  # images found beside it
    (root / "nnUNet_raw").rename(root / "gone")
    bundle = export(root / RUN / "fold_0", tmp_path / "other.veloxseg")
    assert bundle.manifest.verification["model.onnx"].num_patches == 2


def test_reduced_precisions_are_judged_by_whole_cases(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance, "LARGEST_DROP", 0.5)  # weights here are random
    told: list[tuple[float, int]] = []

    bundle = _export(
        root,
        tmp_path / "tiny.veloxseg",
        precisions=["bf16", "fp16", "int8"],
        progress=lambda done, total: told.append((done, total)),
    )

    assert bundle.precisions == ("float32", "bf16", "fp16", "int8")
    for precision in ("bf16", "fp16", "int8"):
        found = bundle.manifest.verification[f"model.{precision}.onnx"]
        assert found.mean_dice is not None
        assert found.mean_dice_float32 is not None
        assert 0 <= found.mean_dice <= 1
        assert found.agreement > 0.9
        assert found.tolerance is None
        assert found.backend.startswith("openvino")
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_a_precision_that_loses_too_much_is_refused_and_nothing_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = acceptance.label_case
    monkeypatch.setattr(
        acceptance,
        "label_case",
        lambda image, engine, pipeline: spoil(real(image, engine, pipeline), engine),
    )

    def spoil(labelling: Labelling, engine: Backend) -> Labelling:
        return replace(labelling, mask=labelling.mask * 0) if _is_int8(engine) else labelling

    with pytest.raises(
        BundleError, match=r"int8 loses too much on 2 validation cases \(int8: mean"
    ):
        _export(root, tmp_path / "tiny.veloxseg", precisions=["int8"])
    assert not (tmp_path / "tiny.veloxseg").exists()


def test_a_drop_of_two_tenths_of_a_point_is_allowed_and_no_more() -> None:
    def found(dice: float) -> Comparison:
        return Comparison(mean_dice=dice, mean_dice_float32=0.85, agreement=0.999, num_cases=3)

    require_accepted({"bf16": found(0.8481), "int8": found(0.9)})
    with pytest.raises(BundleError, match=r"int8 loses.*bf16: mean Dice 0\.8481, float32: 0\.8500"):
        require_accepted({"bf16": found(0.8481), "int8": found(0.8479)})
    with pytest.raises(BundleError, match="bf16 loses"):
        require_accepted({"bf16": found(float("nan"))})


def test_a_precision_without_validation_cases_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "nnUNet_raw").rename(root / "gone")
    with pytest.raises(BundleError, match="int8 cannot be judged"):
        _export(root, tmp_path / "tiny.veloxseg", precisions=["int8"])


def test_logits_that_differ_from_the_networks_are_refused_and_nothing_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "TOLERANCE", 1e-12)
    with pytest.raises(BundleError, match=r"logits differ.*onnxruntime: .*openvino: "):
        _export(root, tmp_path / "tiny.veloxseg")
    assert not (tmp_path / "tiny.veloxseg").exists()


def test_an_unfinished_run_is_refused(root: Path, tmp_path: Path) -> None:
    (root / RUN / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(BundleError, match="unfinished"):
        _export(root, tmp_path / "tiny.veloxseg", run="100/0")


def test_a_foreign_network_is_refused(root: Path, tmp_path: Path) -> None:
    name = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    write_json(root / RUN / "plans.json", _plans(network_class_name=name))
    with pytest.raises(BundleError, match=r"PlainConvUNet.*only VeloxSeg"):
        _export(root, tmp_path / "tiny.veloxseg")


@pytest.mark.parametrize(
    "changes", [{"conv_channels": (8, 24)}, {"sort": 3}, {"in_channels": (1,)}]
)
def test_a_plan_that_the_weights_do_not_fit_is_refused(
    root: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    write_json(root / RUN / "plans.json", _plans(arch_kwargs=_arguments() | changes))
    with pytest.raises(BundleError, match=r"do not fit|does not describe|takes 1 channels"):
        _export(root, tmp_path / "tiny.veloxseg")


def test_a_checkpoint_cut_short_or_with_code_in_it_is_refused(root: Path, tmp_path: Path) -> None:
    file = root / RUN / "fold_0" / "checkpoint_final.pth"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="cut short"):
        _export(root, tmp_path / "tiny.veloxseg")
    torch.save({"network_weights": {}, "bad": _Marker(tmp_path / "executed")}, file)
    with pytest.raises(BundleError, match="no checkpoint of tensors"):
        _export(root, tmp_path / "tiny.veloxseg")
    assert not (tmp_path / "executed").exists()


def test_a_target_that_exists_or_cannot_be_written_is_refused_at_once(
    root: Path, tmp_path: Path
) -> None:
    target = tmp_path / "tiny.veloxseg"
    _export(root, target)
    with pytest.raises(BundleError, match=r"exists already.*--overwrite"):
        _export(root, target)
    about = About(name="second")
    assert _export(root, target, overwrite=True, about=about).manifest.name == "second"
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        _export(root, tmp_path / "file" / "tiny.veloxseg")


def test_the_command_says_what_it_wrote(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "tiny.veloxseg"
    words = ["export", "100/0", str(target), "--root", str(root), "--licence", "mine"]
    output = _invoke(*words)
    assert "model.onnx: 0." in output
    assert "Verified: model.onnx: logits within" in output
    assert f"Written: {target}" in output
    assert open_bundle(target).manifest.licence == "mine"
    assert "exists already" in _invoke(*words, code=2)
    assert "Give --published" in _invoke(*words, "--channel", "CT", code=2)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_published_checkpoint_gives_the_golden_logits(
    shared: Path, tmp_path: Path, name: str, kind: str
) -> None:
    tensors = load_file(shared / "golden" / f"{name}.safetensors")
    config = shared / "golden" / f"{name}.json"
    checkpoint = _write_checkpoint(tensors, tmp_path / f"weights.{kind}")

    bundle = export_published(
        config, checkpoint, tmp_path / "golden.veloxseg", case=_published_case(config)
    )

    assert bundle.pipeline.transpose == (2, 1, 0)
    expected = tensors["eval.logits"].numpy()
    assert expected.std() > 1e-3
    for engine_name in ENGINES:
        engine = open_engine(engine_name, bundle.read_model(), has_regions=True)
        logits = engine.run(tensors["input"].numpy()[:1])
        np.testing.assert_allclose(logits, expected[:1], rtol=1e-4, atol=1e-4)


def test_a_published_checkpoint_of_another_configuration_is_refused(
    shared: Path, tmp_path: Path
) -> None:
    tensors = load_file(shared / "golden" / "petct_64.safetensors")
    checkpoint = _write_checkpoint(tensors, tmp_path / "weights.pth")
    config = shared / "golden" / "mri4_64x64x32.json"
    with pytest.raises(PlanError):
        export_published(config, checkpoint, tmp_path / "a.zip", case=_published_case(config))


def test_the_published_command_asks_for_what_a_checkpoint_does_not_say(
    shared: Path, tmp_path: Path
) -> None:
    tensors = load_file(shared / "golden" / "petct_64.safetensors")
    checkpoint = _write_checkpoint(tensors, tmp_path / "weights.pth")
    target = tmp_path / "golden.veloxseg"
    words = ["export", str(checkpoint), str(target), "--published"]
    words.append(str(shared / "golden" / "petct_64.json"))
    assert "lacks --channel, --label, --spacing, --normalisation" in _invoke(*words, code=2)
    words += ["--channel", "CT", "--label", "tumour=1", "--spacing", "1", "1", "3"]
    words += ["--normalisation", "ct:32,71,-86,172"]
    assert "2 channels and 2 classes" in _invoke(*words, code=2)
    words += ["--channel", "PET", "--normalisation", "z_score"]
    assert "expected NAME=VALUE" in _invoke(*words, "--label", "x", code=2)
    assert "expected z_score" in _invoke(*words, "--normalisation", "ct:1,2", code=2)
    _invoke(*words)
    pipeline = open_bundle(target).pipeline
    assert pipeline.spacing == (1.0, 1.0, 3.0)
    assert pipeline.patch_size == (64, 64, 64)
    assert pipeline.normalisation[0].upper == 172


class _Marker:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def _relative_logits(engine: Backend) -> Any:
    """Logits of noise less the background's."""
    image = np.random.default_rng(0).standard_normal((1, 2, 16, 16, 16)).astype(np.float32)
    logits = engine.run(image)
    return logits if engine.relative else logits[:, 1:] - logits[:, :1]


def _export(root: Path, target: Path, *, run: str = "100", **options: Any) -> Any:
    return export(run, target, workspace=Workspace.resolve(root), **options)


def _invoke(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def _is_int8(engine: Any) -> bool:
    """In these tests only quantised files have relative logits without being made so."""
    model = engine._requests[0].get_compiled_model()
    return bool(model.outputs[0].get_names() & {"relative_logits"})


def _arguments() -> dict[str, Any]:
    return {key: value for key, value in SIZES.items() if key != "num_classes"}


def _plans(**architecture: Any) -> dict[str, Any]:
    named = {"network_class_name": NETWORK_CLASS_NAME, "arch_kwargs": _arguments()}
    configuration = {
        "patch_size": [16, 16, 16],
        "spacing": [2.0, 2.0, 2.0],
        "normalization_schemes": ["ZScoreNormalization"] * 2,
        "use_mask_for_norm": [False, False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"order": 1},
        "architecture": named | architecture,
    }
    return {
        "dataset_name": "Dataset100_Tiny",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
    }


def _write_cases(dataset: Path) -> None:
    generator = np.random.default_rng(0)
    for index in range(4):
        shape = (12 + index, 20, 24)
        for channel in range(2):
            image = generator.standard_normal(shape).astype(np.float32)
            path = dataset / "imagesTr" / f"case_{index}_{channel:04d}.nii.gz"
            write_volume(path, Volume(data=image, spacing_zyx=(2.0, 2.0, 2.0)))
        labels = generator.integers(0, 3, shape).astype(np.uint8)
        path = dataset / "labelsTr" / f"case_{index}.nii.gz"
        write_volume(path, Volume(data=labels, spacing_zyx=(2.0, 2.0, 2.0)))


def _write_fold(folder: Path, *, seed: int, validated: str) -> None:
    case = {"reference_file": f"/gone/{validated}.nii.gz", "metrics": {}}
    summary = {
        "metric_per_case": [case],
        "foreground_mean": {"Dice": 0.75},
        "mean": {"1": {"Dice": 0.75}, "2": {"Dice": float("nan")}},
    }
    write_json(folder / "validation" / "summary.json", summary)
    checkpoint = {
        "network_weights": small_network(seed).state_dict(),
        "_best_ema": np.float32(0.5),
        "logging": {"loss": [np.float64(1.0)]},
        "inference_allowed_mirroring_axes": (0, 1),
    }
    torch.save(checkpoint, folder / "checkpoint_final.pth")


def _write_checkpoint(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights")}
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"model": {f"module.{k}": v for k, v in weights.items()}}, path)
    return path


def _published_case(config: Path) -> PublishedCase:
    sizes = json.loads(config.read_text())
    channels = tuple(f"channel_{index}" for index in range(sum(sizes["in_ch"])))
    return PublishedCase(
        channels=channels,
        labels={f"label_{value}": value for value in range(1, sizes["n_classes"])},
        spacing_xyz=(1.0, 1.0, 1.0),
        normalisation=(Normalisation(scheme="z_score"),) * len(channels),
    )
