"""The building blocks against formulas written out."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from veloxseg.network.blocks import (
    DownConv,
    Dropout,
    InstanceNorm,
    JLCBlock,
    ShuffleHead,
    UpConv,
    initialise,
    pixel_shuffle,
)

# float64 on both sides: only the order of sums differs
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def normalised(x):
    """Instance norm by its definition: biased variance, eps 1e-5."""
    mean = x.mean((2, 3, 4), keepdim=True)
    variance = (x - mean).square().mean((2, 3, 4), keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def test_pixel_shuffle_is_the_loop_over_offsets_with_the_last_axis_fastest():
    sz, sy, sx = stride = (2, 3, 4)
    x = torch.randn(2, 5 * 24, 2, 3, 4)
    expected = torch.empty(2, 5, 4, 9, 16)
    for c, i, j, k in itertools.product(range(5), range(sz), range(sy), range(sx)):
        channel = ((c * sz + i) * sy + j) * sx + k
        expected[:, c, i::sz, j::sy, k::sx] = x[:, channel]
    assert torch.equal(pixel_shuffle(x, stride), expected)


def test_a_shuffle_head_is_a_convolution_then_the_shuffle():
    head = ShuffleHead(3, 2, stem_stride=(1, 2, 4)).double()
    x = torch.randn(1, 3, 3, 4, 5, dtype=torch.float64)
    y = F.conv3d(x, head.conv.weight, head.conv.bias, padding=1)
    out = head(x)
    assert out.shape == (1, 2, 3, 8, 20)
    assert_close(out[0, 1, 2, 1::2, 2::4], y[0, 8 + 6, 2], **EXACT)


def test_instance_norm_uses_the_sample_at_hand_in_evaluation_too():
    norm = InstanceNorm()
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64) * 7 + 3
    assert_close(norm(x), normalised(x), **EXACT)
    assert_close(norm.eval()(x), normalised(x), **EXACT)
    assert not list(norm.state_dict())


@pytest.mark.parametrize("shape", [(2, 8, 4, 5, 6), (1, 3, 2, 1, 1), (3, 1, 4, 4, 4)])
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "channels first"])
def test_instance_norm_and_its_gradient_are_the_definition_in_both_memory_formats(shape, last):
    x = torch.randn(shape) * 3 + 50
    if last:
        x = x.to(memory_format=torch.channels_last_3d)
    exact = x.double().requires_grad_()
    x.requires_grad_()
    weights = torch.randn(shape)
    y, expected = InstanceNorm()(x), normalised(exact)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    # a mean of 50 in float32 leaves an error of 50 · 2⁻²³ beside a deviation of order one, and
    # with two positions that deviation can be small
    assert_close(y.double(), expected, rtol=1e-3, atol=1e-4)
    assert_close(x.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)


def test_instance_norm_of_float32_is_exact_under_autocast():
    x = (torch.randn(2, 8, 4, 5, 6) + 50).to(memory_format=torch.channels_last_3d)
    x.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = InstanceNorm()(x)
    # float32 rounding of a mean of 50; the mean in bfloat16 would be off by up to 0.1
    assert_close(y.double(), normalised(x.double()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kernels", [(1, 3, 5), (3, 5), (7, 1)])
def test_a_jlc_block_is_its_formula(kernels):
    block = JLCBlock(8, group_width=4, kernel_sizes=kernels, expansion=3, dropout=0.0).double()
    x = torch.randn(2, 8, 4, 5, 6, dtype=torch.float64)
    y = x.clone()
    for kernel, conv in zip(kernels, block.branches, strict=True):
        assert conv.weight.shape == (8, 4, kernel, kernel, kernel)
        branch = F.conv3d(x, conv.weight, conv.bias, padding=kernel // 2, groups=2)
        y = y + F.gelu(normalised(branch))
    assert_close(block(x), y + written_mlp(block, y), **EXACT)


def test_a_jlc_block_with_one_kernel_has_neither_norm_nor_gelu_on_it():
    block = JLCBlock(8, group_width=2, kernel_sizes=(3,), expansion=2, dropout=0.0).double()
    x = torch.randn(1, 8, 4, 4, 4, dtype=torch.float64)
    conv = block.branches[0]
    y = x + F.conv3d(x, conv.weight, conv.bias, padding=1, groups=4)
    assert_close(block(x), y + written_mlp(block, y), **EXACT)


def written_mlp(block, y):
    first, second = (m for m in block.mlp if isinstance(m, nn.Conv3d))
    hidden = F.gelu(F.conv3d(normalised(y), first.weight, first.bias))
    return F.conv3d(hidden, second.weight, second.bias)


def test_a_jlc_block_leaves_its_input_as_it_was():
    block = JLCBlock(4, group_width=4, kernel_sizes=(1, 3), expansion=2, dropout=0.5)
    x = torch.randn(1, 4, 4, 4, 4)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


def test_a_jlc_block_refuses_a_group_width_that_does_not_divide():
    with pytest.raises(ValueError, match=r"6 channels.*group width 4"):
        JLCBlock(6, group_width=4, kernel_sizes=(3,), expansion=2, dropout=0.0)


@pytest.mark.parametrize("stem", [(1, 1, 1), (2, 2, 2), (4, 4, 4), (1, 2, 4)])
def test_the_stem_convolution_divides_every_extent_by_its_stride(stem):
    kernel = tuple(2 * s - 1 for s in stem)
    down = DownConv(2, 3, kernel=kernel, stride=stem).double()
    x = torch.randn(1, 2, 8, 8, 8, dtype=torch.float64)
    conv = down[0]
    expected = normalised(
        F.conv3d(x, conv.weight, conv.bias, stride=stem, padding=tuple(s - 1 for s in stem))
    )
    out = down(x)
    assert out.shape[2:] == tuple(8 // s for s in stem)
    assert_close(out, expected, **EXACT)


def test_an_up_convolution_multiplies_every_extent_by_its_stride():
    up = UpConv(4, 2, stride=(1, 2, 2)).double()
    x = torch.randn(1, 4, 3, 3, 3, dtype=torch.float64)
    assert up[0].kernel_size == (1, 2, 2)
    assert_close(
        up(x),
        normalised(F.conv_transpose3d(x, up[0].weight, up[0].bias, stride=(1, 2, 2))),
        **EXACT,
    )


def test_convolutions_start_kaiming_normal_with_fan_in_and_zero_biases():
    conv = nn.Conv3d(32, 64, 3, groups=4)
    up = nn.ConvTranspose3d(64, 64, 2, stride=2)
    conv.apply(initialise)
    up.apply(initialise)
    # PyTorch's fan in is the second axis of the weight times the kernel, transposed ones included.
    for module, fan_in in ((conv, 8 * 27), (up, 64 * 8)):
        assert not module.bias.any()
        expected = (2 / (1 + 0.01**2) / fan_in) ** 0.5
        # 3 % is five standard errors of a standard deviation of 13824 values
        assert module.weight.std().item() == pytest.approx(expected, rel=0.03)


class TestDropout:
    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
    def test_it_drops_at_its_rate_and_scales_the_rest_up(self, rate):
        dropped = Dropout(rate)(torch.ones(100_003))
        kept = dropped != 0
        # five standard errors of a binomial share
        assert abs(1 - kept.float().mean().item() - rate) < 5 * (rate * (1 - rate) / 1e5) ** 0.5
        assert_close(dropped[kept].unique(), torch.tensor([1 / (1 - rate)]))

    @pytest.mark.parametrize("rate", [0.1, 0.5])
    def test_neighbouring_values_are_dropped_independently(self, rate):
        """Four values share a random number: their joint rates must still be products."""
        kept = (Dropout(rate)(torch.ones(400_000)) != 0).float().view(-1, 4)
        covariance = torch.cov(kept.T)
        off = covariance - torch.diag(covariance.diag())
        # covariance of independent bits: standard error rate·(1 − rate) / √n, five of them
        assert off.abs().max() < 5 * rate * (1 - rate) / kept.shape[0] ** 0.5

    def test_the_seed_decides_the_mask(self):
        x = torch.randn(3, 5, 7)
        torch.manual_seed(5)
        first = Dropout(0.3)(x)
        second = Dropout(0.3)(x)
        torch.manual_seed(5)
        assert torch.equal(Dropout(0.3)(x), first)
        assert not torch.equal(first, second)

    def test_it_does_nothing_in_evaluation_or_at_rate_zero(self):
        x = torch.randn(10)
        assert Dropout(0.5).eval()(x) is x
        assert Dropout(0.0)(x) is x

    @pytest.mark.parametrize("form", ["contiguous", "channels_last", "strided"])
    def test_the_gradient_has_the_forward_mask(self, form):
        x = torch.rand(2, 3, 4, 5, 6) + 1
        if form == "channels_last":
            x = x.to(memory_format=torch.channels_last_3d)
        elif form == "strided":
            x = x.transpose(2, 4)[:, :, ::2]
        x.requires_grad_()
        y = Dropout(0.4)(x)
        y.sum().backward()
        assert_close(y, x * x.grad)
        assert 0.2 < (x.grad == 0).float().mean() < 0.6

    def test_it_keeps_type_and_memory_format(self):
        x = torch.randn(2, 3, 4, 4, 4).to(memory_format=torch.channels_last_3d)
        y = Dropout(0.4)(x.bfloat16())
        assert y.dtype == torch.bfloat16
        assert y.is_contiguous(memory_format=torch.channels_last_3d)

    @pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
    def test_a_rate_outside_zero_to_one_is_refused(self, rate):
        with pytest.raises(ValueError, match="rate"):
            Dropout(rate)

    @pytest.mark.parametrize("rate", [1e-9, 0.9999])
    def test_extreme_rates_do_not_overflow(self, rate):
        y = Dropout(rate)(torch.ones(1000))
        assert y.isfinite().all()
        assert (y != 0).float().mean().item() == pytest.approx(1 - rate, abs=0.01)
