"""Splits that keep a patient's cases together, in the form of nnU-Net's splits_final.json."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from veloxseg.atomic import read_json, write_json
from veloxseg.errors import DatasetError, VeloxSegError

SPLITS_FILE = "splits_final.json"
"""Beside a dataset's plans; nnU-Net's trainer reads it."""

SPLIT_SEED = 12345
"""nnU-Net's own."""

Ratios = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Names of the cases of one split, each part in the order of the names.

    Attributes:
        train: To learn from.
        val: To validate with after the training.
        test: Never seen by a training of this split; empty in cross-validation.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()

    def to_json(self) -> dict[str, list[str]]:
        """The split as nnU-Net stores it; ``test`` is our own key, which nnU-Net passes by."""
        parts = {name: list(cases) for name, cases in asdict(self).items()}
        if not self.test:
            del parts["test"]
        return parts


class FoldRule(BaseModel):
    """Cross-validation: every case is validated with once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["folds"] = "folds"
    num_folds: int = Field(default=5, ge=2)
    seed: int = Field(default=SPLIT_SEED, ge=0)


class RatioRule(BaseModel):
    """One split: shares of the cases to train, to validate and to test with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["ratio"] = "ratio"
    ratios: Ratios = (6, 2, 2)
    seed: int = Field(default=SPLIT_SEED, ge=0)

    @field_validator("ratios")
    @classmethod
    def _check_ratios(cls, ratios: Ratios) -> Ratios:
        train, val, test = ratios
        if not (np.isfinite(ratios).all() and train > 0 and val > 0 and test >= 0):
            raise ValueError(
                f"ratios are {ratios}. Expected shares to train, validate and test with, such as "
                "6, 2, 2; only the last may be 0"
            )
        return ratios


SplitRule = Annotated[FoldRule | RatioRule, Field(discriminator="kind")]


def make_splits(
    cases: Sequence[str], patients: Mapping[str, str], rule: FoldRule | RatioRule
) -> tuple[Split, ...]:
    """Split a dataset by a rule: one split a fold, or the only one.

    Raises:
        DatasetError: there are too few patients, or a case is doubled or has no patient.
    """
    if isinstance(rule, FoldRule):
        return make_folds(cases, patients, num_folds=rule.num_folds, seed=rule.seed)
    return (make_ratio_split(cases, patients, ratios=rule.ratios, seed=rule.seed),)


def make_folds(
    cases: Sequence[str],
    patients: Mapping[str, str],
    *,
    num_folds: int = 5,
    seed: int = SPLIT_SEED,
) -> tuple[Split, ...]:
    """Split for cross-validation, no patient in two folds.

    Two folds differ in size by no more than the patient with most cases has. Where every case is a
    patient of its own, the folds are those that nnU-Net makes itself.

    Args:
        cases: Names of the training cases, in any order.
        patients: Patient of every case.
        num_folds: Number of folds.
        seed: Of the order in which patients are dealt.

    Raises:
        DatasetError: there are fewer patients than folds, or a case is doubled or has no patient.
    """
    parts = _deal(_by_patient(cases, patients), (Fraction(1),) * num_folds, seed)
    every = {case for part in parts for case in part}
    return tuple(
        Split(train=tuple(sorted(every - set(part))), val=tuple(sorted(part))) for part in parts
    )


def make_ratio_split(
    cases: Sequence[str],
    patients: Mapping[str, str],
    *,
    ratios: Ratios = (6, 2, 2),
    seed: int = SPLIT_SEED,
) -> Split:
    """Split once, no patient in two parts, the parts as near to the ratios as patients allow.

    Args:
        cases: Names of the training cases, in any order.
        patients: Patient of every case.
        ratios: Shares to train, to validate and to test with; the last may be 0.
        seed: Of the order in which patients are dealt.

    Raises:
        DatasetError: there are fewer patients than parts, or a case is doubled or has no patient.
        ValueError: the ratios are none.
    """
    rule = RatioRule(ratios=ratios, seed=seed)
    shares = tuple(Fraction(ratio).limit_denominator(10**6) for ratio in rule.ratios)
    parts = _deal(_by_patient(cases, patients), tuple(share for share in shares if share), seed)
    train, val, *test = (tuple(sorted(part)) for part in parts)
    return Split(train=train, val=val, test=test[0] if test else ())


