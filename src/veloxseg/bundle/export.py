"""Trained networks to bundles: written as ONNX, compared with PyTorch, and only then kept."""

import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from veloxseg.bundle.format import (
    FORMAT_VERSION,
    NETWORK,
    PIPELINE,
    WEIGHTS,
    Manifest,
    Pipeline,
    Precision,
    model_file,
)
from veloxseg.bundle.graph import Weights, network_graph
from veloxseg.bundle.pipeline import pipeline_from_plans
from veloxseg.bundle.provenance import (
    About,
    describe_run,
    evaluation_of_folds,
    package_versions,
)
from veloxseg.bundle.reading import Bundle
from veloxseg.bundle.real_cases import RealCases, find_real_cases, real_patches
from veloxseg.bundle.verification import Array, random_patches, verify_float32
from veloxseg.bundle.weights import join_folds
from veloxseg.bundle.writing import write_bundle
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import BundleError
from veloxseg.installation import num_cores
from veloxseg.network.config import NetworkConfig
from veloxseg.network.inference import ArrayNetwork
from veloxseg.network.plans import NETWORK_CLASS_NAME
from veloxseg.network.size import count_multiply_adds
from veloxseg.network.veloxseg import VeloxSeg
from veloxseg.training.runs import FINAL, Run, find_run

_NUM_REAL_PATCHES = 2


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


def export(
    run: str | Path,
    bundle: Path,
    *,
    workspace: Workspace | None = None,
    about: About | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Export the finished folds of a trained run; several are averaged in one model."""
    _require_target(bundle, overwrite=overwrite)
    trained = find_run(run, workspace=workspace)
    model = load_run(trained)
    cases = _real_cases(trained, workspace)
    pipeline = model.pipeline
    patches = real_patches(cases.validation, pipeline, number=_NUM_REAL_PATCHES)
    files, manifest = _make(model, patches, about=about or About(), run=trained, bundle=bundle)
    return write_bundle(bundle, files, manifest, overwrite=overwrite)


def _make(model, patches, *, about, run, bundle):
    config, pipeline = model.config, model.pipeline
    graph = network_graph(config, model.folds, patch_size=pipeline.patch_size).SerializeToString()
    reference = ArrayNetwork(config, model.folds, threads=num_cores(), device="cpu").run
    shape = (len(pipeline.channels), *pipeline.patch_size)
    verification = verify_float32(
        graph, reference, [*random_patches(shape), *patches], has_regions=pipeline.has_regions
    )
    files = {
        PIPELINE: _json(pipeline.model_dump(mode="json")),
        NETWORK: _json(config.to_json()),
        WEIGHTS: save(join_folds(model.folds)),
        model_file("float32"): graph,
    }
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files={},
        versions=package_versions(),
        source=describe_run(run),
        **about.fields(run.description, name=bundle.name.split(".")[0]),
        num_parameters=sum(w.size for w in model.folds[0].values()),
        multiply_adds=len(model.folds) * count_multiply_adds(config, patch_size=pipeline.patch_size),
        evaluation=evaluation_of_folds(run),
        verification={model_file("float32"): verification},
    )
    return files, manifest


def load_run(run: Run) -> TrainedModel:
    """Read the networks of a run and its plan.

    Raises:
        BundleError: another network than VeloxSeg, a plan that cannot be exported, or checkpoints
            that are damaged or do not fit it.
    """
    plans = run.plans
    configuration = run.folder.name.split("__")[-1]
    checkpoints = [_load_checkpoint(run.folder / f"fold_{fold}" / FINAL) for fold in run.folds]
    pipeline = pipeline_from_plans(
        plans,
        configuration,
        run.description,
        mirror_axes=checkpoints[0].get("inference_allowed_mirroring_axes") or (),
    )
    architecture = plans["configurations"][configuration].get("architecture", {})
    found = architecture.get("network_class_name", "none")
    if found != NETWORK_CLASS_NAME:
        raise BundleError(f"{run.folder}: network {found}")
    config = NetworkConfig(num_classes=pipeline.num_classes, **architecture["arch_kwargs"])
    folds = [
        _fitting_weights(c["network_weights"], config, run.folder) for c in checkpoints
    ]
    return TrainedModel(config=config, folds=folds, pipeline=pipeline)


def _load_checkpoint(path: Path) -> dict[str, Any]:
    with torch.serialization.safe_globals(_numpy_scalars()):
        return torch.load(path, map_location="cpu", weights_only=True)


def _numpy_scalars() -> list[Any]:
    scalar = np.float32(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    types = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")]
    return [*((scalar, name) for name in names), np.dtype, *types]


def _fitting_weights(state: Mapping[str, Any], config: NetworkConfig, where: Path) -> Weights:
    network = VeloxSeg(config)
    network.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
    return {
        name: np.ascontiguousarray(value.float().numpy())
        for name, value in network.state_dict().items()
    }


def _real_cases(run: Run, workspace: Workspace | None) -> RealCases:
    dataset = run.folder.parent.name
    raw = workspace.raw if workspace is not None else run.folder.parents[2] / "nnUNet_raw"
    folds = [run.folder / f"fold_{fold}" for fold in run.folds]
    return find_real_cases(raw / dataset, run.description, folds)


def _require_target(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise BundleError(f"{path}: exists already. Choose another name, or give --overwrite.")


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
