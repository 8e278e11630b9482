"""Whether the voxels of a channel can be what the channel's name says."""

import re
from collections.abc import Iterator

import numpy as np

from veloxseg.datasets.problems import Kind, Problem, Severity
from veloxseg.volumes.volume import Volume

LOWEST_HU = -4000.0
"""Paddings of scanners reach -3024 HU; less is a marker of some program, such as -32768."""

HIGHEST_HU = 35000.0
"""Metal reaches about 31000 HU on the extended scale."""

AIR_OR_FAT_HU = -200.0
"""A CT whose lowest value is above has neither air nor fat in it, which no body is without."""

SMALLEST_HU_RANGE = 100.0
"""Water and bone are 1000 HU apart; a whole CT that spans less was rescaled."""

STORED_VALUES_HU = 1000.0
"""A CT without negative values that goes beyond has kept the stored values: HU + 1024."""

NEGATIVE_SUV = -0.1
"""Resampling by splines rings below zero, by less than this."""

HIGHEST_SUV = 1000.0
"""A full bladder reaches a few hundred; activity in Bq/ml is tens of thousands."""


def check_intensities(case: str, channel: str, volume: Volume) -> Iterator[Problem]:
    """Say what is implausible about the voxels of a channel.

    Voxels that are NaN or infinite are an error. Warnings: a constant image; a channel named CT
    that does not look like Hounsfield units; one named PET (or PT, SUV, FDG) not like SUV.
    """
    data = volume.data
    not_finite = 0 if data.dtype.kind in "iub" else data.size - int(np.isfinite(data).sum())
    if not_finite:
        yield _problem(
            case,
            channel,
            "not_finite",
            f"{channel} has {not_finite} voxels that are NaN or infinite. "
            "Expected finite values. Replace them in the file, as by the background's value.",
            severity="error",
            num_voxels=not_finite,
        )
        return
    lowest, highest = float(data.min()), float(data.max())
    if lowest == highest:
        yield _problem(
            case,
            channel,
            "constant",
            f"every voxel of {channel} is {lowest:g}. Expected an image. "
            "Look whether its export went wrong.",
            value=lowest,
        )
    elif _word(channel) == "ct":
        yield from _check_ct(case, channel, lowest, highest)
    elif _word(channel) in {"pet", "pt", "suv", "fdg"}:
        yield from _check_pet(case, channel, lowest, highest)


def _check_ct(case: str, channel: str, lowest: float, highest: float) -> Iterator[Problem]:
    kind: Kind
    found = f"{channel} has values from {lowest:g} to {highest:g}"
    if highest - lowest < SMALLEST_HU_RANGE:
        kind = "ct_rescaled"
        text = (
            f"{found}. Expected Hounsfield units, from -1000 (air) to 1000 and more (bone). It "
            "was rescaled: export the CT again as it is, or name the channel otherwise."
        )
    elif lowest >= 0 and highest > STORED_VALUES_HU:
        kind = "ct_without_intercept"
        text = (
            f"{found}. Expected Hounsfield units, air at about -1000. The rescale intercept was "
            "lost on the way, as it seems: convert from DICOM again, or subtract 1024 (and look)."
        )
    elif lowest > AIR_OR_FAT_HU:
        kind = "ct_without_air"
        text = (
            f"{found}. Expected Hounsfield units, air at about -1000 and fat at -100. Look whether "
            "it was clipped or masked; fine if it was cropped to an organ."
        )
    elif lowest < LOWEST_HU or highest > HIGHEST_HU:
        kind = "ct_out_of_range"
        text = (
            f"{found}. Expected {LOWEST_HU:g} to {HIGHEST_HU:g} HU. If it pads the field of view, "
            "set such voxels to -1024."
        )
    else:
        return
    yield _problem(case, channel, kind, text, lowest=round(lowest, 6), highest=round(highest, 6))


def _check_pet(case: str, channel: str, lowest: float, highest: float) -> Iterator[Problem]:
    kind: Kind
    found = f"{channel} has values from {lowest:g} to {highest:g}"
    if lowest < AIR_OR_FAT_HU:
        kind = "pet_looks_like_ct"
        text = (
            f"{found}. Expected SUV, which is never negative; this looks like a CT. Compare the "
            "order of the files with channel_names in dataset.json."
        )
    elif lowest < NEGATIVE_SUV:
        kind = "pet_negative"
        text = (
            f"{found}. Expected SUV, which is never negative. Look whether it was normalised or "
            "resampled with splines."
        )
    elif highest > HIGHEST_SUV:
        kind = "pet_not_suv"
        text = (
            f"{found}. Expected SUV, {HIGHEST_SUV:g} at most. It is activity in Bq/ml, as it "
            "seems, which depends on dose and weight: veloxseg convert dicom computes SUV."
        )
    elif lowest == 0 and highest == 1:
        kind = "pet_rescaled"
        text = (
            f"{found}. Expected SUV. It was rescaled, as it seems, so that cases cannot be "
            "compared: export it again as it is."
        )
    else:
        return
    yield _problem(case, channel, kind, text, lowest=round(lowest, 6), highest=round(highest, 6))


def _word(channel: str) -> str:
    return re.split(r"[^a-z]", channel.strip().lower(), maxsplit=1)[0]


def _problem(
    case: str,
    channel: str,
    kind: Kind,
    text: str,
    *,
    severity: Severity = "warning",
    **numbers: float,
) -> Problem:
    return Problem(
        case=case,
        severity=severity,
        message=f"Case {case}: {text}",
        kind=kind,
        part=channel,
        numbers=numbers,
    )
