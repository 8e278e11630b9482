"""Cases whose voxels are the same, found by their hashes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from veloxseg.datasets.checking.case import LABEL, CheckedCase
from veloxseg.datasets.problems import Problem


def same_images(cases: Sequence[CheckedCase]) -> list[tuple[list[str], tuple[int, ...]]]:
    """Find the cases that share an image voxel by voxel.

    Returns:
        The channels that are shared, with the indices of the cases in ``cases``, two or more.
    """
    by_hash: dict[str, dict[int, str]] = defaultdict(dict)
    for index, checked in enumerate(cases):
        for part, voxels in checked.hashes.items():
            if part != LABEL:
                by_hash[voxels].setdefault(index, part)
    channels: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for holders in by_hash.values():
        if len(holders) > 1:
            channels[tuple(holders)].append(next(iter(holders.values())))
    return [(names, holders) for holders, names in sorted(channels.items())]


def check_duplicates(cases: Sequence[CheckedCase]) -> Iterator[Problem]:
    """Warn of images that two cases share, above all a training and a test case, and of labels."""
    groups = same_images(cases)
    for channels, holders in groups:
        members = [cases[index] for index in holders]
        titles = [checked.title for checked in members]
        leaks = len({checked.part for checked in members}) > 1
        labels = {checked.hashes.get(LABEL) for checked in members if checked.case.label}
        what = f"Cases {', '.join(titles)}: the voxels of {', '.join(channels)} are the same"
        if leaks:
            text = "A test on a case that was trained on shows nothing. Remove it from one of them."
        elif len(labels) > 1:
            text = "Their labels differ, and one of them is wrong. Remove it."
        else:
            text = (
                "Split over folds, they make results look better than they are. Remove all but "
                "one, or put them into one fold."
            )
        yield Problem(
            case=members[0].case.name,
            severity="warning",
            message=f"{what}. Expected different patients or scans. {text}",
            kind="train_test_duplicate" if leaks else "duplicate_images",
            numbers={"cases": titles, "channels": channels, "same_label": len(labels) < 2},
        )
    yield from _same_labels(cases, [set(holders) for _, holders in groups])


def _same_labels(cases: Sequence[CheckedCase], known: Sequence[set[int]]) -> Iterator[Problem]:
    by_hash: dict[str, list[int]] = defaultdict(list)
    for index, checked in enumerate(cases):
        if LABEL in checked.hashes:
            by_hash[checked.hashes[LABEL]].append(index)
    for holders in by_hash.values():
        if len(holders) < 2 or any(set(holders) <= group for group in known):
            continue
        titles = [cases[index].title for index in holders]
        yield Problem(
            case=cases[holders[0]].case.name,
            severity="warning",
            message=f"Cases {', '.join(titles)}: the labels are the same, the images are not. "
            "Expected a label drawn on each. Look whether one was copied in place of another.",
            kind="duplicate_labels",
            part=LABEL,
            numbers={"cases": titles},
        )
