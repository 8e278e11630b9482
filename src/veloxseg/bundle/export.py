"""Trained networks to bundles: written as ONNX, compared with PyTorch, and only then kept."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import onnx
import torch
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load_file

from veloxseg.atomic import read_json
from veloxseg.bundle.acceptance import Progress, compare_masks, require_accepted
from veloxseg.bundle.format import (
    NETWORK,
    PIPELINE,
    WEIGHTS,
    Manifest,
    Normalisation,
    Pipeline,
    Precision,
    Verification,
    model_file,
)
from veloxseg.bundle.graph import network_graph
from veloxseg.bundle.pipeline import (
    OVERLAP,
    pipeline_from_plans,
    validated_pipeline,
    with_postprocessing,
)
from veloxseg.bundle.postprocessing import find_postprocessing
from veloxseg.bundle.precision import store_in_16_bits
from veloxseg.bundle.provenance import (
    About,
    describe_run,
    evaluation_of_folds,
    package_versions,
)
from veloxseg.bundle.quantise import quantise
from veloxseg.bundle.reading import Bundle
from veloxseg.bundle.real_cases import RealCases, find_real_cases, real_patches
from veloxseg.bundle.verification import (
    Array,
    describe_openvino,
    measure_deviation,
    open_engine,
    random_patches,
    verify_float32,
)
from veloxseg.bundle.verification import (
    Run as RunPatches,
)
from veloxseg.bundle.weights import Weights, join_folds
from veloxseg.bundle.writing import write_bundle
from veloxseg.datasets.cases import Case
from veloxseg.datasets.splits import SPLITS_FILE
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import BundleError
from veloxseg.installation import num_cores
from veloxseg.network.config import Axes, NetworkConfig
from veloxseg.network.inference import ArrayNetwork
from veloxseg.network.plans import NETWORK_CLASS_NAME
from veloxseg.network.published import load_published, published_config
from veloxseg.network.size import count_multiply_adds
from veloxseg.network.veloxseg import VeloxSeg
from veloxseg.training.readiness import set_apart
from veloxseg.training.runs import FINAL, Run, find_run

ReducedPrecision = Literal["bf16", "fp16", "int8"]

_NUM_REAL_PATCHES = 2
_NUM_CALIBRATION_PATCHES = 24
_PUBLISHED_TRANSPOSE = (2, 1, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """What a bundle is made of.

    Attributes:
        config: The network's sizes, as trained.
        folds: Weights of each network to average.
        pipeline: How images become patches and logits a mask.
    """

    config: NetworkConfig
    folds: list[Weights]
    pipeline: Pipeline

    @property
    def num_parameters(self) -> int:
        """Of one network."""
        return sum(weight.size for weight in self.folds[0].values())

    @property
    def multiply_adds(self) -> int:
        """Of one patch, all networks."""
        patch_size = self.pipeline.patch_size
        return len(self.folds) * count_multiply_adds(self.config, patch_size=patch_size)

    def graph(self, *, relative: bool = False) -> onnx.ModelProto:
        """The model as ONNX."""
        patch_size = self.pipeline.patch_size
        return network_graph(self.config, self.folds, patch_size=patch_size, relative=relative)

    def reference(self) -> RunPatches:
        """The networks in PyTorch, on the processor."""
        return ArrayNetwork(self.config, self.folds, threads=num_cores(), device="cpu").run


@dataclass(frozen=True, kw_only=True)
class PublishedCase:
    """What images a published network takes and what its classes mean: no checkpoint says so.

    Published networks read arrays in (X, Y, Z), so all that is given by axis is given in that
    order, the network's own.

    Attributes:
        channels: Names of the images of a case.
        labels: Name to value, without background.
        spacing_xyz: Of the network's grid in mm.
        normalisation: One for each channel.
        patch_size_xyz: Extent of the input if it is not the trained one.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, int]
    spacing_xyz: tuple[float, float, float]
    normalisation: tuple[Normalisation, ...]
    patch_size_xyz: Axes | None = None


