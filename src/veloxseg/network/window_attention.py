"""Paired window attention (PWA): one attention call over windows of all scales and modalities.

All modalities travel as one tensor (B, M·A, Z, Y, X), modality by modality on the channel axis;
their own weights are the groups of grouped 1×1×1 convolutions. The channel axis is best kept last
in memory (``torch.channels_last_3d``): then every window is a contiguous run of channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from veloxseg.network.blocks import Dropout
from veloxseg.network.config import Axes, divide

Scales = tuple[tuple[Axes, Axes], ...]


class ModalityNorm(nn.Module):
    """Layer norm over the channels of each modality at each position, affine, eps 1e-6.

    Shape:
        x: (B, M·A, Z, Y, X) -> the same
    """

    def __init__(self, num_modalities: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_modalities, channels))
        self.bias = nn.Parameter(torch.zeros(num_modalities, channels))

    def forward(self, x: Tensor) -> Tensor:
        modalities, channels = self.weight.shape
        # (B, M·A, Z, Y, X) -> (B, Z, Y, X, M, A)
        y = x.movedim(1, -1).unflatten(-1, (modalities, channels))
        y = F.layer_norm(y, (channels,), eps=1e-6) * self.weight + self.bias
        return y.flatten(-2).movedim(-1, 1)


class StochasticDepth(nn.Module):
    """Drop a residual branch for whole samples in training, scaling the kept ones up.

    Shape:
        x: (B, ...) -> the same
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0 or not self.training:
            return x
        kept = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class PairedWindowAttention(nn.Module):
    r"""Attention among the tokens of all modalities in a window, at several window scales at once.

    Scale j pools s_j³ positions into a token and has n = b_j / s_j tokens per axis in a window, the
    same n for all scales: the windows of all scales are one batch. With L = Π n tokens a window
    and M modalities, each of H heads computes

        softmax(q kᵀ / √d + bias) v        over M·L tokens, modality 0 first, last axis fastest

    and every window's result is spread over its positions trilinearly (align_corners), inside it.

    Source: VeloxSeg (ICLR 2026), paired window attention; the bias is Swin's relative position
    table, shared by the modalities.

    Shape:
        x: (B, M·A, Z, Y, X) -> the same; every b_j divides (Z, Y, X)
    """

    def __init__(
        self,
        channels: int,
        *,
        num_modalities: int,
        scales: Scales,
        num_heads: int,
        head_channels: int,
        attention_dropout: float,
        projection_dropout: float,
    ) -> None:
        super().__init__()
        self.num_modalities, self.num_heads = num_modalities, num_heads
        self.key_channels = head_channels
        heads = len(scales) * num_heads
        self.value_channels = head_channels * math.ceil(channels / (heads * head_channels))
        self.scales = scales
        self.tokens = divide(*scales[0])
        self.attention_dropout = Dropout(attention_dropout)

        # one projection; a modality's channels are ordered (scale, head, [query, key, value])
        self.norm = ModalityNorm(num_modalities, channels)
        width = 2 * self.key_channels + self.value_channels
        self.qkv = nn.Conv3d(
            num_modalities * channels, num_modalities * heads * width, 1, groups=num_modalities
        )
        self.position_table = nn.Parameter(
            torch.empty(math.prod(2 * n - 1 for n in self.tokens), num_heads)
        )
        nn.init.trunc_normal_(self.position_table, std=0.02)
        self.register_buffer("position_index", relative_positions(self.tokens), persistent=False)
        for j, (big, _) in enumerate(scales):
            self.register_buffer(f"upsampling_{j}", upsampling(self.tokens, big), persistent=False)
        self.output = nn.Conv3d(
            num_modalities * heads * self.value_channels,
            num_modalities * channels,
            1,
            groups=num_modalities,
        )
        self.dropout = Dropout(projection_dropout)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[2:]
        qkv = self.qkv(self.norm(x)).unflatten(1, (self.num_modalities, len(self.scales), -1))
        gathered = [self._gather(qkv[:, :, j], j) for j in range(len(self.scales))]
        windows = [tokens.shape[1] for tokens in gathered]
        attended = self._attend(torch.cat(gathered, dim=1))
        scattered = [
            self._scatter(tokens, j, grid)
            for j, tokens in enumerate(attended.split(windows, dim=1))
        ]
        # (B, Z, Y, X, M, S·H·c) -> (B, M·S·H·c, Z, Y, X)
        merged = torch.cat(scattered, dim=-1).flatten(-2).movedim(-1, 1)
        return self.dropout(self.output(merged))  # type: ignore[no-any-return]

    def _gather(self, x: Tensor, scale: int) -> Tensor:
        """(B, M, H·c, Z, Y, X) -> tokens (B, windows, H, M·L, c), each the maximum of its cell."""
        _, small = self.scales[scale]
        x = x.flatten(1, 2)
        if math.prod(small) > 1:
            x = F.max_pool3d(x, kernel_size=small, stride=small)
        nz, ny, nx = self.tokens
        batch, _, z, y, width = x.shape
        # (B, M, H, c, wz, nz, wy, ny, wx, nx) -> (B, wz, wy, wx, H, M, nz, ny, nx, c)
        x = x.reshape(
            batch,
            self.num_modalities,
            self.num_heads,
            -1,
            z // nz,
            nz,
            y // ny,
            ny,
            width // nx,
            nx,
        ).permute(0, 4, 6, 8, 2, 1, 5, 7, 9, 3)
        return x.flatten(5, 8).flatten(1, 3)

    def _attend(self, tokens: Tensor) -> Tensor:
        """(B, windows, H, M·L, 2d + c) -> (B, windows, H, M·L, c)."""
        query, key, value = tokens.flatten(0, 1).split(
            (self.key_channels, self.key_channels, self.value_channels), dim=-1
        )
        # (L, L, H) -> (H, M·L, M·L): the same bias for every pair of modalities
        bias = self.position_table[self.get_buffer("position_index")].permute(2, 0, 1)
        bias = bias.repeat(1, self.num_modalities, self.num_modalities)
        scores = (query * self.key_channels**-0.5) @ key.transpose(-2, -1) + bias
        attended = self.attention_dropout(scores.softmax(dim=-1)) @ value
        return attended.unflatten(0, tokens.shape[:2])  # type: ignore[no-any-return]

    def _scatter(self, tokens: Tensor, scale: int, grid: torch.Size) -> Tensor:
        """(B, windows, H, M·L, c) -> (B, Z, Y, X, M, H·c), a window spread over its positions."""
        (bz, by, bx), small = self.scales[scale]
        tokens = tokens.unflatten(3, (self.num_modalities, -1))
        if math.prod(small) > 1:
            matrix = self.get_buffer(f"upsampling_{scale}")  # (Π b, L)
            tokens = torch.matmul(matrix.to(tokens.dtype), tokens)
        batch, _, heads, modalities, _, channels = tokens.shape
        # (B, wz, wy, wx, H, M, bz, by, bx, c) -> (B, wz, bz, wy, by, wx, bx, M, H, c)
        tokens = tokens.reshape(
            batch,
            grid[0] // bz,
            grid[1] // by,
            grid[2] // bx,
            heads,
            modalities,
            bz,
            by,
            bx,
            channels,
        ).permute(0, 1, 6, 2, 7, 3, 8, 5, 4, 9)
        return tokens.reshape(batch, *grid, modalities, heads * channels)


