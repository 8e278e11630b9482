"""The VeloxSeg network: tensors only, no I/O.

The names below are imported when they are asked for, so that the configuration, which planning
needs, comes without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veloxseg.network.config import NetworkConfig
    from veloxseg.network.distillation import DistillationModel
    from veloxseg.network.training_model import TrainingModel, TrainingOutput
    from veloxseg.network.veloxseg import VeloxSeg

__all__ = ["DistillationModel", "NetworkConfig", "TrainingModel", "TrainingOutput", "VeloxSeg"]

_MODULES = {
    "DistillationModel": "distillation",
    "NetworkConfig": "config",
    "TrainingModel": "training_model",
    "TrainingOutput": "training_model",
    "VeloxSeg": "veloxseg",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
