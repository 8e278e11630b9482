"""The learning objective against formulas written out and against nnU-Net's losses."""

import math

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import SoftDiceLoss
from torch.testing import assert_close

from veloxseg.network import DistillationModel, NetworkConfig, TrainingOutput, VeloxSeg
from veloxseg.training.objective import Objective

IGNORE = 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def without_onednn():
    """PyTorch's own kernels: oneDNN's bfloat16 gradients of grouped convolutions hold stray NaN.

    With PyTorch 2.14.1 they depend on what freed memory held: equal inputs, other gradients.
    """
    (before,) = torch.backends.mkldnn.set_flags(_enabled=False)[:1]
    yield
    torch.backends.mkldnn.set_flags(_enabled=before)


def written_segmentation_loss(logits, labels):
    """Cross entropy plus soft Dice of the foreground, per sample, smooth 1e-5; in plain loops."""
    probabilities = logits.softmax(1)
    picked = torch.gather(probabilities, 1, labels.long())
    cross_entropy = -picked.log().mean()
    dices = []
    for p, label in zip(probabilities, labels[:, 0], strict=True):
        for c in range(1, logits.shape[1]):
            truth = (label == c).float()
            both = (p[c] * truth).sum()
            dices.append((2 * both + 1e-5) / (p[c].sum() + truth.sum() + 1e-5))
    return cross_entropy - torch.stack(dices).mean()


def one_head(**options) -> Objective:
    return Objective(in_channels=(1,), num_heads=1, **options)


def test_two_voxels_by_hand():
    # probabilities (3/4, 1/4) and (1/4, 3/4); the truth is background, then foreground
    logits = torch.log(torch.tensor([[3 / 4, 1 / 4], [1 / 4, 3 / 4]])).reshape(1, 2, 1, 1, 2)
    target = torch.tensor([0, 1]).reshape(1, 1, 1, 1, 2)
    expected = -math.log(3 / 4) - (2 * 3 / 4) / (1 / 4 + 3 / 4 + 1)
    # the smoothing of 1e-5
    assert one_head().segmentation([logits], [target]).item() == pytest.approx(expected, abs=1e-5)


def test_one_head_is_cross_entropy_minus_dice_per_sample_without_background():
    logits = torch.randn(2, 3, 3, 4, 5) * 3
    target = torch.randint(0, 3, (2, 1, 3, 4, 5))
    target[1] = 0  # a sample without foreground
    ours = one_head().segmentation([logits], [target])
    assert_close(ours, written_segmentation_loss(logits, target))


def test_heads_are_weighted_by_powers_of_one_half_that_sum_to_one():
    objective = Objective(in_channels=(1,), num_heads=4)
    assert objective.head_weights == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15])
    extents = [(8, 8, 8), (4, 4, 4), (2, 2, 2), (1, 1, 2)]
    logits = [torch.randn(1, 2, *extent) for extent in extents]
    targets = [torch.randint(0, 2, (1, 1, *extent)) for extent in extents]
    expected = sum(
        w * written_segmentation_loss(x, t)
        for w, x, t in zip(objective.head_weights, logits, targets, strict=True)
    )
    assert_close(objective.segmentation(logits, targets), expected)


def test_as_many_targets_as_heads_are_needed():
    logits = [torch.zeros(1, 2, 2, 2, 2)] * 2
    with pytest.raises(ValueError, match="zip"):
        Objective(in_channels=(1,), num_heads=2).segmentation(logits, [torch.zeros(1, 1, 2, 2, 2)])


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("ignore", [None, IGNORE])
def test_labels_are_scored_as_nnunet_scores_them(batch_dice, ignore):
    logits = torch.randn(2, 3, 4, 4, 4)
    target = torch.randint(0, 3 if ignore is None else 4, (2, 1, 4, 4, 4)).float()
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    theirs = DC_and_CE_loss(dice, {}, ignore_label=ignore, dice_class=SoftDiceLoss)
    ours = one_head(batch_dice=batch_dice, ignore_label=ignore).segmentation([logits], [target])
    assert_close(ours, theirs(logits, target))


