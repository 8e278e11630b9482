"""Networks of other libraries behind VeloxSeg's conventions: any patch in, its logits out."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from veloxseg.network.config import Axes
from veloxseg.network.peers.registry import legal_extent
from veloxseg.network.training_model import TrainingModel, TrainingOutput


class PeerNetwork(nn.Module):
    """A network of another library that takes patches of any extent.

    Where the network needs whole multiples of an extent, zeros are appended to the end of each axis
    and the logits of the appended voxels are cut off.

    Args:
        network: (B, in_channels, *extent) -> (B, num_classes, *extent).
        multiple: What each axis of its input must be a multiple of.

    Shape:
        x: (B, in_channels, Z, Y, X) -> logits (B, num_classes, Z, Y, X)
    """

    def __init__(self, network: nn.Module, *, multiple: Axes) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    @property
    def head_strides(self) -> tuple[Axes, ...]:
        """Voxels of the patch in a cell of each head's grid."""
        return ((1, 1, 1),)

    def forward(self, x: Tensor) -> Tensor:
        return _cut(self.network(self._padded(x)), x, (1, 1, 1))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """The logits of all heads, each on its grid."""
        return (self(x),)

    def _padded(self, x: Tensor) -> Tensor:
        extent = legal_extent(x.shape[2:], self.multiple)
        missing = [e - given for e, given in zip(extent, x.shape[2:], strict=True)]
        if not any(missing):
            return x
        return F.pad(x, [width for m in reversed(missing) for width in (0, m)])


class SupervisedUNet(PeerNetwork):
    """One of nnU-Net's U-Nets with its deep supervision.

    Of its decoder's heads those are supervised whose cells tile the patch: the grid of another one
    would reach into the zeros.

    Args:
        network: A U-Net of ``dynamic_network_architectures``.
        multiple: What each axis of its input must be a multiple of.
        head_strides: Voxels in a cell of the supervised heads, from fine to coarse.
    """

    def __init__(self, network: nn.Module, *, multiple: Axes, head_strides: Sequence[Axes]) -> None:
        super().__init__(network, multiple=multiple)
        self._head_strides = tuple(head_strides)
        decoder: Any = network.decoder
        for layer in decoder.seg_layers[: -len(self._head_strides)]:  # coarsest first
            layer.requires_grad_(False)  # never supervised: several GPUs would wait for them

    @property
    def head_strides(self) -> tuple[Axes, ...]:
        return self._head_strides

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        decoder: Any = self.network.decoder
        decoder.deep_supervision = True  # in one place, so that the forward is always logits
        try:
            outputs = self.network(self._padded(x))
        finally:
            decoder.deep_supervision = False
        pairs = zip(self._head_strides, outputs, strict=False)
        return tuple(_cut(logits, x, stride) for stride, logits in pairs)


class PlainModel(TrainingModel):
    """A network that is trained by its logits alone: no teachers, and the heads that it has.

    Args:
        network: The bare network.
        in_channels: Channels of its input.

    Shape:
        x: (B, in_channels, *patch_size) -> TrainingOutput
    """

    network: PeerNetwork

    def __init__(self, network: PeerNetwork, *, in_channels: int) -> None:
        super().__init__()
        self.network = network
        self._in_channels = in_channels

    def forward(self, x: Tensor) -> TrainingOutput:
        return TrainingOutput(
            logits=self.segment(x), reconstruction=None, student_gram=None, teacher_grams=()
        )

    def segment(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.network.heads(x)

    @property
    def in_channels(self) -> tuple[int, ...]:
        return (self._in_channels,)

    @property
    def head_scales(self) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(1 / s for s in stride) for stride in self.network.head_strides)


def _cut(logits: Tensor, x: Tensor, stride: Axes) -> Tensor:
    """The cells of a head's grid that lie in the patch, appended zeros left out."""
    z, y, x_ = (e // s for e, s in zip(x.shape[2:], stride, strict=True))
    return logits[..., :z, :y, :x_]
