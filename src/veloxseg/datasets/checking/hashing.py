"""A hash of voxels, by which two images are found to be one."""

import hashlib

import numpy as np

from veloxseg.volumes.volume import Volume


def hash_voxels(volume: Volume) -> str:
    """Hash of the shape and the values, whatever type they are stored as and wherever they lie.

    Values are compared as float32, as networks see them.

    Returns:
        32 hexadecimal digits of BLAKE2b.
    """
    digest = hashlib.blake2b(repr(volume.data.shape).encode(), digest_size=16)
    for plane in volume.data:  # plane by plane, or float32 copies of the whole would be made
        digest.update(np.ascontiguousarray(plane, dtype="<f4") + np.float32(0))  # -0.0 is 0.0
    return digest.hexdigest()
