"""Masks of one or many cases, from files to files."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from veloxseg.bundle.format import MANIFEST, Pipeline, Precision
from veloxseg.bundle.reading import open_bundle
from veloxseg.datasets.problems import Problem, raise_problems
from veloxseg.errors import (
    BundleError,
    DatasetError,
    GeometryError,
    ImageReadError,
    VeloxSegError,
)
from veloxseg.installation import num_cores
from veloxseg.models.finding import resolve_model
from veloxseg.runtime.backends.backend import BackendName
from veloxseg.runtime.inputs import PredictionCase, find_prediction_cases, input_folder
from veloxseg.runtime.memory import estimate_bytes, require_memory
from veloxseg.runtime.model import Model
from veloxseg.runtime.resampling import resampled_shape
from veloxseg.runtime.segmentation import label_volumes_ml
from veloxseg.runtime.speed import Choice, choose_execution
from veloxseg.runtime.tiling import tile_starts
from veloxseg.runtime.volume_table import VolumeTable
from veloxseg.volumes.reading import read_grid, read_volume
from veloxseg.volumes.volume import Grid

Progress = Callable[[float, int], None]
"""Called with the number of cases done, the part of the present one included, and that of all."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What was written.

    Attributes:
        masks: One file a case.
        volumes: Volumes in ml of every case's labels: a JSON and a CSV file.
        skipped: How many masks were there before.
        choice: Engine, threads and batch, and why; None if nothing was left to do.
    """

    masks: tuple[Path, ...]
    volumes: tuple[Path, Path]
    skipped: int
    choice: Choice | None


def predict(
    bundle: Path | str,
    inputs: Path | Sequence[Path] | Mapping[str, Path],
    output: Path,
    *,
    without: Sequence[str] = (),
    backend: BackendName | None = None,
    precision: Precision = "float32",
    threads: int | None = None,
    device: str = "auto",
    overlap: float | None = None,
    mirroring: bool | None = None,
    probabilities: bool = False,
    postprocessing: bool = True,
    resume: bool = False,
    max_memory_gb: float | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Predict the masks of one or many cases.

    Args:
        bundle: The model's folder or zip, or its name in ``veloxseg models``.
        inputs: A folder of cases in nnU-Net's naming or a case's only file; or the files of one
            case in the channels' order or by the channels' names. Of optional channels files may
            lack.
        output: Folder for the masks; for one case a file as well.
        without: Optional channels to pass over, to find out what they are worth.
        backend: The engine; None takes the one that is fastest here for this work.
        precision: Of the arithmetic.
        threads: Threads to compute with; None: one for each core.
        device: ``auto``, ``cpu`` or ``cuda``, for the engines that know GPUs.
        overlap: Share of a patch that the next one covers too; None: the bundle's.
        mirroring: Average over mirrored patches, up to eight times the work; None: as the bundle
            says.
        probabilities: Write them beside each mask, as ``CASE.npz``.
        postprocessing: Take the bundle's steps; else masks are what the network says.
        resume: Leave masks that exist as they are.
        max_memory_gb: Use one patch at a time where that helps, and refuse cases that would need
            more all the same, before anything is computed.
        progress: Is told how far it is.

    Returns:
        The files: every mask is on its image's grid, and whole whenever it exists.

    Raises:
        BundleError: there is no such bundle, or it is not what its manifest says.
        DatasetError: channels are missing or unknown, unreadable, on different grids or not
            finite. What only a case's voxels tell is raised after all other cases are written.
        VeloxSegError: an option is out of range, or more memory would be needed than allowed.
        OSError: the output cannot be written.
    """
    if overlap is not None and not 0 <= overlap < 1:
        raise VeloxSegError(f"--overlap is {overlap}. Expected a share from 0 to less than 1.")
    if threads is not None and threads < 1:
        raise VeloxSegError(f"--threads is {threads}. Expected 1 or more.")
    if isinstance(inputs, Path):
        inputs = [inputs]
    path = resolve_model(bundle)
    _refuse_run(path)
    opened = open_bundle(path)
    pipeline = opened.pipeline
    if overlap is not None:
        pipeline = pipeline.model_copy(update={"overlap": overlap})
    mirroring = pipeline.mirroring if mirroring is None else mirroring
    cases = find_prediction_cases(
        inputs,
        output,
        channels=pipeline.channels,
        optional=pipeline.optional,
        without=without,
        file_ending=pipeline.file_ending,
    )
    _require_writable(cases[0].output.parent)
    table = VolumeTable(
        _volumes_path(cases, output, by_files=input_folder(inputs) is None),
        labels=dict(pipeline.foreground),
        resume=resume,
    )
    waiting = []
    for case in cases:
        chances = _probabilities_path(case.output)
        if resume and case.output.is_file() and (not probabilities or chances.is_file()):
            if not table.has(case.name, newer_than=case.output):
                table.add(case.name, _volumes_of_file(case.output, pipeline))
        else:
            waiting.append(case)
    choice, problems = None, []
    if waiting:
        grids = [read_grid(case.files[0]) for case in waiting]
        num_tiles = [_num_tiles(grid, pipeline) for grid in grids]
        choice = choose_execution(
            opened,
            backend=backend,
            precision=precision,
            threads=threads or num_cores(),
            num_patches=sum(num_tiles) * (2 ** len(pipeline.mirror_axes) if mirroring else 1),
        )
        choice = _within_memory(
            choice, waiting, grids, pipeline, max_memory_gb, probabilities=probabilities
        )
        batch = min(
            choice.execution.batch, max(num_tiles)
        )  # tiles of two cases are never run together
        choice = replace(choice, execution=replace(choice.execution, batch=batch))
        model = Model(opened, choice, device=device)
        done = len(cases) - len(waiting)
        for number, case in enumerate(waiting, start=done):

            def report(tiles: int, total: int, number: int = number) -> None:
                if progress is not None:
                    progress(number + (tiles / total if total else 1.0) * 0.999, len(cases))

            try:
                found = model.predict(
                    case.images,
                    overlap=overlap,
                    mirroring=mirroring,
                    probabilities=probabilities,
                    postprocessing=postprocessing,
                    on_tiles=report,
                )
            except (DatasetError, GeometryError, ImageReadError) as error:
                if len(cases) == 1:
                    raise
                problems.append(_problem(case, error))  # the other cases need not wait for it
                continue
            if probabilities:  # before the mask, which says that a case is finished
                found.save_probabilities(_probabilities_path(case.output))
            table.add(case.name, found.volumes_ml)
            found.save(case.output)
            del found  # before the next case needs the memory
            if progress is not None:
                progress(number + 1, len(cases))
    volumes = table.write()
    raise_problems(
        f"{output}: {len(cases) - len(problems)} of {len(cases)} masks written", problems
    )
    return Predictions(
        masks=tuple(case.output for case in cases),
        volumes=volumes,
        skipped=len(cases) - len(waiting),
        choice=choice,
    )


