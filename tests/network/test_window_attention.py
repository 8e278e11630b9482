"""Paired window attention against a slow reading of its definition."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from veloxseg.network.window_attention import (
    AttentionBlock,
    ModalityNorm,
    PairedWindowAttention,
    PatchMerging,
    StochasticDepth,
    relative_positions,
    upsampling,
)

# float64 on both sides: only the order of sums differs
EXACT = {"rtol": 1e-9, "atol": 1e-9}
# the interpolation weights are kept in float32: 2⁻²⁴ of values up to ten
INTERPOLATED = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(module):
    """The module in float64 with no parameter at its initial one or zero."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return module


def window_slices(grid, window):
    """Windows of a grid in order, the last axis fastest."""
    starts = [range(0, g, w) for g, w in zip(grid, window, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))


def reference_attention(attention, maps, scales):
    """The definition, one modality, scale, window and head at a time.

    Args:
        attention: Where the weights are. The fused projection's channels of a modality are ordered
            (scale, head, [query, key, value]), the output's input (scale, head, value).
        maps: One (B, A, Z, Y, X) a modality.
        scales: (big, small) windows.
    """
    modalities, heads = len(maps), attention.num_heads
    channels, d = maps[0].shape[1], attention.key_channels
    c_v = d * math.ceil(channels / (len(scales) * heads * d))
    grid = maps[0].shape[2:]
    tokens = tuple(b // s for b, s in zip(*scales[0], strict=True))
    length = math.prod(tokens)
    positions = list(itertools.product(*(range(n) for n in tokens)))

    projected = []
    for m, x in enumerate(maps):
        u = F.layer_norm(
            x.movedim(1, -1),
            (channels,),
            attention.norm.weight[m],
            attention.norm.bias[m],
            eps=1e-6,
        ).movedim(-1, 1)
        weight = attention.qkv.weight.chunk(modalities)[m]
        bias = attention.qkv.bias.chunk(modalities)[m]
        projected.append(F.conv3d(u, weight, bias))

    results = [[] for _ in maps]  # for each modality its (scale, head) maps of c_v channels
    width = 2 * d + c_v
    for j, (big, small) in enumerate(scales):
        for h in range(heads):
            first = (j * heads + h) * width
            out = [torch.empty(x.shape[0], c_v, *grid, dtype=x.dtype) for x in maps]
            for window in window_slices(grid, big):
                parts = [
                    F.max_pool3d(p[:, first : first + width][(..., *window)], small, small).flatten(
                        2
                    )
                    for p in projected
                ]
                q, k, v = torch.cat(parts, dim=2).split((d, d, c_v), dim=1)  # (B, c, M·L)
                bias = torch.empty(modalities * length, modalities * length, dtype=q.dtype)
                for a, b in itertools.product(range(modalities * length), repeat=2):
                    row = 0
                    query, key = positions[a % length], positions[b % length]
                    for p, r, n in zip(query, key, tokens, strict=True):
                        row = row * (2 * n - 1) + (p - r + n - 1)
                    bias[a, b] = attention.position_table[row, h]
                weights = (q.transpose(1, 2) @ k / d**0.5 + bias).softmax(-1)
                attended = (weights @ v.transpose(1, 2)).transpose(1, 2)  # (B, c_v, M·L)
                for m in range(modalities):
                    cells = attended[..., m * length : (m + 1) * length].unflatten(2, tokens)
                    if tuple(small) != (1, 1, 1):
                        cells = F.interpolate(cells, size=big, mode="trilinear", align_corners=True)
                    out[m][(..., *window)] = cells
            for m in range(modalities):
                results[m].append(out[m])
    return [
        F.conv3d(
            torch.cat(results[m], dim=1),
            attention.output.weight.chunk(modalities)[m],
            attention.output.bias.chunk(modalities)[m],
        )
        for m in range(modalities)
    ]


def attention_of(scales, *, channels=6, modalities=2, heads=2, d=2):
    module = PairedWindowAttention(
        channels,
        num_modalities=modalities,
        scales=scales,
        num_heads=heads,
        head_channels=d,
        attention_dropout=0.0,
        projection_dropout=0.0,
    )
    return randomised(module)


ONE = ((2, 2, 2), (1, 1, 1))
DOUBLING = (ONE, ((4, 4, 4), (2, 2, 2)))
NON_CUBIC = (((2, 3, 1), (1, 1, 1)), ((4, 6, 2), (2, 2, 2)))
SMALL_OF_TWO = (((4, 2, 2), (2, 2, 1)), ((8, 4, 4), (4, 4, 2)))
ONE_AXIS_STAYS = (ONE, ((2, 4, 4), (1, 2, 2)), ((2, 8, 4), (1, 4, 2)))


@pytest.mark.parametrize(
    ("scales", "grid", "modalities"),
    [
        ((ONE,), (4, 2, 6), 1),
        (DOUBLING, (4, 4, 4), 1),
        (DOUBLING, (4, 8, 4), 2),
        (NON_CUBIC, (4, 6, 4), 3),
        (SMALL_OF_TWO, (8, 4, 4), 2),
        (ONE_AXIS_STAYS, (2, 8, 4), 2),
    ],
)
def test_attention_is_its_definition(scales, grid, modalities):
    attention = attention_of(scales, modalities=modalities)
    maps = [torch.randn(2, 6, *grid, dtype=torch.float64) for _ in range(modalities)]
    with torch.no_grad():
        ours = attention(torch.cat(maps, dim=1))
        theirs = torch.cat(reference_attention(attention, maps, scales), dim=1)
    assert ours.std() > 0.1
    assert_close(ours, theirs, **INTERPOLATED)


@pytest.mark.parametrize(
    ("channels", "heads", "d", "expected"),
    [(16, 1, 4, 8), (6, 2, 2, 2), (9, 1, 4, 8), (2, 2, 4, 4)],
)
def test_values_have_the_fewest_multiples_of_d_that_hold_all_channels(channels, heads, d, expected):
    attention = attention_of(DOUBLING, channels=channels, heads=heads, d=d)
    assert attention.value_channels == expected
    assert attention(torch.randn(1, 2 * channels, 4, 4, 4).double()).shape[1] == 2 * channels


def test_an_attention_block_adds_its_input_twice_and_an_mlp_of_each_modality():
    block = randomised(
        AttentionBlock(
            attention_of(DOUBLING), 6, expansion=3, projection_dropout=0.0, drop_path=0.0
        )
    )
    maps = [torch.randn(2, 6, 4, 4, 4, dtype=torch.float64) for _ in range(2)]
    expected = []
    norm, first, last = block.mlp[0], block.mlp[1], block.mlp[4]
    for m, p in enumerate(reference_attention(block.attention, maps, DOUBLING)):
        h = 2 * maps[m] + p
        u = F.layer_norm(h.movedim(1, -1), (6,), norm.weight[m], norm.bias[m], eps=1e-6)
        y = F.conv3d(u.movedim(-1, 1), first.weight.chunk(2)[m], first.bias.chunk(2)[m])
        expected.append(h + F.conv3d(F.gelu(y), last.weight.chunk(2)[m], last.bias.chunk(2)[m]))
    assert_close(block(torch.cat(maps, dim=1)), torch.cat(expected, dim=1), **INTERPOLATED)


def test_with_the_smallest_scale_alone_a_voxel_changes_its_own_window_only():
    attention = attention_of((ONE,))
    x = torch.randn(1, 12, 4, 6, 4, dtype=torch.float64)
    changed = x.clone()
    changed[0, 3, 1, 2, 3] += 1
    difference = (attention(x) - attention(changed)).abs().amax((0, 1))
    inside = torch.zeros(4, 6, 4, dtype=torch.bool)
    inside[0:2, 2:4, 2:4] = True
    assert (difference[inside] > 0).all()
    assert not difference[~inside].any()


def test_a_voxel_of_one_modality_reaches_the_other_in_its_window():
    attention = attention_of((ONE,))
    x = torch.randn(1, 12, 2, 2, 2, dtype=torch.float64)
    changed = x.clone()
    changed[0, 0, 0, 0, 0] += 1  # the first modality
    assert (attention(x) - attention(changed))[:, 6:].abs().min() > 0


def test_memory_format_does_not_change_the_result():
    attention = attention_of(DOUBLING)
    x = torch.randn(2, 12, 4, 8, 4, dtype=torch.float64)
    y = attention(x)
    assert_close(attention(x.to(memory_format=torch.channels_last_3d)), y, **EXACT)
    attention.to(memory_format=torch.channels_last_3d)
    assert_close(attention(x.to(memory_format=torch.channels_last_3d)), y, **EXACT)


def test_samples_do_not_see_each_other():
    attention = attention_of(DOUBLING)
    x = torch.randn(3, 12, 4, 4, 8, dtype=torch.float64)
    together = attention(x)
    alone = torch.cat([attention(sample[None]) for sample in x])
    assert_close(together, alone, **EXACT)


def test_attention_dropout_zeroes_weights_in_training_only():
    attention = attention_of((ONE,))
    attention.attention_dropout.rate = 0.5
    x = torch.randn(1, 12, 4, 4, 4, dtype=torch.float64)
    assert not torch.allclose(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_the_position_table_starts_small_and_truncated():
    attention = PairedWindowAttention(
        4,
        num_modalities=1,
        scales=(((6, 6, 6), (1, 1, 1)),),
        num_heads=2,
        head_channels=2,
        attention_dropout=0.0,
        projection_dropout=0.0,
    )
    table = attention.position_table.detach()
    assert table.shape == (11**3, 2)
    # 5 % is five standard errors of a standard deviation of 2662 values, and some
    assert table.std().item() == pytest.approx(0.02, rel=0.08)


def test_relative_positions_of_a_two_token_axis_by_hand():
    # query 0, key 0: difference 0 -> row 1; query 0, key 1: −1 -> row 0; query 1, key 0: +1 -> 2
    expected = torch.tensor([[1, 0], [2, 1]])
    for tokens in ((2, 1, 1), (1, 2, 1), (1, 1, 2)):
        assert torch.equal(relative_positions(tokens), expected)


def test_relative_positions_run_with_the_last_axis_fastest():
    index = relative_positions((2, 2, 3))
    query, key = 1 * 6 + 0 * 3 + 2, 0 * 6 + 1 * 3 + 0  # (1, 0, 2) and (0, 1, 0)
    dz, dy, dx = 1, -1, 2
    assert index[query, key] == ((dz + 1) * 3 + (dy + 1)) * 5 + (dx + 2)
    assert index.min() == 0
    assert index.max() == 3 * 3 * 5 - 1


@pytest.mark.parametrize(
    ("tokens", "window"),
    [
        ((2, 2, 2), (4, 4, 4)),
        ((3, 2, 4), (6, 8, 4)),
        ((1, 2, 3), (4, 2, 3)),
        ((1, 1, 1), (2, 2, 2)),
    ],
)
def test_upsampling_is_trilinear_interpolation_with_aligned_corners(tokens, window):
    x = torch.randn(2, 3, *tokens)
    ours = (upsampling(tokens, window) @ x.flatten(2).transpose(1, 2)).transpose(1, 2)
    theirs = F.interpolate(x, size=window, mode="trilinear", align_corners=True)
    assert_close(ours.unflatten(2, window), theirs, rtol=1e-5, atol=1e-6)  # float32 rounding


def test_a_modality_norm_is_a_layer_norm_for_each_modality():
    norm = randomised(ModalityNorm(3, 5))
    x = torch.randn(2, 15, 3, 4, 2, dtype=torch.float64)
    for m, part in enumerate(x.split(5, dim=1)):
        layer = torch.nn.LayerNorm(5, eps=1e-6).double()
        with torch.no_grad():
            layer.weight.copy_(norm.weight[m])
            layer.bias.copy_(norm.bias[m])
        expected = layer(part.movedim(1, -1)).movedim(-1, 1)
        assert_close(norm(x)[:, 5 * m : 5 * m + 5], expected, **EXACT)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 4)])
