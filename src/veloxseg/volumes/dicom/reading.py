"""One DICOM series to one volume."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.volumes.dicom.doubles import require_identical
from veloxseg.volumes.dicom.files import interpreting, read_dataset, read_header
from veloxseg.volumes.dicom.pet_header import frame_timing, header_of_series
from veloxseg.volumes.dicom.pixels import rescaled_planes
from veloxseg.volumes.dicom.regularising import regularise
from veloxseg.volumes.dicom.slices import SLICE_TAGS, DicomSlice, slices_of
from veloxseg.volumes.dicom.stacking import Stack, stack_slices
from veloxseg.volumes.suv import PetHeader, suv_factor
from veloxseg.volumes.volume import Volume

ImageFile = tuple[Path, int | None]
"""A file, and the index from 0 of a frame in it; None if it holds a single image."""


@dataclass(frozen=True, kw_only=True)
class SeriesImage:
    """A series as a volume, and what was done to make it one.

    Attributes:
        volume: float32 (Z, Y, X); CT in HU, PET in its Units or as SUV in g/ml.
        notes: What was found and done, in words; empty if nothing.
    """

    volume: Volume
    notes: tuple[str, ...]


def read_series(
    files: Sequence[ImageFile],
    *,
    where: str,
    suv: bool = False,
    interpolate_gaps: bool = False,
) -> SeriesImage:
    """Read the slices of one series as a volume on a regular grid.

    Slices are ordered by their positions; each has its own slope and intercept. Equidistant slices
    keep their values; others are interpolated linearly from their true positions, as
    :func:`veloxseg.volumes.dicom.stacking.stack_slices` says. One file's pixels, and two layers,
    are in memory beside the result.

    Args:
        files: Its images, in any order.
        where: What to call the series in messages.
        suv: Whether to turn PET activity into SUV by body weight.
        interpolate_gaps: Whether missing slices may be filled by interpolation.

    Raises:
        ImageReadError: a file cannot be read or decoded.
        GeometryError: the slices make no stack; slices are missing or in conflict.
        DatasetError: the header does not allow SUV.
    """
    stack, notes, pet = _prepare(files, where=where, suv=suv, interpolate_gaps=interpolate_gaps)
    layers = _layers(stack, pet, where)
    if stack.is_regular:
        data = np.empty(stack.grid.size_zyx, dtype=np.float32)
        for target, layer in zip(data, layers, strict=True):
            target[:] = layer
    else:
        data = regularise(layers, stack.indices_zyx, stack.grid)
    return SeriesImage(volume=Volume.on_grid(data, stack.grid), notes=notes)


def check_slices(
    slices: Sequence[DicomSlice],
    *,
    where: str,
    suv: bool = False,
    interpolate_gaps: bool = False,
) -> Stack:
    """Find what :func:`read_series` would refuse, from headers and the pixels of doubles alone.

    Args:
        slices: Slices of the series, as :func:`veloxseg.volumes.dicom.index.index_dicom` found
            them; without doubles and SUV no file is opened again.
        where: What to call the series in messages.
        suv: Whether PET activity will be turned into SUV.
        interpolate_gaps: Whether missing slices may be filled by interpolation.

    Returns:
        The stack that would be read.

    Raises:
        ImageReadError, GeometryError, DatasetError: as :func:`read_series`.
    """
    if suv:
        files = [(one.path, one.frame) for one in slices]
        return _prepare(files, where=where, suv=suv, interpolate_gaps=interpolate_gaps)[0]
    stack = stack_slices(slices, where=where, interpolate_gaps=interpolate_gaps)
    require_identical(stack, where=where)
    return stack


def _prepare(
    files: Sequence[ImageFile], *, where: str, suv: bool, interpolate_gaps: bool
) -> tuple[Stack, tuple[str, ...], PetHeader | None]:
    slices, headers = _read_slices(files, keep_headers=suv)
    stack = check_slices(slices, where=where, interpolate_gaps=interpolate_gaps)
    if not suv:
        return stack, stack.notes, None
    pet = header_of_series(headers, where=where)
    path, header = next(iter(headers.items()))
    with interpreting(path):
        factor = suv_factor(pet, timing=frame_timing(header), where=where)
    return stack, (*stack.notes, f"SUV: factor {factor.factor:.8g} ({factor.how})"), pet


def _read_slices(
    files: Sequence[ImageFile], *, keep_headers: bool
) -> tuple[list[DicomSlice], dict[Path, Any]]:
    """The wanted slices and, if asked for, the whole headers of their files."""
    frames: dict[Path, set[int | None]] = {}
    for path, frame in files:
        frames.setdefault(path, set()).add(frame)
    slices: list[DicomSlice] = []
    headers = {}
    for path, wanted in frames.items():
        with interpreting(path):
            header = read_header(path, tags=None if keep_headers else SLICE_TAGS)
            slices += [one for one in slices_of(header, path) if one.frame in wanted]
            if keep_headers:
                headers[path] = header
    return slices, headers


def _layers(stack: Stack, pet: PetHeader | None, where: str) -> Iterator[npt.NDArray[np.float32]]:
    opened: Path | None = None
    planes: list[npt.NDArray[np.float32]] = []
    for first, *_ in stack.layers:
        if opened != first.path:
            opened = first.path
            planes = _read_planes(first.path, pet, where)
        yield planes[first.frame or 0]


def _read_planes(path: Path, pet: PetHeader | None, where: str) -> list[npt.NDArray[np.float32]]:
    """All planes of a file: rescaled, and as SUV if it is wanted."""
    with interpreting(path):
        dataset = read_dataset(path)
        planes = rescaled_planes(dataset, path)
        if pet is None:
            return planes
        factor = suv_factor(pet, timing=frame_timing(dataset), where=where).factor
    return [(plane.astype(np.float64) * factor).astype(np.float32) for plane in planes]
