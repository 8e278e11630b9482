"""Images from files and to files, each on its own grid.

NIfTI needs numpy and nibabel alone; SimpleITK reads and writes every other format, where installed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.atomic import atomic_path
from veloxseg.errors import GeometryError, ImageReadError
from veloxseg.installation import INSTALL_IMAGES
from veloxseg.volumes.nifti import (
    is_nifti,
    nifti_axes,
    read_nifti,
    read_nifti_header,
    write_nifti,
)
from veloxseg.volumes.nifti_grid import grid_of_nifti, nifti_geometry
from veloxseg.volumes.volume import Grid, Volume


def read_volume(path: Path) -> Volume:
    """Read one single-channel 3-D image on its own grid.

    Returns:
        A volume: ``data`` (Z, Y, X) with slope and intercept applied (CT: HU); integers as stored,
        float32 otherwise. ``spacing_zyx`` in mm, ``origin_xyz`` in LPS mm at the centre of voxel
        (0, 0, 0). ``data`` may be read-only.

    Raises:
        ImageReadError: the file is missing, cut short, damaged or no image; it has not exactly
            three axes and one value a voxel; its spacing is not positive; its header is sheared by
            more than ``SHEAR_TOLERANCE_VOXELS``; or the format needs SimpleITK, which is not
            installed.
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
        VeloxSegError: SimpleITK is not installed.
    """
    itk = _itk(f"{path}: checking what nnU-Net reads")
    try:
        _read_itk_header(itk, path)
    except RuntimeError as error:
        raise ImageReadError(
            f"{path}: nnU-Net's reader, ITK, refuses the header ({itk.last_line(error)}). Expected "
            "perpendicular axes. Bring the image through veloxseg convert folder, which "
            "straightens it."
        ) from error


def write_volume(path: Path, volume: Volume) -> None:
    """Write an image whole or not at all; the name's ending chooses the format.

    Voxels keep their type, but for booleans (written as uint8), float16 and float64 (float32).

    Raises:
        OSError: the image cannot be written, for one because the disk is full. Neither a part of
            the file nor a temporary one is left; a file that was there before stays.
        VeloxSegError: the format needs SimpleITK, which is not installed.
    """
    plain = Volume.on_grid(_plain(volume.data), volume.grid)
    if is_nifti(path):
        write_nifti(path, plain.data, nifti_geometry(plain.grid))
        return
    itk = _itk(f"{path}: writing {_ending(path)}")
    with atomic_path(path) as temporary:
        try:
            with _quiet(itk):
                itk.sitk.WriteImage(itk.to_itk(plain), str(temporary), True)
        except RuntimeError as error:
            raise OSError(
                f"{path}: the image could not be written ({itk.last_line(error)}). "
                "Check the space left on the disk and the file's ending."
            ) from error


def write_mask(path: Path, mask: npt.NDArray[Any], grid: Grid, *, like: Path | None = None) -> None:
    """Write a mask where its image lies, whole or not at all.

    Args:
        path: The mask's file; its ending chooses the format.
        mask: (Z, Y, X) integers or booleans.
        grid: Where the mask lies.
        like: The image it was made from: if both files are NIfTI, the header's sform, qform, voxel
            sizes and unit are copied to the bit, so that every reader puts both in one place.

    Raises:
        GeometryError: ``mask`` has not the size of ``grid`` or of ``like``.
        ImageReadError: ``like`` has no readable header.
        OSError: the mask cannot be written; nothing is left of it.
        VeloxSegError: the format needs SimpleITK, which is not installed.
    """
    volume = Volume.on_grid(_plain(mask), grid)
    if like is None or not (is_nifti(like) and is_nifti(path)):
        write_volume(path, volume)
        return
    geometry = read_nifti_header(like)
    if nifti_axes(geometry)[0][2::-1] != volume.data.shape:
        raise GeometryError(
            f"{path}: a mask of {volume.data.shape} voxels (z, y, x) does not fit its image {like} "
            f"of {nifti_axes(geometry)[0][::-1]}."
        )
    write_nifti(path, volume.data, geometry)


def _read(path: Path, *, max_axes: int) -> list[Volume]:
    _require_file(path)
    if is_nifti(path):
        header, voxels = read_nifti(path)
        grid = _nifti_grid(path, header, max_axes=max_axes)
        return _split(path, voxels, grid)
    itk = _itk(f"{path}: reading {_ending(path)}")
    try:
        with _quiet(itk):
            image = itk.sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise _not_readable(path, itk.last_line(error)) from error
    _require_single_3d(
        path, image.GetSize(), image.GetNumberOfComponentsPerPixel(), max_axes=max_axes
    )
    return _split(path, itk.sitk.GetArrayFromImage(image), _itk_grid(itk, path, image))


def _split(path: Path, data: npt.NDArray[Any], grid: Grid) -> list[Volume]:
    """Volumes of (Z, Y, X) or (C, Z, Y, X)."""
    _require_numbers(path, data.dtype)
    channels = data.reshape(-1, *grid.size_zyx)
    return [Volume.on_grid(_plain(channel), grid) for channel in channels]


def _read_grid(path: Path, *, max_axes: int) -> Grid:
    if is_nifti(path):
        return _nifti_grid(path, read_nifti_header(path), max_axes=max_axes)
    itk = _itk(f"{path}: reading {_ending(path)}")
    try:
        reader = _read_itk_header(itk, path)
    except RuntimeError as error:
        raise _not_readable(path, itk.last_line(error)) from error
    _require_single_3d(path, reader.GetSize(), reader.GetNumberOfComponents(), max_axes=max_axes)
    return _itk_grid(itk, path, reader)


def _nifti_grid(path: Path, header: Any, *, max_axes: int) -> Grid:
    shape, components = nifti_axes(header)
    _require_single_3d(path, shape, components, max_axes=max_axes)
    _require_numbers(path, header.get_data_dtype())
    return grid_of_nifti(path, header, (shape[0], shape[1], shape[2]))


def _read_itk_header(itk: ModuleType, path: Path) -> Any:
    reader = itk.sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _quiet(itk):
        reader.ReadImageInformation()
    return reader


def _itk_grid(itk: ModuleType, path: Path, image: Any) -> Grid:
    try:
        grid: Grid = itk.grid_of_itk(image)
    except GeometryError as error:
        raise ImageReadError(f"{path}: {error}") from error
    return grid


def _itk(what: str) -> ModuleType:
    """Our module on SimpleITK, imported only where a file needs it."""
    try:
        from veloxseg.volumes import itk
    except ImportError as error:
        raise ImageReadError(
            f"{what} needs SimpleITK, not installed here. Install: {INSTALL_IMAGES}"
        ) from error
    return itk


def _ending(path: Path) -> str:
    return path.suffix or "a file without an ending"


def _plain(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if data.dtype.kind == "b":
        return data.view(np.uint8)
    wanted = np.dtype(np.float32) if data.dtype.kind == "f" else data.dtype.newbyteorder("=")
    return data.astype(wanted, copy=False)


def _not_readable(path: Path, reason: str) -> ImageReadError:
    return ImageReadError(
        f"{path}: no readable image ({reason}). "
        "Expected a whole medical image such as NIfTI, NRRD or MHA. Copy or export it again."
    )


def _require_file(path: Path) -> None:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise ImageReadError(f"{path}: found {found}. Expected an image file. Check the path.")


def _require_numbers(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iuf":
        raise ImageReadError(f"{path}: {dtype} voxels. Expected integers or floats.")


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
def _quiet(itk: ModuleType) -> Iterator[None]:
    # ITK warns on stderr about harmless headers; what matters is raised.
    process = itk.sitk.ProcessObject
    before = process.GetGlobalWarningDisplay()
    process.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        process.SetGlobalWarningDisplay(before)
