"""Made-up cross-validations: what gains is chosen, what only seems to is not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mask_shapes import box, voxels
from veloxseg.evaluation.label_set import Label
from veloxseg.evaluation.pairing import MaskPair
from veloxseg.evaluation.postprocessing.choice import Choice, choose_steps
from veloxseg.evaluation.postprocessing.counting import CaseCounts, Target, TargetCounts
from veloxseg.evaluation.postprocessing.judging import choose_step
from veloxseg.volumes.reading import write_mask
from veloxseg.volumes.volume import Grid

ORGAN = box((1, 4), (1, 4), (1, 4))  # 27 voxels, each 0.001 ml
LESION = box((6, 8), (6, 8), (6, 8))  # 8 voxels
SPECK = voxels((0, 8, 9))
NOTHING = np.zeros_like(ORGAN)
Pair = tuple[np.ndarray, np.ndarray]


def choose(
    folder: Path,
    cases: Sequence[Pair],
    *,
    names: dict[Label, str] | None = None,
    folds: Sequence[int] | None = None,
) -> Choice:
    pairs = []
    for number, masks in enumerate(cases):
        files = [folder / kind / f"{number:02d}.nii.gz" for kind in ("predicted", "reference")]
        for file, mask in zip(files, masks, strict=True):
            grid = Grid(size_zyx=mask.shape, spacing_zyx=(1.0, 1.0, 1.0), origin_xyz=(0, 0, 0))
            write_mask(file, mask, grid)
        fold = 0 if folds is None else folds[number]
        pairs.append(
            MaskPair(name=files[0].name, prediction=files[0], reference=files[1], fold=fold)
        )
    return choose_steps(pairs, names or {1: "lesion"})


def reasons(choice: Choice, target: str) -> list[str]:
    return [tried.reason for tried in choice.tried if tried.target == target]


def test_false_specks_everywhere_are_removed_by_the_step_that_removes_least(tmp_path):
    choice = choose(tmp_path, [(LESION + SPECK, LESION)] * 6)

    (step,) = choice.steps
    assert (step.kind, step.labels, step.minimum_ml) == ("minimum_volume", (1,), 0.0011)
    gain = 1 - 2 * 8 / (9 + 8)
    assert choice.dice_before == pytest.approx({"mean": 1 - gain, "lesion": 1 - gain})
    assert choice.dice_after == pytest.approx({"mean": 1, "lesion": 1})
    assert choice.held_out_gain == pytest.approx(gain)
    tried = choice.tried[0]
    assert tried.used
    assert (tried.num_better, tried.num_worse, tried.num_removed, tried.num_removed_true) == (
        6,
        0,
        6,
        0,
    )
    assert tried.gain == pytest.approx(gain)
    assert set(reasons(choice, "whole foreground")[1:]) == {"another gains as much or more"}


def test_the_smallest_volume_spares_what_keeping_the_largest_would_lose(tmp_path):
    choice = choose(tmp_path, [(ORGAN + LESION + SPECK, ORGAN + LESION)] * 6)
    (step,) = choice.steps
    assert step.kind == "minimum_volume"
    largest = choice.tried[-1]
    assert largest.step.kind == "keep_largest"
    assert largest.num_worse == 6
    assert largest.num_removed_true == 6
    assert largest.reason == "gains nothing"


def test_large_false_components_are_removed_by_keeping_the_largest(tmp_path):
    false = box((5, 8), (5, 8), (5, 8)) - voxels((5, 5, 5))  # 26 voxels
    reference = ORGAN + SPECK  # 27 voxels and 1: no volume above 14 voxels is tried
    choice = choose(tmp_path, [(ORGAN + false, reference)] * 6)
    (step,) = choice.steps
    assert step.kind == "keep_largest"
    assert choice.dice_before["mean"] == pytest.approx(54 / (53 + 28))
    assert choice.dice_after["mean"] == pytest.approx(54 / (27 + 28))


def test_true_components_alone_leave_nothing_to_gain(tmp_path):
    choice = choose(tmp_path, [(ORGAN + LESION, ORGAN + LESION)] * 6)
    assert choice.steps == ()
    assert choice.held_out_gain == 0
    assert reasons(choice, "whole foreground") == ["gains nothing"]
    assert choice.dice_before == choice.dice_after


def test_one_case_of_many_is_noise(tmp_path):
    choice = choose(tmp_path, [(ORGAN + LESION, ORGAN)] + [(ORGAN, ORGAN)] * 11)
    assert choice.steps == ()
    assert choice.tried[0].gain > 0.01
    assert reasons(choice, "whole foreground")[-1].startswith("gain within 1.6 standard errors")


def test_a_gain_below_the_margin_is_none(tmp_path):
    many = np.ones((30, 30, 30), np.uint8)
    many[29], many[28] = 0, 0
    false = many.copy()
    false[29, 29, 29] = 1
    choice = choose(tmp_path, [(false, many)] * 6)
    assert choice.steps == ()
    assert 0 < choice.tried[0].gain < 0.001
    assert choice.tried[0].reason == "gains no more than 0.001"


def test_a_gain_in_one_fold_alone_does_not_hold_in_others(tmp_path):
    cases = [(LESION + SPECK, LESION)] * 5 + [(LESION, LESION)] * 15
    folds = [number // 5 for number in range(20)]
    choice = choose(tmp_path, cases, folds=folds)
    assert choice.steps == ()
    assert reasons(choice, "whole foreground")[0] == "gains nothing on held-out cases"
    assert choice.tried[0].held_out_gain == 0
    spread = choose(tmp_path, cases, folds=[number % 4 for number in range(20)])
    assert len(spread.steps) == 1


def test_few_cases_decide_nothing(tmp_path):
    choice = choose(tmp_path, [(LESION + SPECK, LESION)] * 4)
    assert choice.steps == ()
    assert reasons(choice, "whole foreground")[0] == "fewer than 5 cases"
    assert choose(tmp_path, [(LESION + SPECK, LESION)]).tried[0].standard_error is None


def test_removing_all_of_a_false_prediction_without_reference_gains_a_whole_dice(tmp_path):
    choice = choose(tmp_path, [(SPECK, NOTHING), (LESION, LESION)] * 4)
    (step,) = choice.steps
    assert step.kind == "minimum_volume"
    assert choice.dice_before["mean"] == 0.5
    assert choice.dice_after["mean"] == 1
    assert choice.held_out_gain == 0.5


def test_removing_a_part_of_a_false_prediction_without_reference_gains_nothing(tmp_path):
    false = ORGAN + SPECK  # the larger component is larger than any that may be removed
    choice = choose(tmp_path, [(false, NOTHING), (LESION, LESION)] * 4)
    assert choice.steps == ()
    assert choice.dice_before["mean"] == 0.5
    assert set(reasons(choice, "whole foreground")) == {"gains nothing"}


def test_references_that_are_empty_throughout_teach_nothing(tmp_path):
    choice = choose(tmp_path, [(SPECK, NOTHING)] * 6)
    assert choice.steps == ()
    assert choice.tried == ()
    assert choice.skipped == {"whole foreground": "no case's reference has any"}


def test_what_would_cost_one_label_is_done_to_the_other_alone(tmp_path):
    false = box((0, 3), (5, 9), (9, 10))  # 12 voxels: more than the lesion has, less than the organ
    reference = ORGAN + 2 * LESION
    names: dict[Label, str] = {1: "organ", 2: "lesion"}
    cases = [(ORGAN + false, ORGAN)] * 9 + [(reference + false, reference)]
    choice = choose(tmp_path, cases, names=names)
    (step,) = choice.steps
    assert step.labels == (1,)
    assert "lowers lesion" in reasons(choice, "whole foreground")
    assert reasons(choice, "lesion") == ["gains nothing"]
    assert choice.dice_after == pytest.approx({"mean": 1, "organ": 1, "lesion": 1})


def test_later_targets_see_what_earlier_steps_left(tmp_path):
    reference = ORGAN + 2 * LESION
    predicted = reference + SPECK + 2 * voxels((4, 8, 0))
    names: dict[Label, str] = {1: "organ", 2: "lesion"}
    choice = choose(tmp_path, [(predicted, reference)] * 6, names=names)
    (step,) = choice.steps
    assert step.labels == (1, 2)
    assert [tried.num_removed for tried in choice.tried if tried.target == "organ"] == [0]


def test_regions_are_judged_as_regions(tmp_path):
    whole = ORGAN.copy()
    whole[2, 2, 2] = 2
    predicted = whole + 2 * SPECK
    names: dict[Label, str] = {(1, 2): "whole", 2: "core"}
    choice = choose(tmp_path, [(predicted, whole)] * 6, names=names)
    (step,) = choice.steps
    assert step.labels == (1, 2)
    assert choice.dice_before == pytest.approx(
        {"whole": 54 / 55, "core": 2 / 3, "mean": (54 / 55 + 2 / 3) / 2}
    )
    assert choice.dice_after == pytest.approx({"whole": 1, "core": 1, "mean": 1})


def coin_cases(rng: np.random.Generator, share_false: float) -> list[CaseCounts]:
    """Cases of a large true component and a small one, true or false by chance."""
    cases = []
    for is_false in rng.random(40) < share_false:
        sizes = np.array([100, 10])
        correct = np.array([100, 0 if is_false else 10])
        counts = TargetCounts(
            sizes=sizes,
            is_true=correct > 0,
            predicted=sizes[None],
            correct=correct[None],
            lesions_ml=np.array([0.1, 0.01][: 1 if is_false else 2]),
        )
        cases.append(
            CaseCounts(
                voxel_ml=0.001,
                predicted=np.array([110]),
                correct=correct.sum(keepdims=True),
                referred=correct.sum(keepdims=True),
                targets=(counts,),
            )
        )
    return cases


@pytest.mark.parametrize(
    ("share_false", "lowest", "highest"), [(0.5, 0.0, 0.08), (0.85, 0.95, 1.0)]
)
def test_chance_is_seldom_taken_for_a_gain_and_a_gain_seldom_for_chance(
    share_false, lowest, highest
):
    target = Target(name="lesion", values=(1,), judged=(0,))
    groups = [number % 5 for number in range(40)]
    chosen = [
        choose_step(
            target,
            0,
            coin_cases(np.random.default_rng(seed), share_false),
            groups=groups,
            label_names=["lesion"],
        ).step
        is not None
        for seed in range(200)
    ]
    assert lowest <= np.mean(chosen) <= highest
