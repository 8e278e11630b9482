"""One image brought to another of the same patient: rigid, then affine, by mutual information.

SimpleITK's Mattes mutual information is maximised from coarse to fine by Powell's method, which
needs the metric's values alone: where a field of view ends within the other image, the values stay
right and their derivatives do not. One thread and fixed samples: two runs agree to the bit.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from veloxseg.errors import GeometryError
from veloxseg.volumes.registration_limits import (
    LIMITS,
    Motion,
    RegistrationLimits,
    describe_motion,
    motion_between,
    why_implausible,
)
from veloxseg.volumes.registration_metric import (
    Agreement,
    clip_intensities,
    compare_agreement,
    share_inside,
)
from veloxseg.volumes.registration_search import (
    level_spacings_mm,
    match_centres,
    search_affine,
    search_rigid,
    shrink,
)
from veloxseg.volumes.registration_threads import one_thread
from veloxseg.volumes.registration_transform import AffineMap
from veloxseg.volumes.volume import Grid, Volume, describe_grid

MIN_VOXELS = 4
"""Along every axis: fewer slices do not say how an image is turned about the other two axes."""

MIN_IMPROVEMENT_NATS = 0.005
"""What mutual information must gain, over what images without a relation share by chance."""

MIN_INFORMATION_NATS = 0.1
"""What two images of one place share at least, over chance.

T1 and CT of the 24 sarcomas tried share 0.28 and more in the end, CT and smooth noise up to 0.08.
"""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Where the voxels of a moving image belong in the space of a fixed one.

    Attributes:
        transform: From positions in the fixed image's space to the moving image's, LPS mm.
        initial: The same before the search: the identity, or one centre upon the other.
        start: ``headers`` if the images' own positions were the start, ``centres`` if their fields
            of view did not overlap enough for that.
        model: ``rigid`` or ``affine``: what ``transform`` is.
        improved: False if the images were aligned already, and ``transform`` is ``initial``.
        metric_before: Mattes mutual information in nats under ``initial``.
        metric_after: The same under ``transform``, over the same voxels.
        num_voxels: How many these are: all of the smaller field of view, at the last of
            ``levels_mm``, that lie in the other image both before and after.
        overlap_before: Share of the smaller field of view in the other image, before.
        overlap_after: The same, after.
        motion: How ``transform`` departs from ``initial``.
        levels_mm: Spacing that the images had at each step of the search, coarse to fine.
    """

    transform: AffineMap
    initial: AffineMap
    start: Literal["headers", "centres"]
    model: Literal["rigid", "affine"]
    improved: bool
    metric_before: float
    metric_after: float
    num_voxels: int
    overlap_before: float
    overlap_after: float
    motion: Motion
    levels_mm: tuple[float, ...]


def register(
    moving: Volume, fixed: Volume, *, affine: bool = False, limits: RegistrationLimits = LIMITS
) -> Registration:
    r"""Find where a moving image belongs in the space of a fixed one.

    The mutual information of the intensities a and b at corresponding places,

        I(A; B) = sum_{a, b} p(a, b) log(p(a, b) / (p(a) p(b))),

    is maximised over rotation and translation, and then, if asked for, over all affine maps.
    Samples are taken in the image with the smaller field of view, so that few fall out of the
    other one, and the search begins at several places.

    Source: Mattes et al., PET-CT image registration in the chest using free-form deformations,
    IEEE TMI 2003; Powell, The Computer Journal 1964; both as ITK has them.

    Args:
        moving: (Z, Y, X) image to bring over; it may lie on any grid.
        fixed: (Z, Y, X) image that stays where it is.
        affine: Whether to go on to scaling and shear after the rigid search; what they do not
            improve stays rigid.
        limits: The largest motion that is believed.

    Returns:
        The transform, and how well the images agree before and after.

    Raises:
        GeometryError: an image is constant, has voxels that are not finite or fewer than
            ``MIN_VOXELS`` along an axis; the images do not agree better than before, and were not
            aligned already; or the motion exceeds the limits.
    """
    for name, volume in (("moving", moving), ("fixed", fixed)):
        _require_usable(name, volume)
    with one_thread():
        return _register(moving, fixed, affine=affine, limits=limits)