class AttentionBlock(nn.Module):
    r"""Paired window attention, then an MLP of each modality's own.

        h = 2 x + PWA(x),    o = h + MLP(LN(h))

    Source: VeloxSeg (ICLR 2026).

    Shape:
        x: (B, M·A, Z, Y, X) -> the same
    """

    def __init__(
        self,
        attention: PairedWindowAttention,
        channels: int,
        *,
        expansion: int,
        projection_dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        modalities = attention.num_modalities
        total = modalities * channels
        self.attention = attention
        self.mlp = nn.Sequential(
            ModalityNorm(modalities, channels),
            nn.Conv3d(total, total * expansion, 1, groups=modalities),
            nn.GELU(),
            Dropout(projection_dropout),
            nn.Conv3d(total * expansion, total, 1, groups=modalities),
            Dropout(projection_dropout),
        )
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        # The published network adds the input twice, inside and outside the attention branch:
        # published weights depend on it.
        h = x + self.drop_path(x + self.attention(x))
        return h + self.drop_path(self.mlp(h))  # type: ignore[no-any-return]


class PatchMerging(nn.Module):
    """Concatenate the positions of each cell on channels, LN, 1×1×1 convolution without bias.

    The concatenated channels of a modality are ordered (offset in the cell, channel), the offset's
    last axis fastest.

    Shape:
        x: (B, M·A, Z, Y, X) -> (B, M·A', Z / stride, Y / stride, X / stride)
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, num_modalities: int, stride: Axes
    ) -> None:
        super().__init__()
        self.num_modalities, self.stride = num_modalities, stride
        merged = in_channels * math.prod(stride)
        self.norm = ModalityNorm(num_modalities, merged)
        self.reduction = nn.Conv3d(
            num_modalities * merged,
            num_modalities * out_channels,
            1,
            groups=num_modalities,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        sz, sy, sx = self.stride
        batch, _, z, y, width = x.shape
        # (B, M, A, Z', sz, Y', sy, X', sx) -> (B, M, sz, sy, sx, A, Z', Y', X')
        x = x.reshape(
            batch, self.num_modalities, -1, z // sz, sz, y // sy, sy, width // sx, sx
        ).permute(0, 1, 4, 6, 8, 2, 3, 5, 7)
        return self.reduction(self.norm(x.flatten(1, 5)))  # type: ignore[no-any-return]


def relative_positions(tokens: Axes) -> Tensor:
    """Row of the position table for each pair (query, key) of a window's tokens, as in Swin.

    Returns:
        (L, L) int64: query position minus key position, shifted to be non-negative, the last axis
        fastest.
    """
    axes = [torch.arange(n) for n in tokens]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)  # (L, 3)
    difference = positions[:, None] - positions[None] + torch.tensor(tokens) - 1
    _, ny, nx = (2 * n - 1 for n in tokens)
    return difference @ torch.tensor([ny * nx, nx, 1])


def upsampling(tokens: Axes, window: Axes) -> Tensor:
    """Trilinear interpolation (align_corners) from a window's tokens to its positions.

    Returns:
        (Π window, Π tokens), rows and columns with the last axis fastest: the Kronecker product of
        the three linear interpolations.
    """
    matrix = torch.ones(1, 1)
    for size, extent in zip(tokens, window, strict=True):
        identity = torch.eye(size)[None]  # (1, tokens, tokens): one signal for each token
        if size == 1:
            axis = torch.ones(extent, 1)
        else:
            axis = F.interpolate(identity, size=extent, mode="linear", align_corners=True)[0].T
        matrix = torch.kron(matrix, axis.contiguous())
    return matrix
