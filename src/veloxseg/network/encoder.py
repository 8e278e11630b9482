"""The dual-stream encoder: attention among modalities beside grouped convolutions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from veloxseg.network.blocks import DownConv, Dropout, JLCBlock, Mixer, without_autocast
from veloxseg.network.config import NetworkConfig
from veloxseg.network.window_attention import AttentionBlock, PairedWindowAttention, PatchMerging


class EncoderFeatures(NamedTuple):
    """What the encoder hands to the decoders, one tensor a stage, from fine to coarse.

    Attributes:
        fused: e_i, (B, C_i, Z_i, Y_i, X_i).
        attention: a_i of all modalities, (B, M·A_i, Z_i, Y_i, X_i).
    """

    fused: tuple[Tensor, ...]
    attention: tuple[Tensor, ...]


class AttentionStream(nn.Module):
    """A stem for each modality, then stages of paired window attention with merging between.

    Shape:
        x: (B, sum(in_channels), Z, Y, X) -> one (B, M·A_i, Z_i, Y_i, X_i) a stage
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.in_channels = config.in_channels
        channels, modalities = config.attention_channels, config.num_modalities
        self.stems = nn.ModuleList(
            nn.Conv3d(c, channels[0], config.stem_stride, stride=config.stem_stride)
            for c in config.in_channels
        )
        self.stem_dropout = Dropout(config.projection_dropout)
        self.stages = nn.ModuleList(
            nn.Sequential(*[_attention_block(config, stage) for _ in range(depth)])
            for stage, depth in enumerate(config.attention_depths)
        )
        self.mergings = nn.ModuleList(
            PatchMerging(channels[i], channels[i + 1], num_modalities=modalities, stride=stride)
            for i, stride in enumerate(config.strides)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with without_autocast(x):  # raw intensities leave float16's range
            slices = x.float().split(self.in_channels, dim=1)
            stems = [stem(s) for stem, s in zip(self.stems, slices, strict=True)]
        a = self.stem_dropout(torch.cat(stems, dim=1))
        features = []
        for i, stage in enumerate(self.stages):
            if i > 0:
                a = self.mergings[i - 1](a)
            a = stage(a)
            features.append(a)
        return tuple(features)


class Encoder(nn.Module):
    """The attention stream, mixed by 1×1×1 convolutions into the convolution stream.

    Stage i: e_i = JLC_i(x_i + IN(conv(a_i))), where x_0 = IN(conv(input)) with kernel 2·stem − 1
    and x_i = IN(conv(e_{i−1})) with kernel 3. The mixer is the only way from attention to the
    decoders of segmentation.

    Source: VeloxSeg (ICLR 2026).

    Shape:
        x: (B, sum(in_channels), Z, Y, X) -> EncoderFeatures
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.attention = AttentionStream(config)
        channels = config.conv_channels
        sz, sy, sx = config.stem_stride
        self.stem = DownConv(
            sum(config.in_channels),
            channels[0],
            kernel=(2 * sz - 1, 2 * sy - 1, 2 * sx - 1),
            stride=config.stem_stride,
        )
        self.downs = nn.ModuleList(
            DownConv(channels[i], channels[i + 1], kernel=(3, 3, 3), stride=stride)
            for i, stride in enumerate(config.strides)
        )
        self.mixers = nn.ModuleList(
            Mixer(config.num_modalities * a, c)
            for a, c in zip(config.attention_channels, channels, strict=True)
        )
        self.stages = nn.ModuleList(jlc_stage(config, i) for i in range(config.num_stages))

    def forward(self, x: Tensor) -> EncoderFeatures:
        attention = self.attention(x)
        with without_autocast(x):
            e = self.stem(x.float())
        fused: list[Tensor] = []
        for i, stage in enumerate(self.stages):
            if i > 0:
                e = self.downs[i - 1](e)
            e = stage(e + self.mixers[i](attention[i]))
            fused.append(e)
        return EncoderFeatures(fused=tuple(fused), attention=attention)


def jlc_stage(config: NetworkConfig, stage: int) -> nn.Sequential:
    """The JLC blocks of one stage, of the encoder or of a decoder."""
    return nn.Sequential(
        *[
            JLCBlock(
                config.conv_channels[stage],
                group_width=config.group_widths[stage],
                kernel_sizes=config.kernel_sizes,
                expansion=config.conv_expansion[stage],
                dropout=config.conv_dropout,
            )
            for _ in range(config.conv_depths[stage])
        ]
    )


def _attention_block(config: NetworkConfig, stage: int) -> AttentionBlock:
    channels = config.attention_channels[stage]
    return AttentionBlock(
        PairedWindowAttention(
            channels,
            num_modalities=config.num_modalities,
            scales=config.window_scales(stage),
            num_heads=config.num_heads[stage],
            head_channels=config.head_channels[stage],
            attention_dropout=config.attention_dropout,
            projection_dropout=config.projection_dropout,
        ),
        channels,
        expansion=config.attention_expansion[stage],
        projection_dropout=config.projection_dropout,
        drop_path=config.drop_path,
    )
