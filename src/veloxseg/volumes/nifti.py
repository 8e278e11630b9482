"""NIfTI files: their header, their voxels, and how they are written.

Headers are nibabel's, unchecked and as stored: what ITK would repair or overlook is decided here.
"""

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from veloxseg.atomic import atomic_path
from veloxseg.errors import ImageReadError

COMPRESSION_LEVEL = 1
"""Of gzip: images come out about as small as with 6, in a third of the time."""

_LONGEST_HEADER = Nifti2Header.sizeof_hdr
_MAGIC: dict[bytes, tuple[Any, int]] = {b"n+1\0": (Nifti1Header, 344), b"n+2\0": (Nifti2Header, 4)}
_GZIP = b"\x1f\x8b"
_LARGEST_RATIO = 1032
"""Deflate cannot compress further, so a shorter file cannot hold what its header says."""
_TRAILER_BYTES = 1 << 20
"""What may follow the voxels in a compressed file; more, and the header does not describe it."""
_READ_ERRORS = (HeaderDataError, OSError, EOFError, zlib.error, ValueError, OverflowError)


def is_nifti(path: Path) -> bool:
    """Whether a file calls itself NIfTI."""
    return path.name.endswith((".nii", ".nii.gz"))


def read_nifti_header(path: Path) -> Any:
    """Nibabel's header of a file, as stored; no voxel is read.

    Raises:
        ImageReadError: the file is no NIfTI, or its header says nothing sensible.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST_HEADER)
        if start.startswith(_GZIP):
            with gzip.open(path) as file:
                start = file.read(_LONGEST_HEADER)
        return _parse_header(start)
    except _READ_ERRORS as error:
        raise _not_readable(path, error) from error


def read_nifti(path: Path) -> tuple[Any, npt.NDArray[Any]]:
    """The header of a file and its voxels (..., Z, Y, X), which cannot be written to.

    Voxels are as stored, or float32 if they have a slope or intercept, applied.

    Raises:
        ImageReadError: the file is no NIfTI, cut short, damaged, or larger than the memory.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            with gzip.open(io.BytesIO(content)) as file:
                header = _parse_header(file.read(_LONGEST_HEADER))
            content = _decompress(content, _data_end(header))
        else:
            header = _parse_header(content[:_LONGEST_HEADER])
            _require_length(len(content), _data_end(header))
        return header, _voxels(header, content)
    except MemoryError as error:
        raise ImageReadError(
            f"{path}: the image takes {_data_end(header) / 1e9:.1f} GB, more than there is memory. "
            "Crop or resample it first."
        ) from error
    except _READ_ERRORS as error:
        raise _not_readable(path, error) from error


def nifti_axes(header: Any) -> tuple[tuple[int, ...], int]:
    """Shape, x first, and number of values a voxel: NIfTI keeps vectors on its fifth axis."""
    num_colours = len(header.get_data_dtype().fields or (0,))
    shape = _stored_shape(header)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 5:
        return shape[:4], num_colours * shape[4]
    return shape, num_colours


def write_nifti(path: Path, data: npt.NDArray[Any], geometry: Any) -> None:
    """Write an image whole or not at all, compressed if ``path`` ends in ``.gz``.

    Args:
        path: The file.
        data: (Z, Y, X) voxels of a type that NIfTI knows, in any byte order.
        geometry: A header, whose place in space the new one has to the bit.

    Raises:
        OSError: the disk is full, or NIfTI knows no such voxels.
    """
    try:
        header = _header_like(geometry, data)
    except HeaderDataError as error:
        raise OSError(f"{path}: NIfTI cannot hold the image ({error}).") from error
    stored = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<"))
    parts = [header.binaryblock + bytes(_data_start(header) - header.sizeof_hdr), stored.data]
    with atomic_path(path) as temporary:
        try:
            with temporary.open("wb") as file:
                if path.name.endswith(".gz"):
                    stream = zlib.compressobj(COMPRESSION_LEVEL, wbits=31)
                    for part in parts:
                        file.write(stream.compress(part))
                    file.write(stream.flush())
                else:
                    file.writelines(parts)
                num_bytes = file.tell()
            if temporary.stat().st_size != num_bytes:
                raise OSError(f"{temporary.stat().st_size} bytes of {num_bytes} arrived")
        except OSError as error:
            raise OSError(
                f"{path}: the image could not be written ({error}). "
                "Check the space left on the disk."
            ) from error


