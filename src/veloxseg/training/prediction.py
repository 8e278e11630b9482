"""Masks from a trained run, by nnU-Net's predictor, one case at a time in this process."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from veloxseg.atomic import atomic_path, write_json
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, ImageReadError, VeloxSegError
from veloxseg.installation import extension_folder
from veloxseg.quiet import printing_to_log
from veloxseg.runtime.inputs import PredictionCase, find_prediction_cases
from veloxseg.training.device import Device, choose_device
from veloxseg.training.runs import FINAL, Run, find_run
from veloxseg.volumes.itk import last_line
from veloxseg.volumes.reading import read_volume

_EXTENSIONS = "nnUNet_extTrainer"

Progress = Callable[[float, int], None]
"""Called with the number of cases done, the part of the present one included, and that of all."""


def predict(
    run: str | Path,
    inputs: Sequence[Path],
    output: Path,
    *,
    workspace: Workspace | None = None,
    device: Device = "auto",
    mirroring: bool = False,
    overlap: float = 0.5,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Predict the masks of one or many cases.

    Args:
        run: A results folder (or one fold of it), or ``DATASET`` or ``DATASET/FOLD`` for the newest
            run; several finished folds are averaged.
        inputs: One folder of cases in nnU-Net's naming, or the files of one case in the channels'
            order.
        output: Folder for the masks; for one case a file as well.
        workspace: Where a dataset's runs are looked up; a folder needs none.
        device: Where to compute.
        mirroring: Average over mirrored patches: eight times the work for a little accuracy.
        overlap: Share of a patch that neighbouring patches cover too, 0 to less than 1.
        resume: Leave masks that exist as they are.
        progress: Is told how far it is.

    Returns:
        The masks' files, each on the grid of its images.

    Raises:
        BundleError: the run is missing or unfinished.
        DatasetError: channels are missing, unreadable, on different grids or not finite.
        OSError: a mask cannot be written; none is left half-written.
    """
    if not 0 <= overlap < 1:
        raise VeloxSegError(f"--overlap is {overlap}. Expected a share from 0 to less than 1.")
    trained = find_run(run, workspace=workspace)
    cases = find_prediction_cases(
        inputs,
        output,
        channels=trained.description.channels,
        file_ending=trained.description.file_ending,
        itk_header=trained.description.read_by_itk,
    )
    waiting = [case for case in cases if not (resume and case.output.is_file())]
    if not waiting:
        return [case.output for case in cases]
    with printing_to_log():
        predictor = _load(trained, choose_device(device), mirroring=mirroring, overlap=overlap)
        writer = predictor.plans_manager.image_reader_writer_class
        for number, case in enumerate(waiting):

            def report(fraction: float, number: int = number) -> None:
                if progress is not None:
                    progress(len(cases) - len(waiting) + number + fraction, len(cases))

            report(0)
            _check_voxels(case)
            write_mask(case.output, *_segment(predictor, case, report), writer)
            report(1)
    if not any(case.output == output for case in cases):  # as nnU-Net leaves it for its own tools
        write_json(output / "dataset.json", trained.description.to_json())
        write_json(output / "plans.json", trained.plans)
    return [case.output for case in cases]


class _CountingPredictor(nnUNetPredictor):  # type: ignore[misc]
    """nnU-Net's predictor, which says how many of a case's patches are done."""

    report: Callable[[float], None] | None = None
    _num_patches = 1
    _done = 0

    def _internal_get_sliding_window_slicers(self, image_size: tuple[int, ...]) -> Any:
        slicers = super()._internal_get_sliding_window_slicers(image_size)
        self._num_patches, self._done = len(slicers), 0
        return slicers

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> Any:
        prediction = super()._internal_maybe_mirror_and_predict(x)
        self._done += 1
        if self.report is not None:
            self.report(self._done / self._num_patches)
        return prediction


def _load(run: Run, device: torch.device, *, mirroring: bool, overlap: float) -> _CountingPredictor:
    """nnU-Net's predictor with the weights of the run's folds."""
    folders = [folder for folder in os.environ.get(_EXTENSIONS, "").split(os.pathsep) if folder]
    if str(extension_folder()) not in folders:
        os.environ[_EXTENSIONS] = os.pathsep.join([*folders, str(extension_folder())])
    predictor = _CountingPredictor(
        tile_step_size=1 - overlap,
        use_mirroring=mirroring,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(run.folder), run.folds, FINAL)
    return predictor


def _check_voxels(case: PredictionCase) -> None:
    """Read the images wholly: ITK would put 0 for NaN and for the missing end of a file."""
    for path in case.images:
        try:
            data = read_volume(path).data
        except ImageReadError as error:
            raise DatasetError(f"Case {case.name}: {error}") from error
        if not np.isfinite(data).all():
            raise DatasetError(
                f"Case {case.name}: {path} has voxels that are NaN or infinite. Expected finite "
                "values. Replace them, as by the background's value."
            )


def _segment(
    predictor: _CountingPredictor, case: PredictionCase, report: Callable[[float], None]
) -> tuple[Any, dict[str, Any]]:
    """The mask, its axes as the plan's reader has them, and that reader's notes on the grid."""
    configuration = predictor.configuration_manager
    data, _, properties = configuration.preprocessor_class(verbose=False).run_case(
        [str(path) for path in case.images],
        None,
        predictor.plans_manager,
        configuration,
        predictor.dataset_json,
    )
    mask = convert_predicted_logits_to_segmentation_with_correct_shape(
        _logits(predictor, torch.from_numpy(data), report),
        predictor.plans_manager,
        configuration,
        predictor.label_manager,
        properties,
        num_threads_torch=torch.get_num_threads(),
    )
    return mask, properties


def _logits(
    predictor: _CountingPredictor, data: torch.Tensor, report: Callable[[float], None]
) -> torch.Tensor:
    """Logits (classes, Z, Y, X) on the plan's grid, the mean over the folds.

    nnU-Net's own loop over the folds would take ``nnUNet_def_n_proc`` for the number of threads.
    """
    num_folds = len(predictor.list_of_parameters)
    total: torch.Tensor | None = None
    for fold, parameters in enumerate(predictor.list_of_parameters):
        predictor.network.load_state_dict(parameters)
        predictor.report = lambda part, fold=fold: report((fold + part) / num_folds)
        logits = predictor.predict_sliding_window_return_logits(data).cpu()
        total = logits if total is None else total + logits
    assert total is not None
    return total / num_folds


def write_mask(path: Path, mask: Any, properties: dict[str, Any], writer: Any) -> None:
    """Write a mask by nnU-Net's writer, whole or not at all.

    Args:
        path: The mask's file.
        mask: What ``writer`` takes: labels on the grid that its reader read.
        properties: Its reader's notes on the grid.
        writer: A class of nnU-Net's image readers and writers.

    Raises:
        OSError: the mask cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            writer().write_seg(mask, str(temporary), properties)
            read_volume(temporary)  # ITK reports no error when the disk fills up
        except (RuntimeError, ImageReadError) as error:
            raise OSError(
                f"{path}: the mask could not be written ({last_line(error)}). Check that the "
                "folder may be written to, and the space left on the disk."
            ) from error
