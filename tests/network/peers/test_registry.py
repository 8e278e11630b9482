"""Every row of the registry: built for a plan, its logits on the patch, a training step."""

import json

import pytest
import torch

from veloxseg import installation
from veloxseg.errors import PlanError, VeloxSegError
from veloxseg.network.peers.plans import PEER_CLASS_NAME, build_peer
from veloxseg.network.peers.registry import PEERS, find_peer
from veloxseg.planning.peer_plans import NETWORKS, peer_architecture
from veloxseg.training.objective import Objective

SLOW = {"unetr", "vnet", "nnunet_residual", "swinunetr", "swinunetr_24"}  # seconds each
ROWS = [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in PEERS]
EVERY_ROW = pytest.mark.parametrize("name", ROWS)

ISOTROPIC = {"patch_size": (12, 18, 20), "spacing": (1.0, 1.0, 1.0)}
ANISOTROPIC = {"patch_size": (6, 24, 16), "spacing": (4.0, 1.0, 1.0)}


def build(name, plan, *, channels=1, classes=2, training=True):
    """As nnU-Net does: from what a plans file keeps."""
    pytest.importorskip("monai")
    pytest.importorskip("einops")
    torch.manual_seed(0)
    architecture, _ = peer_architecture(PEERS[name], **plan)
    kwargs = json.loads(json.dumps(architecture["arch_kwargs"]))
    assert architecture["network_class_name"] == PEER_CLASS_NAME
    return build_peer(channels, classes, training, **kwargs)


def step(model, image, target, **objective):
    """Gradients of nnU-Net's loss, applied; returns what the weights moved by, in all."""
    loss = Objective(in_channels=(1,), num_heads=len(model.head_scales), **objective)
    extents = [
        [round(s * e) for s, e in zip(scale, image.shape[2:], strict=True)]
        for scale in model.head_scales
    ]
    targets = [torch.nn.functional.interpolate(target, extent) for extent in extents]
    before = [p.detach().clone() for p in model.parameters()]
    model.train()
    total = loss(model(image), targets, image).total
    total.backward()
    assert torch.isfinite(total)
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    after = model.parameters()
    return sum((a - b).abs().sum().item() for a, b in zip(after, before, strict=True))


@EVERY_ROW
def test_a_network_of_one_channel_and_labels_is_trained_on_an_isotropic_patch(name):
    model = build(name, ISOTROPIC, classes=3)
    image = torch.randn(1, 1, *ISOTROPIC["patch_size"])
    labels = torch.randint(0, 3, (1, 1, *ISOTROPIC["patch_size"])).float()
    assert step(model, image, labels) > 0


@EVERY_ROW
def test_a_network_of_two_channels_and_regions_is_trained_on_an_anisotropic_patch(name):
    model = build(name, ANISOTROPIC, channels=2, classes=2)
    image = torch.randn(1, 2, *ANISOTROPIC["patch_size"])
    regions = torch.randint(0, 2, (1, 2, *ANISOTROPIC["patch_size"])).float()
    assert step(model, image, regions, regions=True) > 0


@EVERY_ROW
def test_the_bare_network_takes_the_weights_of_the_trained_one_and_gives_logits(name):
    trained = build(name, ANISOTROPIC, channels=2, classes=4).eval()
    bare = build(name, ANISOTROPIC, channels=2, classes=4, training=False).eval()
    bare.load_state_dict(trained.network.state_dict())
    patch = torch.randn(1, 2, *ANISOTROPIC["patch_size"])
    with torch.no_grad():
        logits = bare(patch)
        heads = trained.segment(patch)
    assert logits.shape == (1, 4, *ANISOTROPIC["patch_size"])
    assert logits.std() > 1e-3
    assert torch.equal(heads[0], logits)


def test_nnunets_networks_are_supervised_at_their_own_scales():
    model = build("nnunet", {"patch_size": (40, 56, 40), "spacing": (1.0, 1.0, 1.0)}).eval()
    assert model.head_scales == ((1, 1, 1), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    with torch.no_grad():
        heads = model.segment(torch.randn(1, 1, 40, 56, 40))
    assert [tuple(h.shape[2:]) for h in heads] == [(40, 56, 40), (20, 28, 20), (10, 14, 10)]


def test_the_plain_network_has_the_parameters_of_nnunets_own_for_that_patch():
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    ours = build("nnunet", {"patch_size": (40, 56, 40), "spacing": (1.0, 1.0, 1.0)})
    theirs = PlainConvUNet(
        input_channels=1,
        n_stages=4,
        features_per_stage=[32, 64, 128, 256],
        conv_op=torch.nn.Conv3d,
        kernel_sizes=3,
        strides=[1, 2, 2, 2],
        n_conv_per_stage=2,
        num_classes=2,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
    )
    ours_shapes = sorted(tuple(p.shape) for p in ours.parameters())
    assert ours_shapes == sorted(tuple(p.shape) for p in theirs.parameters())


def test_a_name_that_no_row_has_is_answered_with_all_names():
    with pytest.raises(PlanError, match="'nope'") as raised:
        find_peer("nope")
    assert all(name in str(raised.value) for name in PEERS)


def test_channels_that_a_network_cannot_take_are_refused():
    with pytest.raises(PlanError, match="V-Net takes 1, 2, 4, 8, 16 channels, the dataset has 3"):
        build("vnet", ISOTROPIC, channels=3)


def test_a_library_that_is_missing_is_named_with_the_extra_that_has_it(monkeypatch):
    architecture, _ = peer_architecture(PEERS["segresnet"], **ISOTROPIC)
    monkeypatch.setattr(installation, "find_spec", lambda name: None if name == "monai" else name)
    with pytest.raises(VeloxSegError, match=r"needs monai.*veloxseg\[peers\]"):
        build_peer(1, 2, **architecture["arch_kwargs"])


def test_every_row_says_where_its_network_comes_from():
    for peer in PEERS.values():
        assert peer.paper
        assert peer.licence == "Apache-2.0"
        assert peer.class_name.split(".")[0] in ("monai", "dynamic_network_architectures")
        assert peer.name in NETWORKS
