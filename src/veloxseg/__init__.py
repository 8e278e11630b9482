"""VeloxSeg: light multimodal 3D medical segmentation with nnU-Net's conventions."""

__version__ = "0.1.0"
