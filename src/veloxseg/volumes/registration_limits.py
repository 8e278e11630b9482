"""How an image was moved, in a clinician's measures, and what motion is believed."""

from dataclasses import dataclass

import numpy as np

from veloxseg.volumes.registration_transform import AffineMap
from veloxseg.volumes.volume import Grid


@dataclass(frozen=True, kw_only=True)
class RegistrationLimits:
    """The largest motion that is believed, from where the search began.

    Attributes:
        translation_mm: Of the centre of the smaller field of view.
        rotation_degrees: About any axis.
        stretch: Longest or shortest image of a unit length, as a ratio above 1.
        overlap: Share of the smaller field of view that must lie in the other image; images whose
            headers give less begin with their centres upon each other.
    """

    translation_mm: float = 50.0
    rotation_degrees: float = 30.0
    stretch: float = 1.2
    overlap: float = 0.25

    def __post_init__(self) -> None:
        """Check that the limits are limits."""
        if not (
            self.translation_mm > 0
            and 0 < self.rotation_degrees <= 180
            and self.stretch >= 1
            and 0 < self.overlap <= 1
        ):
            raise ValueError(f"{self}: expected positive limits, stretch >= 1, overlap <= 1.")


LIMITS = RegistrationLimits()
"""Between two scans of one patient on one day, lying alike."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How one map departs from another over a field of view.

    Attributes:
        translation_mm: Distance of the centre's two images.
        rotation_degrees: Of the nearest rotation (polar decomposition).
        stretches: Singular values: how unit lengths grow, longest first; 1, 1, 1 if rigid.
    """

    translation_mm: float
    rotation_degrees: float
    stretches: tuple[float, float, float]


def motion_between(before: AffineMap, after: AffineMap, *, grid: Grid) -> Motion:
    """What leads from ``before`` to ``after``, seen from the middle of ``grid``."""
    centre_xyz = grid.positions_xyz((np.array(grid.size_zyx) - 1) / 2)
    left, stretches, right = np.linalg.svd(after.array() @ before.inverse().array())
    cosine = (np.trace(left @ right) - 1) / 2
    longest, middle, shortest = (float(value) for value in stretches)
    return Motion(
        translation_mm=float(np.linalg.norm(after(centre_xyz) - before(centre_xyz))),
        rotation_degrees=float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
        stretches=(longest, middle, shortest),
    )


def describe_motion(motion: Motion) -> str:
    """Say a motion in words."""
    longest, _, shortest = motion.stretches
    return (
        f"a translation of {motion.translation_mm:.1f} mm, a rotation of "
        f"{motion.rotation_degrees:.1f} degrees and lengths times {shortest:.3f} to {longest:.3f}"
    )


def why_implausible(motion: Motion, overlap: float, limits: RegistrationLimits) -> str | None:
    """The first limit that a motion exceeds, in words; None if all are kept."""
    stretch = max(motion.stretches[0], 1 / motion.stretches[2])
    for what, found, allowed, unit in (
        ("translation", motion.translation_mm, limits.translation_mm, " mm"),
        ("rotation", motion.rotation_degrees, limits.rotation_degrees, " degrees"),
        ("stretch", stretch, limits.stretch, ""),
    ):
        if found > allowed:
            return f"the {what} is {found:.3g}{unit}, the limit {allowed:g}{unit}"
    if overlap < limits.overlap:
        return (
            f"{overlap:.0%} of the smaller image lie in the other, the limit {limits.overlap:.0%}"
        )
    return None
