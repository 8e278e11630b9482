"""The VeloxSeg network: tensors only, no I/O."""

from veloxseg.network.config import NetworkConfig
from veloxseg.network.distillation import DistillationModel, TrainingOutput
from veloxseg.network.veloxseg import VeloxSeg

__all__ = ["DistillationModel", "NetworkConfig", "TrainingOutput", "VeloxSeg"]
