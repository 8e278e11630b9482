"""Pictures of a case: three planes through its largest error, in grey, with both outlines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from veloxseg.errors import VeloxSegError
from veloxseg.evaluation.label_set import read_mask
from veloxseg.evaluation.planes import PLANES, Plane, cut, display_window, plane_grid
from veloxseg.evaluation.report.cases import ReportedCase
from veloxseg.evaluation.report.images import ImageFolder
from veloxseg.evaluation.report.largest_error import find_largest_error, label_values
from veloxseg.evaluation.report.origin import last_name
from veloxseg.evaluation.report.panels import Panel, draw_panel
from veloxseg.evaluation.report.views import View, crop_to_view, view_of
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Volume, describe_difference, same_grid


@dataclass(frozen=True, kw_only=True)
class DrawnPlane:
    """One plane of a row.

    Attributes:
        caption: Which plane, and where it lies.
        width: In pixels of the plane; all planes of a case have pixels of one size.
        svg: The picture.
    """

    caption: str
    width: int
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class CasePicture:
    """The pictures of a case.

    Attributes:
        rank: What it is among all: ``Worst``, ``Median``, ...
        case: Whose.
        rows: Name of each channel shown, empty without an image, and its planes.
        width_per_height: Of a row, its planes side by side; 1 without planes.
        place: Where the planes meet, and how large the error is; empty without planes.
        notes: What is missing, and why.
    """

    rank: str
    case: ReportedCase
    rows: Sequence[tuple[str, Sequence[DrawnPlane]]]
    width_per_height: float
    place: str
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class _Outlined:
    view: View
    place: str
    reference: Sequence[Volume]
    prediction: Sequence[Volume]


def draw_case(
    case: ReportedCase, rank: str, *, labels: Mapping[str, str], images: ImageFolder | None
) -> CasePicture:
    """Draw a case; what cannot be read becomes a note.

    The field of view holds the structure with the largest error and 2 cm around it, 6 cm at least,
    as far as the reference's grid reaches.

    Args:
        case: Whose masks.
        rank: Shown beside its name.
        labels: Name of each label or region by its key.
        images: Where to look for images; None shows the outlines alone.
    """
    try:
        outlined = _outline(case, labels)
    except (VeloxSegError, OSError) as error:
        return CasePicture(
            rank=rank,
            case=case,
            rows=(),
            width_per_height=1.0,
            place="",
            notes=[_brief(error, case)],
        )
    channels, notes = _read_channels(case, images, outlined.view)
    shown = channels or {"": (None, (0.0, 1.0))}
    rows = [
        (name, [_draw(case, name, plane, image, window, outlined) for plane in PLANES])
        for name, (image, window) in shown.items()
    ]
    width, height = outlined.view.row_pixels
    return CasePicture(
        rank=rank,
        case=case,
        rows=rows,
        width_per_height=width / height,
        place=outlined.place,
        notes=notes,
    )


def _outline(case: ReportedCase, labels: Mapping[str, str]) -> _Outlined:
    reference = read_mask(case.name, _existing(case.reference, "reference"))
    prediction = read_mask(case.name, _existing(case.prediction, "prediction"))
    if not same_grid(prediction, reference):
        if not case.resampled:
            raise VeloxSegError(
                f"{describe_difference('The prediction', prediction, 'the reference', reference)}."
            )
        prediction = resample(prediction, reference.grid, interpolation="nearest", fill=0)
    groups = [label_values(key) for key in labels]
    if not all(groups):
        wrong = next(key for key, group in zip(labels, groups, strict=True) if not group)
        raise VeloxSegError(
            f"The summary's label {wrong} is no value of a mask. Expected keys such as 1, or "
            "(1, 2) for a region."
        )
    error = find_largest_error(prediction.data, reference.data, labels=groups, grid=reference.grid)
    view = view_of(error, reference.grid)
    x, y, z = error.index_zyx[::-1]
    return _Outlined(
        view=view,
        place=f"{_size(error.error_ml)} Planes meet in voxel {x}, {y}, {z} (x, y, z of the "
        "reference, from 0).",
        reference=_masks(crop_to_view(reference, view) or reference, groups),
        prediction=_masks(crop_to_view(prediction, view) or prediction, groups),
    )


def _size(error_ml: float) -> str:
    if not error_ml:
        return "No error."
    size = f"{error_ml:.2f}" if error_ml >= 0.005 else "less than 0.01"  # never 0.00
    return f"The largest error has {size} ml."


def _existing(path: Path | None, kind: str) -> Path:
    if path is None:
        raise VeloxSegError(f"The summary does not name the {kind}'s file.")
    if not path.is_file():
        raise VeloxSegError(f"The {kind}'s file {last_name(path)} is not there any more.")
    return path


def _masks(mask: Volume, groups: Sequence[Sequence[int]]) -> list[Volume]:
    """One mask a label that occurs; looked up linearly, its outline at one half is smooth."""
    held = [np.isin(mask.data, list(group)) for group in groups]
    return [Volume.on_grid(one.view(np.uint8), mask.grid) for one in held if one.any()]


def _read_channels(
    case: ReportedCase, images: ImageFolder | None, view: View
) -> tuple[dict[str, tuple[Volume | None, tuple[float, float]]], list[str]]:
    """Each channel's part within the view, and its window; notes on what is missing."""
    if images is None:
        return {}, []
    channels: dict[str, tuple[Volume | None, tuple[float, float]]] = {}
    notes: list[str] = []
    files = images.find(case.name, case.ending)
    if not files:
        notes.append(_no_image(images.folder / f"{case.name}_0000{case.ending}"))
    for name, file in files.items():
        if not file.is_file():
            notes.append(_no_image(file))
            continue
        try:
            image = read_volume(file)
        except (VeloxSegError, OSError) as error:
            notes.append(_brief(error, case, file))
            continue
        part = crop_to_view(image, view)
        if part is None:
            notes.append(f"{file.name} lies elsewhere: no voxel of it is near the masks.")
            continue
        channels[name] = (part, display_window(name, image.data))
    return channels, notes


