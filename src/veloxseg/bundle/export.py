"""Trained networks to bundles: written as ONNX, compared with PyTorch, and only then kept."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from veloxseg.bundle.acceptance import Progress
from veloxseg.bundle.format import (
    NETWORK,
    PIPELINE,
    WEIGHTS,
    Manifest,
    Precision,
    model_file,
)
from veloxseg.bundle.model_files import (
    ReducedPrecision,
    judge_reduced,
    make_float32,
    make_reduced,
)
from veloxseg.bundle.pipeline import with_mirroring, with_postprocessing
from veloxseg.bundle.postprocessing import find_postprocessing
from veloxseg.bundle.provenance import (
    About,
    describe_run,
    evaluation_of_folds,
    package_versions,
)
from veloxseg.bundle.published import PublishedCase, load_published_model
from veloxseg.bundle.reading import Bundle
from veloxseg.bundle.real_cases import RealCases, find_real_cases, real_patches
from veloxseg.bundle.trained_model import TrainedModel, load_run
from veloxseg.bundle.weights import join_folds
from veloxseg.bundle.writing import write_bundle
from veloxseg.datasets.splits import SPLITS_FILE
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import BundleError
from veloxseg.training.readiness import set_apart
from veloxseg.training.runs import Run, find_run

_NUM_REAL_PATCHES = 2


def export(
    run: str | Path,
    bundle: Path,
    *,
    workspace: Workspace | None = None,
    precisions: Sequence[ReducedPrecision] = (),
    about: About | None = None,
    max_cases: int | None = None,
    postprocessing: bool = True,
    mirroring: bool = False,
    fp16_weights: bool = False,
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
        mirroring: Let predictions average over mirrored patches where nobody says otherwise.
        fp16_weights: Round the weights to float16 and store them so, in half the room. Arithmetic
            stays float32, and logits are compared with the networks' as trained.
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
    reference = model.reference()
    if fp16_weights:
        model = model.with_fp16_weights()
    if mirroring:
        model = replace(model, pipeline=with_mirroring(model.pipeline))
    if postprocessing:
        found = find_postprocessing(trained)
        model = replace(model, pipeline=with_postprocessing(model.pipeline, found.steps))
        if note is not None:
            note(found.note)
    cases = _real_cases(trained, workspace)
    patches = real_patches(cases.validation, model.pipeline, number=_NUM_REAL_PATCHES)
    float32, verification = make_float32(model, patches, reference=reference)
    graphs: dict[Precision, bytes] = {"float32": float32}
    verifications = {model_file("float32"): verification}
    if precisions:
        _require_cases(cases, precisions, trained)
        reduced = make_reduced(model, precisions, cases=cases)
        verifications |= judge_reduced(
            model,
            reduced,
            float32=float32,
            cases=cases.validation[:max_cases],
            patches=patches,
            progress=progress,
        )
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
    float32, verification = make_float32(model, [])
    manifest = _manifest(
        model,
        source=f"Published checkpoint {checkpoint.name}, configuration {config.name}",
        verification={model_file("float32"): verification},
        **(about or About()).fields(None, name=_stem(bundle)),
    )
    return write_bundle(bundle, _files(model, {"float32": float32}), manifest, overwrite=overwrite)


def _files(model: TrainedModel, graphs: Mapping[Precision, bytes]) -> dict[str, bytes]:
    dtype = np.float16 if model.has_fp16_weights else np.float32
    return {
        PIPELINE: _json(model.pipeline.model_dump(mode="json")),
        NETWORK: _json(model.config.to_json()),
        WEIGHTS: save(join_folds(model.folds, dtype=dtype)),
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
