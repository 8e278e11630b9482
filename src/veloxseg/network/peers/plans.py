"""The networks of other libraries as a plans file names them."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from torch import nn

from veloxseg.installation import require_packages
from veloxseg.network.config import Axes
from veloxseg.network.peers.adapter import PeerNetwork, PlainModel, SupervisedUNet
from veloxseg.network.peers.registry import (
    INSTALL_PEERS,
    PACKAGES,
    Peer,
    find_peer,
    require_channels,
)

PEER_CLASS_NAME = f"{__name__}.build_peer"


def build_peer(
    input_channels: int,
    num_classes: int,
    deep_supervision: bool = False,
    *,
    peer: str,
    multiple: Sequence[int],
    arguments: Mapping[str, Any],
    head_strides: Sequence[Sequence[int]] | None = None,
) -> nn.Module:
    """Build what a plan for a peer describes; nnU-Net calls this by its name.

    Args:
        input_channels: Channels of the dataset.
        num_classes: Outputs: labels with background, or regions.
        deep_supervision: Build the ``PlainModel`` for training, else the bare network.
        peer: Name of its row in the registry.
        multiple: What each axis of its input must be a multiple of, (z, y, x).
        arguments: All others of its constructor.
        head_strides: Voxels in a cell of each supervised head; None: it has one head, the output.

    Raises:
        PlanError: there is no such row, or the network cannot take that many channels.
        VeloxSegError: the library is not installed.
    """
    row = find_peer(peer)
    require_channels(row, input_channels)
    require_packages(*PACKAGES[row.library], install=INSTALL_PEERS)
    build = _build_monai if row.library == "monai" else _build_unet
    inner = build(row, input_channels, num_classes, arguments)
    z, y, x = multiple
    if head_strides is None:
        network = PeerNetwork(inner, multiple=(z, y, x))
    else:
        strides = [_axes(stride) for stride in head_strides]
        network = SupervisedUNet(inner, multiple=(z, y, x), head_strides=strides)
    return PlainModel(network, in_channels=input_channels) if deep_supervision else network


def _build_monai(
    row: Peer, input_channels: int, num_classes: int, arguments: Mapping[str, Any]
) -> nn.Module:
    module, _, name = row.class_name.rpartition(".")
    network: nn.Module = getattr(import_module(module), name)(
        in_channels=input_channels, out_channels=num_classes, **arguments
    )
    return network


def _build_unet(
    row: Peer, input_channels: int, num_classes: int, arguments: Mapping[str, Any]
) -> nn.Module:
    """By nnU-Net's own function, which initialises the weights, too."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    network: nn.Module = get_network_from_plans(
        row.class_name,
        dict(arguments),
        ("conv_op", "norm_op", "dropout_op", "nonlin"),
        input_channels,
        num_classes,
        deep_supervision=False,
    )
    return network


def _axes(stride: Sequence[int]) -> Axes:
    z, y, x = stride
    return (z, y, x)