def _no_image(file: Path) -> str:
    return f"No image: {file.name} is not in {file.parent.name}."


def _draw(
    case: ReportedCase,
    channel: str,
    plane: Plane,
    image: Volume | None,
    window: tuple[float, float],
    outlined: _Outlined,
) -> DrawnPlane:
    view = outlined.view
    grid = plane_grid(
        plane,
        view.low_xyz,
        view.high_xyz,
        through_xyz=view.point_xyz,
        pixel_mm=view.pixel_mm,
    )
    size_yx = grid.size_zyx[1:]
    empty: list[NDArray[Any]] = [np.zeros(size_yx, np.float32)]
    panel = Panel(
        plane=plane,
        pixel_mm=view.pixel_mm,
        image=None if image is None else cut(image, grid, fill=window[0]),
        window=window,
        reference=[cut(mask, grid, fill=0) for mask in outlined.reference] or empty,
        prediction=[cut(mask, grid, fill=0) for mask in outlined.prediction] or empty,
        point_yx=view.point_on(plane),
        text_pixels=view.text_pixels,
    )
    caption = f"{plane.capitalize()}, {view.position_of(plane)}"
    shown = f"{channel} of {case.name}" if channel else case.name
    return DrawnPlane(
        caption=caption,
        width=size_yx[1],
        svg=draw_panel(
            panel,
            description=f"{caption}: {shown} with the outlines of reference and prediction",
        ),
    )


def _brief(error: VeloxSegError | OSError, case: ReportedCase, *files: Path) -> str:
    """An error's text without the folders that the case's files lie in."""
    text = str(error)
    for path in (case.reference, case.prediction, *files):
        if path is not None:
            text = text.replace(str(path), path.name)
    return text
