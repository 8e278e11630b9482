"""The errors a user can meet and mend.

Every message says where, what was found, what was expected and what to do next. The command line
prints it without a traceback and exits with 2.
"""


class VeloxSegError(Exception):
    """Base of every error that VeloxSeg raises on purpose."""


class DatasetError(VeloxSegError):
    """A dataset folder, its dataset.json or its cases contradict each other."""


class ImageReadError(VeloxSegError):
    """A file cannot be read as one single-channel 3-D image."""


class GeometryError(VeloxSegError):
    """Images that must share one grid do not, or a grid is not a legal one."""


class PlanError(VeloxSegError, ValueError):
    """A plan or a network configuration that cannot be built or does not fit the run."""


class BundleError(VeloxSegError):
    """A trained model's folder is missing something, or is not what it claims to be."""