@pytest.mark.parametrize("ignore", [None, IGNORE])
def test_regions_are_scored_as_nnunet_scores_them(ignore):
    logits = torch.randn(2, 3, 4, 4, 4)
    channels = 3 + (ignore is not None)
    target = torch.randint(0, 2, (2, channels, 4, 4, 4)).float()
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": True, "ddp": False}
    theirs = DC_and_BCE_loss({}, dice, use_ignore_label=ignore is not None, dice_class=SoftDiceLoss)
    ours = one_head(regions=True, ignore_label=ignore).segmentation([logits], [target])
    assert_close(ours, theirs(logits, target))


def test_overlapping_regions_by_hand():
    # one voxel in both regions, with probabilities 1/2: binary cross entropy log 2, Dice 2/3
    logits, target = torch.zeros(1, 2, 1, 1, 1), torch.ones(1, 2, 1, 1, 1)
    expected = math.log(2) - (2 * 0.5) / 1.5
    ours = one_head(regions=True).segmentation([logits], [target]).item()
    assert ours == pytest.approx(expected, abs=1e-5)  # the smoothing


def test_ignored_voxels_move_nothing_with_labels():
    logits = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    target = torch.randint(0, 4, (2, 1, 4, 4, 4))
    one_head(ignore_label=IGNORE).segmentation([logits], [target]).backward()
    ignored = (target == IGNORE).expand_as(logits)
    assert ignored.any()
    assert not logits.grad[ignored].any()
    assert (logits.grad[~ignored] != 0).all()


def test_ignored_voxels_move_nothing_with_regions():
    logits = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    target = torch.randint(0, 2, (2, 4, 4, 4, 4))
    objective = one_head(regions=True, ignore_label=IGNORE)
    objective.segmentation([logits], [target]).backward()
    ignored = (target[:, 3:] == 1).expand_as(logits)
    assert not logits.grad[ignored].any()
    assert (logits.grad[~ignored] != 0).all()


@pytest.mark.parametrize("regions", [False, True])
def test_a_patch_of_ignored_voxels_alone_is_finite_and_moves_nothing(regions):
    logits = torch.randn(1, 2, 4, 4, 4, requires_grad=True)
    if regions:
        target = torch.zeros(1, 3, 4, 4, 4)
        target[:, -1] = 1
    else:
        target = torch.full((1, 1, 4, 4, 4), IGNORE)
    loss = one_head(regions=regions, ignore_label=IGNORE).segmentation([logits], [target])
    loss.backward()
    assert loss.isfinite()
    assert not logits.grad.any()


def test_the_frobenius_norm_is_a_sum_over_entries_and_modalities_and_a_mean_over_the_batch():
    student = torch.zeros(2, 4, 4)
    first, second = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    first[0] = 1.0  # 16 entries of one, in the first sample
    second[1, 0, 0] = 3.0
    sdkt = one_head().sdkt(student, [first, second])
    assert sdkt.item() == (16 + 9) / 2


def test_the_reconstruction_is_a_mean_over_modalities_whatever_their_channels():
    objective = Objective(in_channels=(3, 1), num_heads=1)
    image = torch.zeros(2, 4, 2, 2, 2)
    reconstruction = torch.zeros(2, 4, 2, 2, 2)
    reconstruction[:, 0] = 3.0  # one channel of the first modality: mean squared error 9 / 3
    reconstruction[:, 3] = 2.0  # the second modality: 4
    assert objective.reconstruction(reconstruction, image).item() == pytest.approx((3 + 4) / 2)


def outputs():
    config = NetworkConfig(**SIZES)
    model = DistillationModel(VeloxSeg(config))
    image = torch.randn(2, 2, 8, 8, 8)
    targets = [
        torch.randint(0, 2, (2, 1, *extent)) for extent in (config.patch_size, *config.grids[1:])
    ]
    return model, image, targets