def _parse_header(start: bytes) -> Any:
    for magic, (kind, place) in _MAGIC.items():
        if start[place : place + len(magic)] == magic and len(start) >= kind.sizeof_hdr:
            header = kind(start[: kind.sizeof_hdr], check=False)
            break
    else:
        raise ValueError("not a NIfTI header")
    if not 1 <= int(header["dim"][0]) <= 7:
        raise ValueError(f"{int(header['dim'][0])} axes")
    if min(_stored_shape(header)[:3]) < 1:
        raise ValueError(f"size {_stored_shape(header)}")
    if _data_start(header) < header.single_vox_offset:
        raise ValueError(f"voxels from byte {_data_start(header)} on, within the header")
    try:
        itemsize = header.get_data_dtype().itemsize
    except KeyError:
        itemsize = 0
    if itemsize == 0:
        raise ValueError(f"voxels of the type {int(header['datatype'])}")
    return header


def _header_like(geometry: Any, data: npt.NDArray[Any]) -> Any:
    header = type(geometry)(endianness="<")
    header.set_data_dtype(data.dtype)
    longest = int(np.iinfo(header["dim"].dtype).max)
    if max(data.shape) > longest:
        raise HeaderDataError(f"size {data.shape}, at most {longest} along an axis")
    header["dim"][: data.ndim + 1] = (data.ndim, *data.shape[::-1])
    header["pixdim"][:4] = geometry["pixdim"][:4]
    for name in ("qform_code", "sform_code", "xyzt_units"):
        header[name] = geometry[name]
    for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
        header[name] = geometry[name]
    for name in ("srow_x", "srow_y", "srow_z"):
        header[name] = geometry[name]
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = header.single_vox_offset
    return header


def _stored_shape(header: Any) -> tuple[int, ...]:
    """All axes, x first; a 0 beyond the third stands for 1, as ITK has it."""
    sizes = [int(size) for size in header["dim"][1 : 1 + int(header["dim"][0])]]
    return tuple(size if axis < 3 else max(size, 1) for axis, size in enumerate(sizes))


def _data_start(header: Any) -> int:
    return int(header["vox_offset"]) or int(header.single_vox_offset)


def _data_end(header: Any) -> int:
    num_voxels = math.prod(_stored_shape(header))
    return _data_start(header) + num_voxels * int(header.get_data_dtype().itemsize)


def _decompress(content: bytes, expected: int) -> bytes:
    """The whole stream, its checksums verified; no more is unpacked than the image may take."""
    _require_length(len(content) * _LARGEST_RATIO, expected)
    limit = expected + _TRAILER_BYTES
    stream = zlib.decompressobj(wbits=31)
    whole = stream.decompress(content, limit + 1)
    if stream.eof and stream.unused_data.strip(b"\0"):  # several streams, one after the other
        with gzip.open(io.BytesIO(content)) as file:
            whole = file.read(limit + 1)
    elif not stream.eof and len(whole) <= limit:
        raise EOFError("cut short: the compressed data have no end")
    if len(whole) > limit:
        raise ValueError(f"more than the {expected} bytes that the header says")
    _require_length(len(whole), expected)
    return whole


def _require_length(found: int, expected: int) -> None:
    if found < expected:
        raise EOFError(f"cut short, {found} bytes at most of {expected}")


def _voxels(header: Any, content: bytes) -> npt.NDArray[Any]:
    shape = _stored_shape(header)[::-1]
    stored: npt.NDArray[Any] = np.frombuffer(
        content, header.get_data_dtype(), count=math.prod(shape), offset=_data_start(header)
    ).reshape(shape)
    slope, intercept = header.get_slope_inter()
    if slope is None or (slope, intercept) == (1, 0) or stored.dtype.kind not in "iuf":
        return stored
    scaled = np.empty(shape, np.float32)
    for plane, values in zip(scaled.reshape(-1, *shape[-2:]), _planes(stored), strict=True):
        plane[...] = values * np.float64(slope) + np.float64(intercept)
    return scaled


def _planes(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return voxels.reshape(-1, *voxels.shape[-2:])


def _not_readable(path: Path, error: BaseException) -> ImageReadError:
    return ImageReadError(
        f"{path}: no whole NIfTI image ({error}). Expected one, as its name says. "
        "Copy or export it again."
    )
