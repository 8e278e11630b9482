"""The files that planning and preprocessing leave for the stages after them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json, write_json
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import PlanError

CONFIGURATION = "3d_fullres"
PLANS_NAME = "VeloxSegPlans"
STRUCTURES_KEY = "labelled_structures"
"""Where the fingerprint says how large the labelled structures are."""

DECISIONS_KEY = "decisions"
"""Where a configuration says why it is as it is."""

OPTIONS = "options"
"""The decision that says what ``veloxseg plan`` was given, where that is not the defaults."""

_PREPROCESSING_KEYS = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)


def plans_file(workspace: Workspace, name: str, plans_name: str = PLANS_NAME) -> Path:
    """Where a plan of a dataset is."""
    return workspace.preprocessed / name / f"{plans_name}.json"


def read_plans(workspace: Workspace, name: str) -> dict[str, Any]:
    """The VeloxSeg plan of a dataset.

    Raises:
        PlanError: there is none, or it cannot be read.
    """
    file = plans_file(workspace, name)
    try:
        plans: dict[str, Any] = read_json(file)
    except FileNotFoundError:
        raise PlanError(f"{file}: no plan. Make one first: veloxseg plan {name}") from None
    return plans


def planned_options(plans: Mapping[str, Any]) -> str:
    """The options that ``veloxseg plan`` was given; nothing where they were the defaults."""
    decisions = plans["configurations"][CONFIGURATION].get(DECISIONS_KEY, [])
    return "".join(one["value"] for one in decisions if one["what"] == OPTIONS)


def preprocessed_folder(workspace: Workspace, name: str, plans: Mapping[str, Any]) -> Path:
    """Where the preprocessed cases of a plan are."""
    identifier: str = plans["configurations"][CONFIGURATION]["data_identifier"]
    return workspace.preprocessed / name / identifier


def preprocessing_settings(plans: Mapping[str, Any]) -> dict[str, Any]:
    """What of a plan shapes the preprocessed cases: not the network, not the patch."""
    configuration = plans["configurations"][CONFIGURATION]
    return {
        "transpose_forward": plans["transpose_forward"],
        "intensities": plans["foreground_intensity_properties_per_channel"],
        **{key: configuration[key] for key in _PREPROCESSING_KEYS},
    }


def file_states(files: Iterable[Path]) -> dict[str, list[int]]:
    """Size and time of change of each file, by its name."""
    return {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in files}


def read_mark(folder: Path) -> dict[str, Any] | None:
    """The mark of a folder of preprocessed cases: its ``settings`` and its source ``files``.

    None while the folder is not finished, and for one that nnU-Net's own command has made.
    """
    file = _mark_file(folder)
    return read_json(file) if file.is_file() and folder.is_dir() else None


def write_mark(folder: Path, mark: Mapping[str, Any]) -> None:
    """Mark a folder of preprocessed cases as finished."""
    write_json(_mark_file(folder), mark)


def remove_mark(folder: Path) -> None:
    """Say that a folder is being made anew."""
    _mark_file(folder).unlink(missing_ok=True)


def _mark_file(folder: Path) -> Path:
    """Beside the folder: nnU-Net allows nothing but cases in it."""
    return folder.with_name(f"{folder.name}.made_by.json")
