"""The whole network: its size, its outputs, its gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from veloxseg.errors import PlanError
from veloxseg.network import DistillationModel, NetworkConfig, TrainingOutput, VeloxSeg
from veloxseg.network.distillation import gram
from veloxseg.network.plans import NETWORK_CLASS_NAME, build_network

PETCT = NetworkConfig(patch_size=(96, 96, 96), in_channels=(1, 1), num_classes=2)
HECKTOR = NetworkConfig(
    patch_size=(128, 128, 64),
    in_channels=(1, 1),
    num_classes=2,
    big_windows=((4, 4, 2), (8, 8, 4), (4, 4, 2), (4, 4, 2)),
)
BRATS = NetworkConfig(patch_size=(96, 96, 96), in_channels=(4,), num_classes=4)

NO_DROPOUT: dict = {"attention_dropout": 0.0, "projection_dropout": 0.0, "conv_dropout": 0.0}
THREE_STAGES: dict = {
    "patch_size": (8, 16, 32),
    "in_channels": (1, 2, 1),
    "num_classes": 3,
    "stem_stride": (1, 2, 4),
    "strides": ((1, 2, 2), (2, 2, 2)),
    "conv_channels": (8, 12, 16),
    "attention_channels": (4, 10, 6),
    "conv_depths": (1, 2, 1),
    "attention_depths": (2, 1, 1),
    "kernel_sizes": (1, 3),
    "group_widths": (4, 6, 8),
    "conv_expansion": (2, 1, 2),
    "attention_expansion": (1, 2, 2),
    "big_windows": ((4, 2, 2), (4, 4, 2), (2, 1, 2)),
    "small_windows": ((2, 1, 1), (2, 2, 1), (1, 1, 1)),
    "num_heads": (1, 2, 1),
    "head_channels": (2, 2, 4),
}
FIVE_STAGES: dict = {
    "patch_size": (4, 32, 32),
    "in_channels": (5,),
    "num_classes": 1,
    "stem_stride": (1, 1, 1),
    "strides": ((1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2)),
    "conv_channels": (4, 4, 8, 8, 8),
    "attention_channels": (4, 4, 4, 8, 8),
    "conv_depths": (1,) * 5,
    "attention_depths": (1,) * 5,
    "kernel_sizes": (3,),
    "group_widths": (1, 4, 2, 8, 4),
    "conv_expansion": (1,) * 5,
    "attention_expansion": (1,) * 5,
    "big_windows": ((4, 4, 4), (2, 4, 4), (2, 4, 4), (2, 2, 2), (1, 2, 2)),
    "small_windows": ((2, 2, 2), (1, 2, 2), (1, 2, 2), (1, 1, 1), (1, 1, 1)),
    "num_heads": (1, 1, 2, 2, 1),
    "head_channels": (2, 2, 2, 2, 4),
}
TWO_STAGES: dict = {
    "patch_size": (8, 8, 8),
    "in_channels": (1, 1),
    "num_classes": 2,
    "stem_stride": (2, 2, 2),
    "strides": ((2, 2, 2),),
    "conv_channels": (8, 16),
    "attention_channels": (8, 8),
    "conv_depths": (1, 1),
    "attention_depths": (1, 1),
    "group_widths": (4, 8),
    "conv_expansion": (2, 2),
    "attention_expansion": (2, 2),
    "big_windows": ((2, 2, 2), (2, 2, 2)),
    "small_windows": ((1, 1, 1), (1, 1, 1)),
    "num_heads": (1, 2),
    "head_channels": (4, 4),
}
GENERAL = [TWO_STAGES, THREE_STAGES, FIVE_STAGES]
NAMES = ["two stages", "three stages, three modalities", "five stages, one modality of five"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(module):
    return sum(p.numel() for p in module.parameters())


def millions(value):
    return f"{value / 1e6:.2f}"


def test_the_published_petct_size_has_its_parameters():
    model = DistillationModel(VeloxSeg(PETCT))
    assert millions(count(model.network)) == "1.67"
    assert millions(count(model)) == "2.29"


@pytest.mark.parametrize("config", [HECKTOR, BRATS], ids=["HECKTOR", "BraTS"])
def test_the_other_published_sizes_are_as_light(config):
    model = DistillationModel(VeloxSeg(config))
    # an attention stream for each modality: HECKTOR has two as PET/CT, BraTS one
    assert count(model.network) < count(VeloxSeg(PETCT)) * 1.05
    assert count(model) > count(model.network) > 1e6


def test_the_published_petct_size_has_its_multiply_adds():
    network = VeloxSeg(PETCT).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 2, 96, 96, 96))
    total = counter.get_total_flops() / 2
    head = 24**3 * 27 * 16 * 2 * 4**3  # the output convolution
    assert f"{head / 1e9:.2f}" == "0.76"
    # The counter sees convolutions and products. Upsampling is a product with us, 1 % of the sum,
    # where an interpolation would not be counted: the figure is without it.
    upsampling = sum(_upsampling_multiply_adds(PETCT, stage) for stage in range(4))
    assert f"{(total - upsampling) / 1e9:.2f}" == "1.75"


def _upsampling_multiply_adds(config, stage):
    scales = config.window_scales(stage)
    heads, d = config.num_heads[stage], config.head_channels[stage]
    values = d * -(-config.attention_channels[stage] // (len(scales) * heads * d))
    positions = config.grids[stage][0] ** 3
    tokens = scales[0][0][0] ** 3
    return (len(scales) - 1) * positions * tokens * heads * values * config.num_modalities


@pytest.mark.parametrize("sizes", GENERAL, ids=NAMES)
def test_every_parameter_of_a_general_network_gets_a_gradient(sizes):
    config = NetworkConfig(**sizes)
    model = DistillationModel(VeloxSeg(config))
    x = torch.randn(2, sum(config.in_channels), *config.patch_size)
    output = model(x)
    assert isinstance(output, TrainingOutput)
    shapes = [tuple(logits.shape) for logits in output.logits]
    assert shapes == [
        (2, config.num_classes, *extent) for extent in (config.patch_size, *config.grids[1:])
    ]
    assert output.reconstruction.shape == x.shape
    assert len(output.teacher_grams) == config.num_modalities
    loss = sum(logits.square().mean() for logits in output.logits)
    loss = loss + (output.reconstruction - x).square().mean()
    loss = loss + sum((g - output.student_gram).square().sum() for g in output.teacher_grams)
    loss.backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert without == []
    # a bias before an instance norm moves nothing, every weight does something
    idle = [
        name
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and not parameter.grad.any()
    ]
    assert idle == []


@pytest.mark.parametrize("sizes", GENERAL, ids=NAMES)
def test_the_bare_network_returns_logits_in_training_and_in_evaluation(sizes):
    config = NetworkConfig(**sizes, **NO_DROPOUT)
    network = VeloxSeg(config)
    x = torch.randn(1, sum(config.in_channels), *config.patch_size)
    with torch.no_grad():
        training, evaluation = network.train()(x), network.eval()(x)
    assert isinstance(training, torch.Tensor)
    assert training.shape == (1, config.num_classes, *config.patch_size)
    assert training.std() > 1e-2
    assert_close(training, evaluation)


def test_memory_format_and_batch_do_not_change_the_result():
    config = NetworkConfig(**THREE_STAGES, **NO_DROPOUT)
    model = DistillationModel(VeloxSeg(config))
    weight = model.network.decoder.ups[0][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    x = torch.randn(2, 4, *config.patch_size)
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model.network(sample[None]) for sample in x])
        model.to(memory_format=torch.contiguous_format)
        contiguous = model(x)
    # float32 through some thirty normalised layers: only the order of sums differs
    assert_close(together.logits[0], alone, rtol=1e-4, atol=1e-4)
    assert_close(tuple(together), tuple(contiguous), rtol=1e-4, atol=1e-4)


def test_memory_format_does_not_change_the_gradients():
    config = NetworkConfig(**TWO_STAGES, **NO_DROPOUT)
    x = torch.randn(2, 2, 8, 8, 8)
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last_3d):
        torch.manual_seed(0)
        model = DistillationModel(VeloxSeg(config)).to(memory_format=memory_format)
        output = model(x)
        loss = output.logits[0].square().mean() + output.logits[1].square().mean()
        (loss + (output.reconstruction - x).square().mean()).backward()
        gradients.append({k: p.grad for k, p in model.named_parameters() if k.endswith("weight")})
    for name, gradient in gradients[0].items():
        # float32: only the order of sums differs
        assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_the_model_and_its_bare_network_agree_and_so_does_segment():
    config = NetworkConfig(**TWO_STAGES, **NO_DROPOUT)
    model = DistillationModel(VeloxSeg(config)).eval()
    x = torch.randn(1, 2, 8, 8, 8)
    with torch.no_grad():
        output = model(x)
        assert torch.equal(model.network(x), output.logits[0])
        for ours, theirs in zip(model.segment(x), output.logits, strict=True):
            assert torch.equal(ours, theirs)


def test_attention_reaches_segmentation_through_the_mixers_alone():
    config = NetworkConfig(**TWO_STAGES, **NO_DROPOUT)
    network = VeloxSeg(config).eval()
    with torch.no_grad():
        for mixer in network.encoder.mixers:
            mixer[0].weight.zero_()
        x = torch.randn(1, 2, 8, 8, 8)
        before = network(x)
        for stem in network.encoder.attention.stems:
            stem.weight.mul_(-3)
        assert torch.equal(network(x), before)


def test_each_modality_reads_its_own_channels():
    config = NetworkConfig(**THREE_STAGES, **NO_DROPOUT)
    stems = VeloxSeg(config).encoder.attention.stems
    assert [stem.in_channels for stem in stems] == [1, 2, 1]
    model = VeloxSeg(config).eval()
    x = torch.randn(1, 4, *config.patch_size)
    changed = x.clone()
    changed[:, 1] += 1  # the first channel of the second modality
    first = {}
    model.encoder.attention.stages[0].register_forward_pre_hook(
        lambda _, inputs: first.__setitem__(len(first), inputs[0])
    )
    with torch.no_grad():
        model(x)
        model(changed)
    moved = (first[0] - first[1]).abs().amax((0, 2, 3, 4)) > 0
    assert moved.tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_the_network_works_on_a_patch_of_other_extents_that_windows_divide():
    config = NetworkConfig(**TWO_STAGES, **NO_DROPOUT)
    network = VeloxSeg(config).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 2, 8, 16, 24)).shape == (1, 2, 8, 16, 24)


def test_a_gram_matrix_is_the_scaled_product_of_features():
    f = torch.randn(2, 3, 2, 2, 5)
    flat = f.double().flatten(2)
    expected = torch.stack([sample @ sample.T / (3 * 20) for sample in flat])
    assert_close(gram(f), expected.float())
    assert_close(gram(torch.ones(1, 4, 2, 2, 2)), torch.full((1, 4, 4), 0.25))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gram_matrix_is_float32_and_finite_where_the_features_are_not_small(dtype):
    f = torch.full((1, 16, 8, 8, 8), 1e4, dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        matrix = gram(f)
    assert matrix.dtype == torch.float32
    # 2⁻⁸ is the precision of bfloat16's 1e4
    assert_close(matrix, torch.full((1, 16, 16), 1e8 / 16), rtol=2**-8, atol=0.0)


def test_nnunet_builds_the_network_that_a_plan_names():
    kwargs = NetworkConfig(**TWO_STAGES).to_json()
    del kwargs["num_classes"]
    assert NETWORK_CLASS_NAME == "veloxseg.network.plans.build_network"
    bare = build_network(2, 2, **kwargs)
    assert isinstance(bare, VeloxSeg)
    training = build_network(input_channels=2, num_classes=2, deep_supervision=True, **kwargs)
    assert isinstance(training, DistillationModel)
    assert bare.config == training.network.config == NetworkConfig(**TWO_STAGES)


def test_a_plan_for_other_channels_is_refused():
    kwargs = NetworkConfig(**TWO_STAGES).to_json()
    del kwargs["num_classes"]
    with pytest.raises(PlanError, match=r"2 channels.*\(1, 1\).*dataset has 3"):
        build_network(3, 2, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_training_output_is_finite_under_autocast(dtype):
    model = DistillationModel(VeloxSeg(NetworkConfig(**TWO_STAGES)))
    x = torch.randn(2, 2, 8, 8, 8) * 1e3
    with torch.autocast("cpu", dtype=dtype):
        output = model(x)
    assert output.student_gram.dtype == torch.float32
    for tensor in (*output.logits, output.reconstruction, output.student_gram):
        assert tensor.isfinite().all()
    F.mse_loss(output.reconstruction.float(), x).backward()
