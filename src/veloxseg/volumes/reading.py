"""Images from files and to files, each on its own grid."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.atomic import atomic_path
from veloxseg.errors import GeometryError, ImageReadError
from veloxseg.volumes.itk import grid_of_itk, last_line, sitk, to_itk
from veloxseg.volumes.nifti import (
    is_nifti,
    load_nifti_header,
    load_whole_nifti,
    nearest_grid,
    nifti_axes,
    nifti_voxels,
)
from veloxseg.volumes.volume import Grid, Volume


def read_volume(path: Path) -> Volume:
    """Read one single-channel 3-D image on its own grid.

    Returns:
        A volume: ``data`` (Z, Y, X) with slope and intercept applied (CT: HU); integers as stored,
        float32 otherwise. ``spacing_zyx`` in mm, ``origin_xyz`` in LPS mm at the centre of voxel
        (0, 0, 0).

    Raises:
        ImageReadError: the file is missing, cut short, damaged or no image; it has not exactly
            three axes and one value a voxel; or its header is sheared by more than
            ``SHEAR_TOLERANCE_VOXELS``.
    """
    volumes = _read(path, max_axes=3)
    return volumes[0]


def read_channels(path: Path) -> list[Volume]:
    """Read an image whose fourth axis, if it has one, holds the channels.

    Returns:
        One volume a channel, as :func:`read_volume` gives them, all on one grid.

    Raises:
        ImageReadError: as :func:`read_volume`, but four axes are welcome.
    """
    return _read(path, max_axes=4)


def read_grid(path: Path) -> Grid:
    """Read only where an image lies: its header and no voxel. A file cut short goes unnoticed.

    Raises:
        ImageReadError: the file is missing or no image, or has not exactly three axes and one value
            a voxel.
    """
    _require_file(path)
    return _read_grid(path, max_axes=3)


def require_itk_header(path: Path) -> None:
    """Make sure that ITK, by which nnU-Net reads, opens a file too: it straightens no header.

    Raises:
        ImageReadError: it does not; :func:`read_volume` may read the file all the same.
    """
    try:
        _read_itk_header(path)
    except RuntimeError as error:
        raise ImageReadError(
            f"{path}: nnU-Net's reader, ITK, refuses the header ({last_line(error)}). Expected "
            "perpendicular axes. Bring the image through veloxseg convert folder, which "
            "straightens it."
        ) from error


def write_volume(path: Path, volume: Volume) -> None:
    """Write an image whole or not at all; the name's ending chooses the format.

    Voxels keep their type, but for booleans (written as uint8), float16 and float64 (float32).

    Raises:
        OSError: the image cannot be written, for one because the disk is full. Neither a part of
            the file nor a temporary one is left; a file that was there before stays.
    """
    plain = _plain(volume.data)
    image = to_itk(Volume.on_grid(plain, volume.grid))
    with atomic_path(path) as temporary:
        try:
            with _quiet():
                sitk.WriteImage(image, str(temporary), True)
            # ITK reports no error when the disk fills up under a NIfTI file.
            if is_nifti(temporary):
                load_whole_nifti(temporary)
        except (RuntimeError, ImageReadError) as error:
            raise OSError(
                f"{path}: the image could not be written ({last_line(error)}). "
                "Check the space left on the disk and the file's ending."
            ) from error


def _read(path: Path, *, max_axes: int) -> list[Volume]:
    _require_file(path)
    if is_nifti(path):
        return _read_nifti(path, max_axes=max_axes)
    try:
        with _quiet():
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise _not_readable(path, error) from error
    _require_single_3d(
        path, image.GetSize(), image.GetNumberOfComponentsPerPixel(), max_axes=max_axes
    )
    return _split(path, sitk.GetArrayFromImage(image), _itk_grid(path, image))


def _read_nifti(path: Path, *, max_axes: int) -> list[Volume]:
    image = load_whole_nifti(path)
    _require_single_3d(path, *nifti_axes(image), max_axes=max_axes)
    return _split(path, nifti_voxels(image), _read_grid(path, max_axes=max_axes))


def _split(path: Path, data: npt.NDArray[Any], grid: Grid) -> list[Volume]:
    """Volumes of (Z, Y, X) or (C, Z, Y, X)."""
    if data.dtype.kind not in "iuf":
        raise ImageReadError(f"{path}: {data.dtype} voxels. Expected integers or floats.")
    return [Volume.on_grid(_plain(channel), grid) for channel in data.reshape(-1, *data.shape[-3:])]


def _read_grid(path: Path, *, max_axes: int) -> Grid:
    try:
        reader = _read_itk_header(path)
    except RuntimeError as error:
        if not is_nifti(path):
            raise _not_readable(path, error) from error
        image = load_nifti_header(path)
        _require_single_3d(path, *nifti_axes(image), max_axes=max_axes)
        return nearest_grid(path, image.affine, image.shape[:3])
    _require_single_3d(path, reader.GetSize(), reader.GetNumberOfComponents(), max_axes=max_axes)
    return _itk_grid(path, reader)


def _read_itk_header(path: Path) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _quiet():
        reader.ReadImageInformation()
    return reader


def _itk_grid(path: Path, image: Any) -> Grid:
    try:
        return grid_of_itk(image)
    except GeometryError as error:
        raise ImageReadError(f"{path}: {error}") from error


def _plain(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    wanted = np.dtype(np.float32) if data.dtype.kind == "f" else data.dtype.newbyteorder("=")
    return data.astype(wanted, copy=False)


def _not_readable(path: Path, error: BaseException) -> ImageReadError:
    return ImageReadError(
        f"{path}: no readable image ({last_line(error)}). "
        "Expected a whole medical image such as NIfTI, NRRD or MHA. Copy or export it again."
    )


def _require_file(path: Path) -> None:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise ImageReadError(f"{path}: found {found}. Expected an image file. Check the path.")


def _require_single_3d(
    path: Path, size: tuple[int, ...], components: int, *, max_axes: int
) -> None:
    size = tuple(size)
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if not 3 <= len(size) <= max_axes:
        raise ImageReadError(
            f"{path}: has {len(size)} axes, {' x '.join(map(str, size))} (x first). "
            "Expected 3. Save each channel or time point, or the whole stack, as one 3-D image."
        )
    if components != 1:
        raise ImageReadError(
            f"{path}: has {components} values a voxel. Expected one. Save each as an image."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    # ITK warns on stderr about harmless headers; what matters is raised.
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
