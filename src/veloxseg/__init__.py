"""Light multimodal 3D medical segmentation with nnU-Net's conventions."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veloxseg.runtime.model import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":  # on demand: the command line starts without the runtime
        from veloxseg.runtime.model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