def _register(
    moving: Volume, fixed: Volume, *, affine: bool, limits: RegistrationLimits
) -> Registration:
    images = {"moving": clip_intensities(moving), "fixed": clip_intensities(fixed)}
    turned = _field_ml(moving.grid) > _field_ml(fixed.grid)
    inner, outer = images["fixed" if turned else "moving"], images["moving" if turned else "fixed"]

    start: Literal["headers", "centres"] = "headers"
    initial = AffineMap.identity()
    if share_inside(inner.grid, outer.grid, initial) < limits.overlap:
        start, initial = "centres", match_centres(inner, outer)
    levels = level_spacings_mm(inner.grid, outer.grid)
    found = search_rigid(inner, outer, initial=initial, levels_mm=levels, limits=limits)
    inner, outer = shrink(inner, levels[-1]), shrink(outer, levels[-1])
    agreement = _judge(inner, outer, initial, found, limits)
    model: Literal["rigid", "affine"] = "rigid"
    if affine:
        stretched = search_affine(inner, outer, initial=found, spacing_mm=levels[-1])
        gain = compare_agreement(inner, outer, before=found, after=stretched)
        if gain is not None and gain.improvement > MIN_IMPROVEMENT_NATS + gain.chance:
            found, model = stretched, "affine"
            agreement = _judge(inner, outer, initial, found, limits)

    moved_voxels = _most_voxels(inner.grid, outer.grid, initial, found)
    improved = _require_agreement(agreement, moved_voxels=moved_voxels)
    if not improved:
        found, model, agreement = initial, "rigid", agreement.unmoved()
    return Registration(
        transform=found if turned else found.inverse(),
        initial=initial if turned else initial.inverse(),
        start=start,
        model=model,
        improved=improved,
        metric_before=agreement.before,
        metric_after=agreement.after,
        num_voxels=agreement.num_voxels,
        overlap_before=share_inside(inner.grid, outer.grid, initial),
        overlap_after=share_inside(inner.grid, outer.grid, found),
        motion=motion_between(initial, found, grid=inner.grid),
        levels_mm=levels,
    )


def _require_usable(name: str, volume: Volume) -> None:
    if min(volume.data.shape) < MIN_VOXELS:
        raise GeometryError(
            f"Registration: the {name} image has {describe_grid(volume)}. Expected at least "
            f"{MIN_VOXELS} voxels along every axis. Leave the image where it is, or use the whole "
            "scan."
        )
    count = volume.data.size - int(np.isfinite(volume.data).sum())
    if count:
        raise GeometryError(
            f"Registration: the {name} image has {count} voxels that are NaN or infinite. "
            "Expected finite values. Replace them in the file, as by the background's value."
        )
    if volume.data.min() == volume.data.max():
        raise GeometryError(
            f"Registration: the {name} image is constant ({volume.data.flat[0]:g} everywhere). "
            "Expected an image with contrast. Look whether the file is the right one."
        )


def _field_ml(grid: Grid) -> float:
    return float(np.prod(np.multiply(grid.size_zyx, grid.spacing_zyx)) / 1000)


def _judge(
    inner: Volume, outer: Volume, initial: AffineMap, found: AffineMap, limits: RegistrationLimits
) -> Agreement:
    """How well the images agree, or a refusal if the motion cannot be believed."""
    motion = motion_between(initial, found, grid=inner.grid)
    reason = why_implausible(motion, share_inside(inner.grid, outer.grid, found), limits)
    agreement = compare_agreement(inner, outer, before=initial, after=found)
    if reason or agreement is None:
        reason = reason or "no voxel lies in the other image both before and after"
        raise GeometryError(
            f"Registration refused: {reason}. Found {describe_motion(motion)}. Expected images of "
            "one place that lie nearer to each other. Look whether the files belong together, "
            "align them by hand, or leave the channel out."
        )
    return agreement


def _require_agreement(agreement: Agreement, *, moved_voxels: float) -> bool:
    """Whether the images agree better than before, or a refusal if they do not agree at all.

    Without a better place, they must have been in theirs from the start: the search went nowhere.
    """
    needed = MIN_IMPROVEMENT_NATS + agreement.chance
    improved = agreement.improvement > needed
    related = agreement.after > MIN_INFORMATION_NATS + agreement.chance
    if related and (improved or moved_voxels <= 1):
        return improved
    raise GeometryError(
        f"Registration refused: mutual information is {agreement.before:.4f} nats before and "
        f"{agreement.after:.4f} after, over the same {agreement.num_voxels} voxels. Expected more "
        f"than {MIN_INFORMATION_NATS + agreement.chance:.4f}, and a gain of more than {needed:.4f} "
        "unless the images are aligned already. Look whether the files belong together, align them "
        "by hand, or leave the channel out."
    )


def _most_voxels(inner: Grid, outer: Grid, first: AffineMap, second: AffineMap) -> float:
    """Farthest distance of a corner's two images, in diagonals of the coarser image's voxel."""
    corners_zyx = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(inner.size_zyx) - 1)
    corners_xyz = inner.positions_xyz(corners_zyx)
    apart_mm = np.linalg.norm(first(corners_xyz) - second(corners_xyz), axis=1).max()
    diagonal_mm = max(np.linalg.norm(grid.spacing_zyx) for grid in (inner, outer))
    return float(apart_mm / diagonal_mm)