def test_patch_merging_orders_channels_by_offset_then_channel(stride):
    merging = randomised(PatchMerging(3, 5, num_modalities=2, stride=stride))
    sz, sy, sx = stride
    x = torch.randn(2, 6, 4, 4, 8, dtype=torch.float64)
    expected = []
    for m in range(2):
        part = x[:, 3 * m : 3 * m + 3]
        offsets = itertools.product(range(sz), range(sy), range(sx))
        merged = torch.cat([part[:, :, i::sz, j::sy, k::sx] for i, j, k in offsets], dim=1)
        u = F.layer_norm(
            merged.movedim(1, -1),
            (merged.shape[1],),
            merging.norm.weight[m],
            merging.norm.bias[m],
            eps=1e-6,
        )
        expected.append(F.conv3d(u.movedim(-1, 1), merging.reduction.weight[5 * m : 5 * m + 5]))
    assert merging.reduction.bias is None
    assert_close(merging(x), torch.cat(expected, dim=1), **EXACT)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    y = StochasticDepth(0.25)(torch.ones(4000, 2, 1, 1, 1))
    assert torch.equal(y[:, 0], y[:, 1])
    assert_close(y.unique(), torch.tensor([0.0, 1 / 0.75]))
    # five standard errors of a binomial share of 4000
    assert abs((y == 0).float().mean().item() - 0.25) < 0.035


def test_stochastic_depth_does_nothing_in_evaluation_or_at_rate_zero():
    x = torch.ones(3, 2)
    assert StochasticDepth(0.25).eval()(x) is x
    assert StochasticDepth(0.0)(x) is x
