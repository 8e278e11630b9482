"""What the adapter of other libraries' networks does to patches that they cannot take."""

import pytest
import torch
from torch import nn

from veloxseg.network.peers.adapter import PeerNetwork, PlainModel, SupervisedUNet
from veloxseg.network.peers.registry import legal_extent


class Watched(nn.Module):
    """Returns its input and remembers its extent."""

    def forward(self, x):
        self.extent = tuple(x.shape[2:])
        self.last = x
        return x


class Pyramid(nn.Module):
    """A decoder's heads: means over cells of 1, 2 and 4 voxels, as nnU-Net's U-Nets return them."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.deep_supervision = False
        self.decoder.seg_layers = nn.ModuleList(nn.Conv3d(1, 1, 1) for _ in range(3))

    def forward(self, x):
        heads = [x, *(nn.functional.avg_pool3d(x, cell) for cell in (2, 4))]
        return heads if self.decoder.deep_supervision else x


@pytest.mark.parametrize(
    ("extent", "multiple", "legal"),
    [
        ((40, 56, 40), (8, 8, 8), (40, 56, 40)),
        ((40, 56, 40), (16, 16, 16), (48, 64, 48)),
        ((9, 33, 64), (32, 32, 32), (32, 64, 64)),
        ((5, 20, 20), (1, 8, 8), (5, 24, 24)),
        ((16, 16, 16), (16, 16, 16), (16, 16, 32)),  # a single position could not be normalised
        ((3, 4, 1), (1, 1, 1), (3, 4, 1)),
    ],
)
def test_a_patch_grows_to_the_next_legal_extent(extent, multiple, legal):
    assert legal_extent(extent, multiple) == legal


def test_zeros_are_appended_and_their_logits_cut_off():
    inner = Watched()
    patch = torch.rand(2, 3, 5, 16, 9) + 1
    logits = PeerNetwork(inner, multiple=(4, 16, 8))(patch)
    assert inner.extent == (8, 16, 16)
    assert torch.equal(logits, patch)
    assert torch.equal(inner.last[:, :, :5, :, :9], patch)
    assert inner.last.sum() == pytest.approx(patch.sum().item(), rel=1e-5)


def test_a_legal_patch_is_passed_on_as_it_is():
    inner = Watched()
    patch = torch.rand(1, 1, 8, 8, 16)
    PeerNetwork(inner, multiple=(8, 8, 8))(patch)
    assert inner.last is patch


def test_coarse_heads_cover_the_patch_cell_for_cell_and_no_zeros():
    network = SupervisedUNet(Pyramid(), multiple=(8, 8, 8), head_strides=((1, 1, 1), (2, 2, 2)))
    patch = torch.rand(1, 1, 6, 8, 10)
    fine, coarse = network.heads(patch)
    assert torch.equal(fine, patch)
    assert torch.equal(coarse, nn.functional.avg_pool3d(patch, 2))
    assert torch.equal(network(patch), patch)  # the forward is logits, before and after


def test_heads_that_are_not_supervised_ask_for_no_gradients():
    inner = Pyramid()
    SupervisedUNet(inner, multiple=(1, 1, 1), head_strides=((1, 1, 1), (2, 2, 2)))
    asked = [layer.weight.requires_grad for layer in inner.decoder.seg_layers]
    assert asked == [False, True, True]  # nnU-Net keeps the coarsest first


def test_an_error_leaves_the_forward_as_it_was():
    inner = Pyramid()
    network = SupervisedUNet(inner, multiple=(1, 1, 1), head_strides=((1, 1, 1),))
    with pytest.raises(RuntimeError):
        network.heads(torch.rand(1, 1, 1, 1, 1))  # too small to pool
    assert inner.decoder.deep_supervision is False


def test_a_plain_model_has_logits_alone_and_keeps_all_its_weights_in_the_bare_network():
    model = PlainModel(PeerNetwork(nn.Conv3d(2, 3, 1), multiple=(1, 1, 1)), in_channels=2)
    output = model(torch.rand(1, 2, 4, 4, 4))
    assert [tuple(logits.shape) for logits in output.logits] == [(1, 3, 4, 4, 4)]
    assert (output.reconstruction, output.student_gram, output.teacher_grams) == (None, None, ())
    assert all(key.startswith("network.") for key in model.state_dict())
    assert model.head_scales == ((1.0, 1.0, 1.0),)
    assert model.in_channels == (2,)
