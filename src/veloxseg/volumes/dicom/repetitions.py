"""Several images of one place in one series: echoes, time points, weightings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from veloxseg.volumes.dicom.slices import REPETITIONS, DicomSlice

_POSITION_DIGITS = 2
_FEWEST_SLICES = 2


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Images of a series that make one stack.

    Attributes:
        told_by: Which of ``REPETITIONS`` tells it from the others; empty if it is alone.
        value: Its value of that, as text.
        slices: Its images.
    """

    told_by: str
    value: str
    slices: tuple[DicomSlice, ...]


def split_repetitions(slices: Sequence[DicomSlice]) -> list[Repetition]:
    """Split a series that covers its positions several times, by the attribute that differs.

    The first of ``REPETITIONS`` is taken that leaves one image at every position, with equally many
    images for each of its values. Where none does, nothing is split: copies, or a conflict.

    Args:
        slices: Images of one size, spacing and orientation.

    Returns:
        One stack a value, in the order of their first images.
    """
    if _is_single(slices):
        return [Repetition(told_by="", value="", slices=tuple(slices))]
    for index, name in enumerate(REPETITIONS):
        groups: dict[str, list[DicomSlice]] = defaultdict(list)
        for one in slices:
            groups[one.differences[index]].append(one)
        sizes = {len(group) for group in groups.values()}
        alike = len(groups) > 1 and len(sizes) == 1 and min(sizes) >= _FEWEST_SLICES
        if alike and all(_is_single(group) for group in groups.values()):
            return [
                Repetition(told_by=name, value=value, slices=tuple(group))
                for value, group in groups.items()
            ]
    return [Repetition(told_by="", value="", slices=tuple(slices))]


def _is_single(slices: Sequence[DicomSlice]) -> bool:
    positions = {
        tuple(round(number, _POSITION_DIGITS) for number in one.position_xyz) for one in slices
    }
    return len(positions) == len(slices)