def _problem(case: PredictionCase, error: VeloxSegError) -> Problem:
    message = f"Case {case.name}: {error} Then go on with --resume."
    return Problem(case=case.name, severity="error", kind="unreadable", message=message)


def _refuse_run(path: Path) -> None:
    """A results folder of nnU-Net, or a fold in it, is not a bundle yet."""
    folders = [path]
    if path.name.startswith("fold_") and not (path / MANIFEST).is_file():
        folders.append(path.resolve().parent)
    if any((folder / "plans.json").is_file() for folder in folders):
        raise BundleError(
            f"{path}: a training run. Expected a bundle, which runs without PyTorch. Export it "
            f"first: veloxseg export {path} NAME.veloxseg"
        )


def _require_writable(folder: Path) -> None:
    """Find out before an hour of work, not after it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(13, "cannot be written to. Choose another output", str(folder))


def _num_tiles(grid: Grid, pipeline: Pipeline) -> int:
    """Tiles of a case that is cropped not at all."""
    order = pipeline.transpose
    shape = resampled_shape(
        [grid.size_zyx[axis] for axis in order],
        [grid.spacing_zyx[axis] for axis in order],
        pipeline.spacing,
    )
    starts = tile_starts(shape, pipeline.patch_size, pipeline.overlap)
    return int(np.prod([len(axis) for axis in starts]))


def _within_memory(
    choice: Choice,
    cases: Sequence[PredictionCase],
    grids: Sequence[Grid],
    pipeline: Pipeline,
    limit_gb: float | None,
    *,
    probabilities: bool,
) -> Choice:
    """Give up patches side by side where that makes all cases fit; else refuse the first."""
    if limit_gb is None:
        return choice
    batches = sorted({choice.execution.batch, 1}, reverse=True)
    for batch in batches:
        estimates = [
            estimate_bytes(
                grid.size_zyx,
                grid.spacing_zyx,
                pipeline,
                batch=batch,
                probabilities=probabilities,
            )
            for grid in grids
        ]
        if max(estimates) <= limit_gb * 1e9:
            return replace(choice, execution=replace(choice.execution, batch=batch))
    for case, estimate in zip(cases, estimates, strict=True):
        require_memory(estimate, limit_gb, what=f"Case {case.name}")
    return choice


def _volumes_path(cases: Sequence[PredictionCase], output: Path, *, by_files: bool) -> Path:
    """Without its ending: ``volumes`` in a folder of masks, ``MASK_volumes`` beside a mask."""
    if by_files:
        return cases[0].output.with_name(f"{cases[0].name}_volumes")
    return output / "volumes"


def _probabilities_path(mask: Path) -> Path:
    return mask.with_name(f"{mask.name.removesuffix('.gz').rpartition('.')[0]}.npz")


def _volumes_of_file(path: Path, pipeline: Pipeline) -> dict[str, float]:
    mask = read_volume(path)
    return label_volumes_ml(mask.data.astype(np.uint16), mask.grid, dict(pipeline.foreground))
