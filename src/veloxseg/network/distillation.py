"""What training adds to the network: deep supervision and the reconstruction teachers."""

import math

import torch
from torch import Tensor, nn

from veloxseg.network.blocks import Mixer, ShuffleHead, initialise, without_autocast
from veloxseg.network.config import NetworkConfig
from veloxseg.network.decoder import Decoder
from veloxseg.network.encoder import EncoderFeatures
from veloxseg.network.training_model import TrainingModel, TrainingOutput
from veloxseg.network.veloxseg import VeloxSeg


class Teacher(nn.Module):
    """The reconstruction decoder of one modality.

    Its inputs are r_i = IN(conv1×1×1([a_i, e_i])), a_i of that modality alone.

    Source: VeloxSeg (ICLR 2026), the teachers of its Gram-matrix knowledge transfer (SDKT).

    Shape:
        features -> (finest features (B, C_0, Z_0, Y_0, X_0), reconstruction (B, in, *patch_size))
    """

    def __init__(self, config: NetworkConfig, modality: int) -> None:
        super().__init__()
        self.modality, self.num_modalities = modality, config.num_modalities
        self.fusions = nn.ModuleList(
            Mixer(a + c, c)
            for a, c in zip(config.attention_channels, config.conv_channels, strict=True)
        )
        self.decoder = Decoder(config)
        self.head = ShuffleHead(
            config.conv_channels[0],
            config.in_channels[modality],
            stem_stride=config.stem_stride,
        )

    def forward(self, features: EncoderFeatures) -> tuple[Tensor, Tensor]:
        inputs = [
            fusion(torch.cat([a.chunk(self.num_modalities, dim=1)[self.modality], e], dim=1))
            for fusion, a, e in zip(self.fusions, features.attention, features.fused, strict=True)
        ]
        finest = self.decoder(inputs)[0]
        return finest, self.head(finest)


class DistillationModel(TrainingModel):
    """The network with its training-only heads and teachers.

    ``network`` is the bare network, whose weights are all that inference needs. The forward of this
    model returns a ``TrainingOutput`` in training and in evaluation alike.

    Args:
        network: The bare network.
        teachers: Whether to have the reconstruction decoders.

    Source: VeloxSeg (ICLR 2026).

    Shape:
        x: (B, sum(in_channels), *patch_size) -> TrainingOutput
    """

    network: VeloxSeg

    def __init__(self, network: VeloxSeg, *, teachers: bool = True) -> None:
        super().__init__()
        config = network.config
        self.network = network
        self.heads = nn.ModuleList(
            nn.Conv3d(channels, config.num_classes, 1) for channels in config.conv_channels[1:]
        )
        modalities = range(config.num_modalities if teachers else 0)
        self.teachers = nn.ModuleList(Teacher(config, m) for m in modalities)
        self.heads.apply(initialise)
        self.teachers.apply(initialise)
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, x: Tensor) -> TrainingOutput:
        features = self.network.encoder(x)
        decoded = self.network.decoder(features.fused)
        taught = [teacher(features) for teacher in self.teachers]
        reconstructions = [reconstruction for _, reconstruction in taught]
        return TrainingOutput(
            logits=self._logits(decoded),
            reconstruction=torch.cat(reconstructions, dim=1) if reconstructions else None,
            student_gram=gram(decoded[0]),
            teacher_grams=tuple(gram(finest) for finest, _ in taught),
        )

    def segment(self, x: Tensor) -> tuple[Tensor, ...]:
        """The logits of all heads alone, without the teachers."""
        return self._logits(self.network.decoder(self.network.encoder(x).fused))

    @property
    def in_channels(self) -> tuple[int, ...]:
        return self.network.config.in_channels

    @property
    def head_scales(self) -> tuple[tuple[float, ...], ...]:
        config = self.network.config
        coarse = [
            tuple(g / p for g, p in zip(grid, config.patch_size, strict=True))
            for grid in config.grids[1:]
        ]
        return ((1.0, 1.0, 1.0), *coarse)

    def _logits(self, decoded: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        coarse = [head(u) for head, u in zip(self.heads, decoded[1:], strict=True)]
        return (self.network.head(decoded[0]), *coarse)


def gram(features: Tensor) -> Tensor:
    """Gram matrix f fᵀ / (C·N) of each sample, in float32 under any precision.

    Each factor is scaled by 1/√(C·N) before the product, so that no sum leaves its range.

    Args:
        features: (B, C, Z, Y, X)

    Returns:
        (B, C, C) float32
    """
    with without_autocast(features):
        f = features.float().movedim(1, -1).flatten(1, 3)  # (B, N, C)
        f = f / math.sqrt(f.shape[1] * f.shape[2])
        return f.transpose(1, 2) @ f