def write_splits(path: Path, splits: Sequence[Split], *, overwrite: bool = False) -> None:
    """Write splits for nnU-Net's trainer, whole or not at all; the same ones are left as they are.

    Args:
        path: ``splits_final.json`` in the folder of a dataset's plans.
        splits: One split a fold.
        overwrite: Replace splits of another making; runs trained on them are then of other folds.

    Raises:
        DatasetError: there are other splits already.
    """
    if path.is_file() and not overwrite:
        refuse_other_splits(path, splits)
        return
    write_json(path, [split.to_json() for split in splits])


def refuse_other_splits(path: Path, splits: Sequence[Split]) -> None:
    """Make sure that a file, if there is one, holds these splits and no others.

    Raises:
        DatasetError: it holds others, or none at all.
    """
    if not path.is_file():
        return
    try:
        found = read_json(path)
    except VeloxSegError as error:
        raise DatasetError(str(error)) from error
    content = [split.to_json() for split in splits]
    if found != content:
        raise DatasetError(
            f"{path}: holds other splits already: {_describe(found)}. "
            f"Expected {_describe(content)}. Runs may have been trained on what is there: keep it, "
            "or move it away (with the results of its folds) and plan again."
        )


def _by_patient(cases: Sequence[str], patients: Mapping[str, str]) -> list[list[str]]:
    """Cases of each patient, patients in the order of their first case."""
    doubled = sorted(case for case, count in Counter(cases).items() if count > 1)
    if doubled:
        raise DatasetError(
            f"Splits: {', '.join(doubled[:5])} named twice. Expected every case once. Rename one."
        )
    unknown = sorted(case for case in cases if case not in patients)
    if unknown:
        raise DatasetError(
            f"Splits: no patient for {', '.join(unknown[:5])} ({len(unknown)} in all). Expected "
            "one for every case. Convert the dataset again, or say in dataset.json how a case is "
            "named after its patient."
        )
    groups = defaultdict(list)
    for case in sorted(cases):
        groups[patients[case]].append(case)
    return list(groups.values())


def _deal(groups: list[list[str]], shares: tuple[Fraction, ...], seed: int) -> list[list[str]]:
    """Deal groups to parts, each to the part that is furthest below its share.

    Groups of several cases go first, from the largest on; those of one case follow in runs, so
    that with equal shares and no larger group this is scikit-learn's ``KFold(shuffle=True)``, as
    nnU-Net uses it. No part stays empty.
    """
    if len(groups) < len(shares):
        raise DatasetError(
            f"Splits: {len(groups)} patients cannot be split into {len(shares)} parts without "
            "having one of them in two. Add cases, or split into fewer parts."
        )
    order = np.arange(len(groups))
    np.random.RandomState(seed).shuffle(order)  # nnU-Net's generator: its folds follow from it
    shuffled = [groups[index] for index in order]
    large = sorted((g for g in shuffled if len(g) > 1), key=len, reverse=True)
    small = [group for group in shuffled if len(group) == 1]
    total = sum(len(group) for group in groups)
    targets = [share * total / sum(shares) for share in shares]
    parts: list[list[str]] = [[] for _ in shares]
    sizes = [0] * len(shares)
    for left, group in zip(range(len(groups), 0, -1), large, strict=False):
        part = _next_part(sizes, targets, left=left)
        sizes[part] += len(group)
        parts[part] += group
    singles = iter(small)
    counts = [0] * len(shares)
    for left in range(len(small), 0, -1):
        part = _next_part(sizes, targets, left=left)
        sizes[part] += 1
        counts[part] += 1
    for members, count in zip(parts, counts, strict=True):
        members += [case for group in islice(singles, count) for case in group]
    return parts


def _next_part(sizes: Sequence[int], targets: Sequence[Fraction], *, left: int) -> int:
    """The part that lacks most; an empty one once there are only ``left`` groups to fill them."""
    empty = [part for part, size in enumerate(sizes) if not size]
    choices = empty if left <= len(empty) else range(len(sizes))
    return max(choices, key=lambda part: targets[part] - sizes[part])


def _describe(content: Any) -> str:
    try:
        sizes = ["+".join(str(len(cases)) for cases in split.values()) for split in content]
        names = "+".join(content[0])
    except (AttributeError, IndexError, KeyError, TypeError):
        return "no list of splits"
    return f"{len(sizes)} of {', '.join(dict.fromkeys(sizes))} cases ({names})"