SIZES: dict = {
    "patch_size": (8, 8, 8),
    "in_channels": (1, 1),
    "num_classes": 2,
    "stem_stride": (2, 2, 2),
    "strides": ((2, 2, 2),),
    "conv_channels": (8, 8),
    "attention_channels": (8, 8),
    "conv_depths": (1, 1),
    "attention_depths": (1, 1),
    "group_widths": (4, 8),
    "conv_expansion": (1, 1),
    "attention_expansion": (1, 1),
    "big_windows": ((2, 2, 2), (2, 2, 2)),
    "small_windows": ((1, 1, 1), (1, 1, 1)),
    "num_heads": (1, 1),
    "head_channels": (4, 4),
    "attention_dropout": 0.0,
    "projection_dropout": 0.0,
    "conv_dropout": 0.0,
}


def test_the_total_weighs_reconstruction_by_a_half_and_transfer_by_two():
    model, image, targets = outputs()
    terms = Objective(in_channels=(1, 1), num_heads=2)(model(image), targets, image)
    assert terms.reconstruction > 0
    assert terms.sdkt > 0
    expected = terms.segmentation + 0.5 * terms.reconstruction + 2.0 * terms.sdkt
    assert_close(terms.total, expected)


@pytest.mark.parametrize("detach", [False, True])
def test_detached_teachers_are_not_moved_by_the_transfer(detach):
    model, image, targets = outputs()
    objective = Objective(in_channels=(1, 1), num_heads=2, detach_teachers=detach)
    objective(model(image), targets, image).sdkt.backward()
    moved = [p.grad is not None and bool(p.grad.any()) for p in model.teachers.parameters()]
    assert any(moved) is not detach
    assert model.network.decoder.stages[0][0].branches[1].weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("magnitude", [1.0, 1e3, 1e4])
def test_every_term_and_gradient_is_finite_under_autocast(dtype, magnitude, without_onednn):
    model, image, targets = outputs()
    image = image * magnitude
    objective = Objective(in_channels=(1, 1), num_heads=2)
    with torch.autocast("cpu", dtype=dtype):
        terms = objective(model(image), targets, image)
    for name, term in terms._asdict().items():
        assert term.isfinite(), name
        assert term.dtype == torch.float32
    # float16 cannot hold the gradient of a squared error of 1e8: a scaler's skipped step there
    if dtype == torch.bfloat16 or magnitude == 1.0:
        terms.total.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_outputs_in_half_precision_are_scored_in_float32(dtype):
    logits = (torch.randn(1, 2, 4, 4, 4) * 1e4).to(dtype)
    reconstruction = torch.full((1, 1, 4, 4, 4), -6e4).to(dtype)
    output = TrainingOutput((logits,), reconstruction, torch.zeros(1, 2, 2), (torch.ones(1, 2, 2),))
    target, image = torch.randint(0, 2, (1, 1, 4, 4, 4)), torch.full((1, 1, 4, 4, 4), 6e4)
    with torch.autocast("cpu", dtype=dtype):
        terms = one_head()(output, [target], image.to(dtype))
    # 2⁻⁷ is twice the precision of bfloat16's 6e4
    assert_close(terms.reconstruction, torch.tensor(1.2e5**2), rtol=2**-7, atol=0.0)
    assert_close(terms.segmentation, written_clipped(logits.float(), target), rtol=1e-3, atol=1e-3)
    assert terms.sdkt.item() == 4.0


def written_clipped(logits, target):
    """As the written loss, with the cross entropy from log-softmax: probabilities vanish here."""
    cross_entropy = -torch.gather(logits.log_softmax(1), 1, target).mean()
    truth, p = (target[:, 0] == 1).float(), logits.softmax(1)[:, 1]
    return cross_entropy - (2 * (p * truth).sum() + 1e-5) / (p.sum() + truth.sum() + 1e-5)
