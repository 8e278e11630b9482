"""The building blocks of the convolution stream and of the decoders."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from veloxseg.network.config import Axes

_EPSILON = 1e-5


class InstanceNorm(nn.Module):
    """Instance norm without affine parameters, eps 1e-5, statistics of the sample at hand always.

    Shape:
        x: (B, C, Z, Y, X) -> the same
    """

    def forward(self, x: Tensor) -> Tensor:
        lean = (
            torch.is_grad_enabled()
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.is_contiguous(memory_format=torch.channels_last_3d)
        )
        if lean:
            return _ChannelsLastInstanceNorm.apply(x)  # type: ignore[no-any-return]
        return F.instance_norm(x, eps=_EPSILON)


class _ChannelsLastInstanceNorm(torch.autograd.Function):
    """Instance norm that keeps the channels last in memory, which PyTorch's own does not on a CPU.

    Sums over positions are matrix products with ones, the fastest reduction in this layout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = x.movedim(1, -1).flatten(1, 3)  # (B, N, C), a view
        ones = rows.new_full((len(rows), 1, rows.shape[1]), 1 / rows.shape[1])
        with without_autocast(x):
            centred = rows - ones @ rows
            variance = torch.linalg.vecdot(centred, centred, dim=1)[:, None] / rows.shape[1]
            scale = torch.rsqrt(variance + _EPSILON)
            normal = centred.mul_(scale)
        ctx.save_for_backward(normal, scale, ones)
        return normal.view(x.movedim(1, -1).shape).movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        normal, scale, ones = ctx.saved_tensors
        rows = gradient.movedim(1, -1).reshape(normal.shape)
        with without_autocast(gradient):
            mean, projection = ones @ rows, ones @ (rows * normal)
            result = torch.addcmul(rows - mean, normal, projection, value=-1).mul_(scale)
        return result.view(gradient.movedim(1, -1).shape).movedim(-1, 1)


class Dropout(nn.Module):
    """Dropout whose mask is drawn four values to a random number on a CPU, ten times faster there.

    On a CPU the rate is rounded to a multiple of 2⁻¹⁶; elsewhere this is PyTorch's dropout.

    Shape:
        x: any -> the same

    Raises:
        ValueError: the rate is not in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"The dropout rate is {rate}: expected 0 <= rate < 1.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        threshold = min(round(self.rate * 2**16), 2**16 - 1) - 2**15
        kept = bits.view(torch.int16)[: x.numel()] >= threshold
        scale = kept.to(x.dtype).mul_(1 / (1 - self.rate))
        if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last_3d):
            return x * scale.as_strided(x.shape, x.stride())
        return x * scale.view(x.shape)


class JLCBlock(nn.Module):
    r"""Parallel grouped convolutions followed by a pointwise MLP.

    With :math:`G_k` a grouped :math:`k^3` convolution and IN instance norm:

        y = x + sum_k GELU(IN(G_k(x))),    z = y + Dropout(W2 GELU(W1 IN(y)))

    With a single kernel the published network has y = x + G_k(x), and so has this block.

    Source: VeloxSeg (ICLR 2026), the Johnson-Lindenstrauss guided convolution.

    Shape:
        x: (B, C, Z, Y, X) -> the same

    Raises:
        ValueError: C is not divisible by ``group_width``.
    """

    def __init__(
        self,
        channels: int,
        *,
        group_width: int,
        kernel_sizes: tuple[int, ...],
        expansion: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if channels % group_width:
            raise ValueError(f"{channels} channels are not divisible by group width {group_width}.")
        self.branches = nn.ModuleList(
            nn.Conv3d(channels, channels, k, padding=k // 2, groups=channels // group_width)
            for k in kernel_sizes
        )
        self.norm = InstanceNorm()
        self.mlp = nn.Sequential(
            InstanceNorm(),
            nn.Conv3d(channels, channels * expansion, 1),
            nn.GELU(),
            nn.Conv3d(channels * expansion, channels, 1),
            Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if len(self.branches) == 1:
            y = y + self.branches[0](x)
        else:
            for branch in self.branches:
                y = y + F.gelu(self.norm(branch(x)))
        return y + self.mlp(y)  # type: ignore[no-any-return]


class DownConv(nn.Sequential):
    """IN(convolution), padded by half of ``kernel``: the grid shrinks by ``stride``.

    Shape:
        x: (B, C, Z, Y, X) -> (B, C', Z / stride, Y / stride, X / stride)
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: Axes, stride: Axes) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel, stride=stride, padding=padding),
            InstanceNorm(),
        )


class Mixer(nn.Sequential):
    """IN(1×1×1 convolution), in float32: the attention stream adds up without a norm.

    Shape:
        x: (B, C, Z, Y, X) -> (B, C', Z, Y, X)
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv3d(in_channels, out_channels, 1), InstanceNorm())

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            return super().forward(x.float())  # type: ignore[no-any-return, no-untyped-call]


class UpConv(nn.Sequential):
    """IN(transposed convolution with kernel = stride).

    Shape:
        x: (B, C, Z, Y, X) -> (B, C', Z · stride, Y · stride, X · stride)
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: Axes) -> None:
        super().__init__(
            nn.ConvTranspose3d(in_channels, out_channels, stride, stride=stride), InstanceNorm()
        )


class ShuffleHead(nn.Module):
    """A 3³ convolution to C'·Π stem channels, then a pixel shuffle to the input's grid.

    The convolution's channels are ordered (output channel, offset in the cell), the offset's last
    axis fastest.

    Shape:
        x: (B, C, Z, Y, X) -> (B, C', Z · stem, Y · stem, X · stem)
    """

    def __init__(self, in_channels: int, out_channels: int, *, stem_stride: Axes) -> None:
        super().__init__()
        self.stem_stride = stem_stride
        self.conv = nn.Conv3d(in_channels, out_channels * math.prod(stem_stride), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(self.conv(x), self.stem_stride)


def pixel_shuffle(x: Tensor, stride: Axes) -> Tensor:
    """Spread channels over space.

    Args:
        x: (B, C·sz·sy·sx, Z, Y, X)
        stride: (sz, sy, sx)

    Returns:
        (B, C, Z·sz, Y·sy, X·sx)
    """
    sz, sy, sx = stride
    batch, channels, z, y, width = x.shape
    x = x.reshape(batch, channels // (sz * sy * sx), sz, sy, sx, z, y, width)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)  # (B, C, Z, sz, Y, sy, X, sx)
    return x.reshape(batch, -1, z * sz, y * sy, width * sx)


def initialise(module: nn.Module) -> None:
    """Kaiming normal (a = 0.01, fan in) for every convolution, zero biases, identity norms."""
    if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which mixed precision is off for the tensor's device."""
    return torch.autocast(x.device.type, enabled=False)
