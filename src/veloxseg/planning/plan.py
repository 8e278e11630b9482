"""The planning stages as functions: fingerprint and plan, then preprocessing, by nnU-Net's code."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veloxseg.atomic import read_json, write_json
from veloxseg.datasets.cases import Case, find_cases
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.description import DatasetDescription, read_description
from veloxseg.datasets.patients import patients_of_cases
from veloxseg.datasets.splits import (
    SPLITS_FILE,
    FoldRule,
    Split,
    make_splits,
    refuse_other_splits,
    write_splits,
)
from veloxseg.datasets.workspace import Workspace, parse_dataset_name
from veloxseg.errors import DatasetError, PlanError
from veloxseg.planning.files import (
    CONFIGURATION,
    PLANS_NAME,
    STRUCTURES_KEY,
    file_states,
    preprocessed_folder,
    preprocessing_settings,
    read_mark,
    remove_mark,
    write_mark,
)
from veloxseg.planning.given import GivenPlan, require_fit
from veloxseg.planning.memory import training_memory_gb
from veloxseg.planning.network_plan import Decision, memory_decision
from veloxseg.planning.peer_plans import VELOXSEG, network_plans
from veloxseg.planning.presets import preset_plan
from veloxseg.planning.recipe import Teachers
from veloxseg.planning.rules import Size
from veloxseg.planning.structures import TURNING_READER, measure_structures
from veloxseg.planning.target import DEFAULT_TARGET, Target
from veloxseg.quiet import printing_to_log

if TYPE_CHECKING:
    from veloxseg.planning.published.key_report import KeyFate

NOT_HONOURED = "not honoured"
"""The value of a decision on a published key that the plan cannot follow."""


@dataclass(frozen=True, kw_only=True)
class PublishedFiles:
    """Published configurations to plan by.

    Attributes:
        model: The model's JSON.
        training: The training's JSON.
        dataset: Name that the training's ``patch_size`` and ``spacing`` have the dataset under;
            None where they have one only.
    """

    model: Path
    training: Path
    dataset: str | None = None


def plan(
    dataset: str,
    *,
    workspace: Workspace,
    target: Target = DEFAULT_TARGET,
    size: Size = "B",
    teachers: Teachers | None = None,
    preset: str | None = None,
    published: PublishedFiles | None = None,
    num_workers: int = 1,
) -> Path:
    """Check the dataset, extract its fingerprint and plan a VeloxSeg network.

    The plan says why it is as it is, under ``decisions`` of its configuration. Splits are written
    where there are none: those of the preset or the published training, else five folds that keep
    a patient's cases together.

    Args:
        dataset: Number or name of a dataset in ``workspace.raw``.
        workspace: nnU-Net's folders.
        target: What training may take.
        size: Width of the network; of a fixed one it is no choice.
        teachers: What the reconstruction decoders do in training; None: by the target.
        preset: Name of a preset that fixes network, spacing, splits and training.
        published: Published configurations that fix them.
        num_workers: Processes that read cases.

    Returns:
        The plans file.

    Raises:
        DatasetError: the dataset is missing, something is wrong with it, or it is split otherwise
            than the preset or the published training splits it.
        PlanError: the dataset is not three-dimensional, does not fit the preset or the published
            configurations, or the target is too small for any network.
    """
    workspace.export()
    name = workspace.dataset_name(dataset)
    raw = _raw_folder(workspace, name)
    check_dataset(raw, num_workers=num_workers).raise_for_errors()
    description = read_description(raw)
    cases = find_cases(raw, description)  # there may be none but test images
    given, decisions = _given_plan(
        description, preset, published, target=target, size=size, teachers=teachers
    )
    splits = _splits_to_write(workspace, name, [case.name for case in cases], given)

    from veloxseg.planning.planner import VeloxSegPlanner

    with printing_to_log():
        _extract_fingerprint(workspace, name, description, cases, num_workers=num_workers)
        planner = VeloxSegPlanner(name)
        planner.target, planner.size, planner.teachers = target, size, teachers
        planner.given, planner.given_decisions = given, decisions
        planner.options = _in_words(target, size, teachers, preset, published)
        planner.plan_experiment()
    if splits:
        write_splits(workspace.preprocessed / name / SPLITS_FILE, splits)
    return workspace.preprocessed / name / f"{PLANS_NAME}.json"


def _in_words(
    target: Target,
    size: Size,
    teachers: Teachers | None,
    preset: str | None,
    published: PublishedFiles | None,
) -> str:
    """The options of the command that plans so; nothing where all are the defaults."""
    words: list[str] = []
    if target != DEFAULT_TARGET:
        words += ["--target", target.name]
    if size != "B":
        words += ["--size", size]
    if teachers is not None:
        words += ["--teachers", teachers]
    if preset is not None:
        words += ["--preset", preset]
    if published is not None:
        words += ["--published", str(published.model), str(published.training)]
        words += ["--published-dataset", published.dataset] if published.dataset else []
    return shlex.join(words)


def _given_plan(
    description: DatasetDescription,
    preset: str | None,
    published: PublishedFiles | None,
    *,
    target: Target,
    size: Size,
    teachers: Teachers | None,
) -> tuple[GivenPlan | None, tuple[Decision, ...]]:
    """The plan that a preset or published files fix, and what to say of it."""
    if preset is not None and published is not None:
        raise PlanError("--preset and --published fix the same things: give one of them.")
    if preset is not None:
        given = preset_plan(preset, description)
        fates: list[KeyFate] = []
    elif published is not None:
        from veloxseg.planning.published import published_plan

        found = published_plan(published.model, published.training, dataset=published.dataset)
        given, fates = found.plan, list(found.fates)
        require_fit(given, description)
    else:
        return None, ()
    if size != "B":
        raise PlanError(f"--size {size}: the widths of {given.origin} are fixed. Leave it out.")
    if teachers is not None:
        raise PlanError(f"--teachers: the training of {given.origin} is fixed. Leave it out.")
    notes = [Decision(what=given.origin, value="given", why=note) for note in given.notes]
    told = [Decision(what=fate.key, value=fate.fate, why=fate.note) for fate in fates]
    return given, (*notes, *told, _decide_memory(given, target))


def _decide_memory(given: GivenPlan, target: Target) -> Decision:
    """What training a fixed network takes; the target cannot make it smaller."""
    memory = training_memory_gb(
        given.network, batch_size=given.batch_size, teachers=given.recipe.teachers != "off"
    )
    decision = memory_decision(memory, target)
    if memory > target.memory_gb:
        why = f"{decision.value}, {decision.why}, and {given.origin} is fixed"
        return Decision(what=f"target {target.name}", value=NOT_HONOURED, why=why)
    return decision


def _extract_fingerprint(
    workspace: Workspace,
    name: str,
    description: DatasetDescription,
    cases: Sequence[Case],
    *,
    num_workers: int,
) -> None:
    """nnU-Net's fingerprint, and how large the labelled structures are."""
    _fingerprint_extractor(description)(name, num_workers).run(overwrite_existing=True)
    labels = [case.label for case in cases if case.label is not None]
    values = [v for v in description.label_values if v not in (0, description.ignore_label)]
    turned = description.overwrite_image_reader_writer == TURNING_READER
    structures = measure_structures(labels, values, turned=turned, num_workers=num_workers)
    file = workspace.preprocessed / name / "dataset_fingerprint.json"
    write_json(file, {**read_json(file), STRUCTURES_KEY: structures.to_json()})