def export(
    run: str | Path,
    bundle: Path,
    *,
    workspace: Workspace | None = None,
    precisions: Sequence[ReducedPrecision] = (),
    about: About | None = None,
    max_cases: int | None = None,
    postprocessing: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Bundle:
    """Export a trained run; several finished folds are averaged in one model.

    The float32 model's logits are compared with PyTorch's. A reduced precision segments validation
    cases as a whole and must do it as well as float32 does. Nothing is written unless all succeed.

    Args:
        run: A results folder (or one fold of it), or ``DATASET`` or ``DATASET/FOLD`` for the newest
            run.
        bundle: The folder to make, or the zip if it ends in ``.zip``.
        workspace: Where a dataset's runs and images are looked up; a folder needs none.
        precisions: Model files to add to the float32 one.
        about: What the manifest says of name, data, licence and use.
        max_cases: Validation cases to judge reduced precisions by; None takes all.
        postprocessing: Take up what was chosen for these folds, if anything was.
        overwrite: Replace a bundle that is there.
        progress: Is told how many validation cases are segmented.
        note: Is told in words which postprocessing the bundle has, or why none.

    Returns:
        The bundle as it reads.

    Raises:
        BundleError: the run is missing, unfinished, no VeloxSeg network or cannot be exported; a
            model does not compute what it should; its postprocessing was chosen with other
            checkpoints; or something is there already.
        OSError: the bundle cannot be written.
    """
    _require_target(bundle, overwrite=overwrite)
    trained = find_run(run, workspace=workspace)
    model = load_run(trained)
    if postprocessing:
        found = find_postprocessing(trained)
        model = replace(model, pipeline=with_postprocessing(model.pipeline, found.steps))
        if note is not None:
            note(found.note)
    cases = _real_cases(trained, workspace)
    patches = real_patches(cases.validation, model.pipeline, number=_NUM_REAL_PATCHES)
    float32, verification = _verified_graph(model, patches)
    graphs: dict[Precision, bytes] = {"float32": float32}
    verifications = {model_file("float32"): verification}
    if precisions:
        _require_cases(cases, precisions, trained)
        reduced = _reduced_models(model, precisions, cases)
        judges = cases.validation[:max_cases]
        verifications |= _judge(model, float32, reduced, judges, patches, progress)
        graphs |= reduced
    manifest = _manifest(
        model,
        source=describe_run(trained),
        evaluation=evaluation_of_folds(trained),
        verification=verifications,
        **(about or About()).fields(trained.description, name=_stem(bundle)),
    )
    return write_bundle(bundle, _files(model, graphs), manifest, overwrite=overwrite)


def export_published(
    config: Path,
    checkpoint: Path,
    bundle: Path,
    *,
    case: PublishedCase,
    about: About | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Export a published configuration and checkpoint.

    Published networks read arrays in (X, Y, Z): the pipeline transposes images, and its spacing
    and patch are in the network's order.

    Args:
        config: A published model JSON.
        checkpoint: Its weights, as safetensors or a PyTorch file of nothing but tensors.
        bundle: The folder to make, or the zip if it ends in ``.zip``.
        case: Which images it takes and what its classes mean.
        about: What the manifest says of name, data, licence and use.
        overwrite: Replace a bundle that is there.

    Returns:
        The bundle as it reads.

    Raises:
        PlanError: the configuration cannot be built, or the weights do not fit it.
        BundleError: a file is none of these, the case does not fit the network, or something is
            there already.
        OSError: the bundle cannot be written.
    """
    _require_target(bundle, overwrite=overwrite)
    model = load_published_model(config, checkpoint, case)
    float32, verification = _verified_graph(model, [])
    manifest = _manifest(
        model,
        source=f"Published checkpoint {checkpoint.name}, configuration {config.name}",
        verification={model_file("float32"): verification},
        **(about or About()).fields(None, name=_stem(bundle)),
    )
    return write_bundle(bundle, _files(model, {"float32": float32}), manifest, overwrite=overwrite)


def load_run(run: Run) -> TrainedModel:
    """Read the networks of a run and its plan.

    Raises:
        BundleError: another network than VeloxSeg, a plan that cannot be exported, or checkpoints
            that are damaged or do not fit it.
    """
    plans, configuration = run.plans, run.folder.name.split("__")[-1]
    architecture = _architecture(run, plans, configuration)
    checkpoints = [_load_tensors(run.folder / f"fold_{fold}" / FINAL) for fold in run.folds]
    pipeline = pipeline_from_plans(
        plans,
        configuration,
        run.description,
        mirror_axes=checkpoints[0].get("inference_allowed_mirroring_axes") or (),
    )
    config = _config(architecture, pipeline, where=run.folder)
    folds = [
        _weights_of_run(checkpoint, config, where=run.folder / f"fold_{fold}")
        for fold, checkpoint in zip(run.folds, checkpoints, strict=True)
    ]
    return TrainedModel(config=config, folds=folds, pipeline=pipeline)


def load_published_model(config: Path, checkpoint: Path, case: PublishedCase) -> TrainedModel:
    """Read a published configuration and its weights.

    Raises:
        PlanError: the configuration cannot be built, or the weights do not fit it.
        BundleError: a file is damaged, or the case does not fit the network.
    """
    content = _inner_dictionary(read_json(config))
    sizes = published_config(content)
    network = load_published(content, _load_tensors(checkpoint)).network
    pipeline = validated_pipeline(
        f"{config} and the options",
        channels=case.channels,
        labels={"background": 0, **case.labels},
        transpose=_PUBLISHED_TRANSPOSE,
        spacing=case.spacing_xyz,
        normalisation=case.normalisation,
        patch_size=case.patch_size_xyz or sizes.patch_size,
        overlap=OVERLAP,
    )
    expected = (sum(sizes.in_channels), sizes.num_classes)
    if (len(pipeline.channels), pipeline.num_classes) != expected:
        raise BundleError(
            f"{config}: a network of {expected[0]} channels and {expected[1]} classes. The options "
            f"name {len(pipeline.channels)} channels and, with background, {pipeline.num_classes} "
            "classes. Give --channel once for each channel and --label for each class but the "
            "background."
        )
    return TrainedModel(config=sizes, folds=[_as_arrays(network)], pipeline=pipeline)


# -- model files


def _verified_graph(model: TrainedModel, patches: Sequence[Array]) -> tuple[bytes, Verification]:
    graph: bytes = model.graph().SerializeToString()
    shape = (len(model.pipeline.channels), *model.pipeline.patch_size)
    every = [*random_patches(shape), *patches]
    has_regions = model.pipeline.has_regions
    return graph, verify_float32(graph, model.reference(), every, has_regions=has_regions)


def _reduced_models(
    model: TrainedModel, precisions: Sequence[ReducedPrecision], cases: RealCases
) -> dict[Precision, bytes]:
    models: dict[Precision, bytes] = {}
    for precision in dict.fromkeys(precisions):
        if precision == "int8":
            training = cases.training or cases.validation
            patches = real_patches(training, model.pipeline, number=_NUM_CALIBRATION_PATCHES)
            reduced = quantise(model.graph(relative=not model.pipeline.has_regions), patches)
        else:
            reduced = store_in_16_bits(model.graph(), precision)
        models[precision] = reduced.SerializeToString()
    return models


def _judge(
    model: TrainedModel,
    float32: bytes,
    reduced: Mapping[Precision, bytes],
    cases: Sequence[Case],
    patches: Sequence[Array],
    progress: Progress | None,
) -> dict[str, Verification]:
    """Compare reduced precisions with float32, in OpenVINO, which computes in all of them."""
    has_regions = model.pipeline.has_regions
    engines = {
        precision: open_engine("openvino", graph, precision=precision, has_regions=has_regions)
        for precision, graph in reduced.items()
    }
    baseline = open_engine("openvino", float32, has_regions=has_regions)
    found = compare_masks(baseline, engines, cases, model.pipeline, progress=progress)
    require_accepted(found)
    reference = model.reference()
    expected = [reference(patch[None]) for patch in patches]
    verifications = {}
    for precision, engine in engines.items():
        deviation = measure_deviation(engine, expected, patches, has_regions=has_regions)
        verifications[model_file(precision)] = Verification(
            backend=describe_openvino(precision),
            num_patches=len(patches),
            max_error=deviation.max_error,
            max_logit=deviation.max_logit,
            agreement=found[precision].agreement,
            mean_dice=found[precision].mean_dice,
            mean_dice_float32=found[precision].mean_dice_float32,
        )
    return verifications


def _files(model: TrainedModel, graphs: Mapping[Precision, bytes]) -> dict[str, bytes]:
    return {
        PIPELINE: _json(model.pipeline.model_dump(mode="json")),
        NETWORK: _json(model.config.to_json()),
        WEIGHTS: save(join_folds(model.folds)),
        **{model_file(precision): graph for precision, graph in graphs.items()},
    }


def _manifest(model: TrainedModel, **fields: Any) -> Manifest:
    return Manifest(
        format_version=model.pipeline.format_version,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files={},  # the writer's
        versions=package_versions(),
        num_parameters=model.num_parameters,
        multiply_adds=model.multiply_adds,
        **fields,
    )


# -- checkpoints


def _architecture(run: Run, plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    settings = plans.get("configurations", {}).get(configuration, {})
    architecture = settings.get("architecture", {})
    found = architecture.get("network_class_name", settings.get("UNet_class_name", "not named"))
    if found != NETWORK_CLASS_NAME:
        raise BundleError(
            f"{run.folder}: its network is {found}. Expected {NETWORK_CLASS_NAME}: only VeloxSeg "
            "networks are exported. Predict with it by nnUNetv2_predict, or train a VeloxSeg one: "
            "veloxseg run DATASET"
        )
    arguments: dict[str, Any] = architecture["arch_kwargs"]
    return arguments


def _config(architecture: Mapping[str, Any], pipeline: Pipeline, *, where: Path) -> NetworkConfig:
    try:
        config = NetworkConfig(num_classes=pipeline.num_classes, **architecture)
    except TypeError as error:
        raise BundleError(
            f"{where}: plans.json does not describe a network of this version ({error}). Export "
            "with the version that trained it, or upgrade: pip install --upgrade veloxseg"
        ) from error
    if sum(config.in_channels) != len(pipeline.channels):
        raise BundleError(
            f"{where}: the network takes {sum(config.in_channels)} channels, dataset.json names "
            f"{len(pipeline.channels)}. Expected files of one training. Copy the folder again."
        )
    return config


def _load_tensors(path: Path) -> dict[str, Any]:
    """A checkpoint's content; of a PyTorch file tensors and numbers only, no code is run."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals(_numpy_types()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "empty"
        raise BundleError(
            f"{path}: no checkpoint of tensors, or cut short ({reason}). Expected one that PyTorch "
            "or safetensors has saved, without objects of other packages. Copy it again."
        ) from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: holds a {type(content).__name__}. Expected a state dict.")
    return content


def _numpy_types() -> list[Any]:
    """NumPy's scalars, which nnU-Net's checkpoints hold: losses of each epoch."""
    scalar = np.float32(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    types = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")]
    return [*((scalar, name) for name in names), np.dtype, *types]


def _weights_of_run(
    checkpoint: Mapping[str, Any], config: NetworkConfig, *, where: Path
) -> Weights:
    network = VeloxSeg(config)
    try:
        weights = checkpoint["network_weights"]
        network.load_state_dict({k.removeprefix("module."): v for k, v in weights.items()})
    except (KeyError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{where}: the weights of {FINAL} do not fit the network of plans.json ({reason}). "
            "Expected both from one training. Copy the whole folder again."
        ) from error
    return _as_arrays(network)


def _as_arrays(network: torch.nn.Module) -> Weights:
    return {
        name: np.ascontiguousarray(tensor.float().numpy())
        for name, tensor in network.state_dict().items()
    }


def _inner_dictionary(content: Any) -> Mapping[str, Any]:
    """The sizes in a published model JSON, which may stand under the model's name."""
    if isinstance(content, dict) and "in_ch" not in content:
        inner = [v for v in content.values() if isinstance(v, dict) and "in_ch" in v]
        if len(inner) == 1:
            return inner[0]
    if not isinstance(content, dict):
        raise BundleError(
            f"The model JSON holds a {type(content).__name__}. Expected the keys of a published "
            "configuration, such as in_ch, n_classes and input_size."
        )
    return content


# -- around


def _real_cases(run: Run, workspace: Workspace | None) -> RealCases:
    """Cases in ``nnUNet_raw`` of the workspace, or beside the ``nnUNet_results`` of the run."""
    folder = run.folder.resolve()
    name = folder.parent.name
    workspace = workspace or Workspace.resolve(folder.parent.parent.parent)
    return find_real_cases(
        workspace.raw / name,
        run.description,
        [folder / f"fold_{fold}" for fold in run.folds],
        apart=set_apart(workspace.preprocessed / name / SPLITS_FILE),
    )


def _require_cases(cases: RealCases, precisions: Sequence[str], run: Run) -> None:
    if not cases.validation:
        raise BundleError(
            f"{run.folder}: {', '.join(precisions)} cannot be judged, as no validation case was "
            "found. Expected validation/summary.json in the fold and its cases in nnUNet_raw. Give "
            f"--root DIR where the dataset is, or leave out --precision."
        )


def _require_target(path: Path, *, overwrite: bool) -> None:
    """Say at once what writing would say after minutes of work."""
    if path.exists() and not overwrite:
        raise BundleError(f"{path}: exists already. Choose another name, or give --overwrite.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(20, "Not a folder", str(folder))
    if not os.access(folder, os.W_OK):
        raise PermissionError(13, "Not to be written to", str(folder))


def _stem(bundle: Path) -> str:
    return bundle.name.split(".")[0]


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
