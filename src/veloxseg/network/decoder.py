"""The decoder that the segmentation (student) and every reconstruction (teacher) share."""

from collections.abc import Sequence

from torch import Tensor, nn

from veloxseg.network.blocks import UpConv
from veloxseg.network.config import NetworkConfig
from veloxseg.network.encoder import jlc_stage


class Decoder(nn.Module):
    """From coarse to fine: u_i = JLC_i(f_i + Up(u_{i+1})), starting from the coarsest feature.

    Source: VeloxSeg (ICLR 2026).

    Shape:
        features: one (B, C_i, Z_i, Y_i, X_i) a stage -> the same shapes, all decoded; the last is
        the coarsest feature as it came
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = config.conv_channels
        self.ups = nn.ModuleList(
            UpConv(channels[i + 1], channels[i], stride=stride)
            for i, stride in enumerate(config.strides)
        )
        self.stages = nn.ModuleList(jlc_stage(config, i) for i in range(config.num_stages - 1))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        decoded = [features[-1]]
        for i in reversed(range(len(self.stages))):
            decoded.append(self.stages[i](features[i] + self.ups[i](decoded[-1])))
        return tuple(reversed(decoded))
