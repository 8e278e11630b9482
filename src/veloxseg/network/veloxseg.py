"""The network as it is used: input patch to logits."""

import torch
from torch import Tensor, nn

from veloxseg.network.blocks import ShuffleHead, initialise
from veloxseg.network.config import NetworkConfig
from veloxseg.network.decoder import Decoder
from veloxseg.network.encoder import Encoder


class VeloxSeg(nn.Module):
    """The VeloxSeg network: a dual-stream encoder and the segmentation decoder.

    The modules that only training needs are in ``DistillationModel``, which wraps this one. Weights
    are built with the channels last in memory, which makes a CPU's grouped convolutions twice as
    fast; ``.to(memory_format=torch.contiguous_format)`` undoes it.

    Source: VeloxSeg (ICLR 2026, arXiv 2509.22307).

    Shape:
        x: (B, sum(in_channels), *patch_size) -> logits (B, num_classes, *patch_size). Other extents
        work when every window of every stage divides its grid.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head = ShuffleHead(
            config.conv_channels[0], config.num_classes, stem_stride=config.stem_stride
        )
        self.apply(initialise)
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(x).fused)[0])  # type: ignore[no-any-return]
