"""Where nnU-Net finds our trainer: this folder is what ``nnUNet_extTrainer`` names."""

from veloxseg.training.trainer import VeloxSegTrainer

__all__ = ["VeloxSegTrainer"]