def _splits_to_write(
    workspace: Workspace, name: str, cases: Sequence[str], given: GivenPlan | None
) -> tuple[Split, ...]:
    """A given plan's splits, or five folds where there are no splits; none to leave it at that.

    Raises:
        DatasetError: there are other splits than the given plan's.
    """
    file = workspace.preprocessed / name / SPLITS_FILE
    patients = patients_of_cases(workspace.raw / name, cases)
    if given is not None:
        splits = make_splits(cases, patients, given.split)
        refuse_other_splits(file, splits)
        return splits
    folds = FoldRule()
    if file.is_file() or len(set(patients.values())) < folds.num_folds:
        return ()  # training says what too few cases mean
    return make_splits(cases, patients, folds)


def preprocess(
    dataset: str, *, workspace: Workspace, network: str = VELOXSEG, num_workers: int = 1
) -> Path:
    """Preprocess the training cases by the plan, with nnU-Net's preprocessor.

    A finished folder is marked with what made it: the settings in the plan and the state of every
    source file. It is left as it is as long as they are the same. Plans of other networks share it,
    nnU-Net's own one where it asks for the same.

    Returns:
        The folder of preprocessed cases.

    Raises:
        DatasetError: the dataset is missing.
        PlanError: there is no plan, or no such network.
    """
    workspace.export()
    name = workspace.dataset_name(dataset)
    raw = _raw_folder(workspace, name)
    plans = network_plans(workspace, name, network)
    folder = preprocessed_folder(workspace, name, plans)
    description = read_description(raw)
    cases = find_cases(raw, description)
    mark = {
        "settings": preprocessing_settings(plans),
        "files": file_states(f for case in cases for f in case.files),
    }
    if read_mark(folder) == mark:
        return folder
    remove_mark(folder)
    with printing_to_log():
        if description.optional:
            from veloxseg.planning.optional_preprocessing import preprocess_optional

            preprocess_optional(name, plans, workspace=workspace, num_workers=num_workers)
        else:
            _preprocess_complete(name, plans, num_workers)
    write_mark(folder, mark)
    return folder


def _fingerprint_extractor(description: DatasetDescription) -> Any:
    """nnU-Net's class, or ours where cases may lack channels."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    from veloxseg.planning.optional_fingerprint import OptionalFingerprintExtractor

    return OptionalFingerprintExtractor if description.optional else DatasetFingerprintExtractor


def _preprocess_complete(name: str, plans: Mapping[str, Any], num_workers: int) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    preprocess_dataset(
        parse_dataset_name(name)[0],
        plans["plans_name"],
        configurations=[CONFIGURATION],
        num_processes=[num_workers],
    )


def _raw_folder(workspace: Workspace, name: str) -> Path:
    folder = workspace.raw / name
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: not there, though {name} has other files. Convert it again: "
            "veloxseg convert."
        )
    return folder
