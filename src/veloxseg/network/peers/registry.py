"""The networks that VeloxSeg is compared with: a row each. Adding one is adding a row.

Every network comes from the library that keeps it, under that library's licence. Sizes are the
library's defaults unless a row says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from veloxseg.errors import PlanError

Library = Literal["monai", "nnunet"]

PACKAGES: dict[Library, tuple[str, ...]] = {
    "monai": ("monai", "einops"),
    "nnunet": ("nnunetv2", "dynamic_network_architectures"),
}
"""What has to be installed for the networks of a library, as it is imported."""

INSTALL_PEERS = 'pip install "veloxseg[peers]"'


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A network of another library.

    Attributes:
        name: As ``--network`` takes it.
        title: As its authors write it.
        library: Where it comes from: ``nnunet`` has its U-Nets' stages planned for the patch by
            nnU-Net's own rules, ``monai`` its sizes fixed.
        class_name: Import path.
        arguments: Of its constructor, plain JSON values, without channels and classes.
        multiple: What each axis of its input must be a multiple of; the patch is filled up with
            zeros to the next one. With ``nnunet`` the planned stages say it.
        extent_argument: The argument that takes the extent of the input, if there is one.
        legal_channels: Input channels that it can take; none: any.
        recipe: What its training must have other than the plan's.
        licence: SPDX.
        paper: Where it was published.
    """

    name: str
    title: str
    library: Library
    class_name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    multiple: int = 1
    extent_argument: str | None = None
    legal_channels: tuple[int, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "Apache-2.0"
    paper: str

    def takes(self, channels: int) -> bool:
        """Whether its input may have that many channels."""
        return not self.legal_channels or channels in self.legal_channels


_MONAI = "monai.networks.nets"
_UNETS = "dynamic_network_architectures.architectures.unet"

# As nnU-Net 2 plans its U-Nets (its planners of both encoders); stages come from the patch.
_UNET = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}

_SEGRESNET = {"blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]}

# Below the planned rate: docs/peers.md has what that rests on, and how little for some.
_LOWER_RATE = {"learning_rate": 1e-3}

_ROWS = (
    Peer(
        name="nnunet",
        title="nnU-Net, plain encoder",
        library="nnunet",
        class_name=f"{_UNETS}.PlainConvUNet",
        arguments=_UNET,
        recipe=_LOWER_RATE,
        paper="Isensee et al., Nature Methods 18, 2021",
    ),
    Peer(
        name="nnunet_residual",
        title="nnU-Net, residual encoder",
        library="nnunet",
        class_name=f"{_UNETS}.ResidualEncoderUNet",
        arguments=_UNET,
        recipe=_LOWER_RATE,
        paper="Isensee et al., MICCAI 2024, arXiv 2404.09556",
    ),
    Peer(
        name="basicunet",
        title="BasicUNet",
        library="monai",
        class_name=f"{_MONAI}.BasicUNet",
        multiple=16,
        paper="Falk et al., Nature Methods 16, 2019",
    ),
    Peer(
        name="segresnet",
        title="SegResNet, 16 filters",
        library="monai",
        class_name=f"{_MONAI}.SegResNet",
        arguments=_SEGRESNET | {"init_filters": 16},  # as in MONAI's model zoo for brain tumours
        multiple=8,
        recipe=_LOWER_RATE,
        paper="Myronenko, BrainLes 2018, arXiv 1810.11654",
    ),
    Peer(
        name="segresnet_8",
        title="SegResNet, 8 filters",
        library="monai",
        class_name=f"{_MONAI}.SegResNet",
        arguments=_SEGRESNET | {"init_filters": 8},  # the library's default
        multiple=8,
        recipe=_LOWER_RATE,
        paper="Myronenko, BrainLes 2018, arXiv 1810.11654",
    ),
    Peer(
        name="vnet",
        title="V-Net",
        library="monai",
        class_name=f"{_MONAI}.VNet",
        multiple=16,
        legal_channels=(1, 2, 4, 8, 16),
        paper="Milletari et al., 3DV 2016, arXiv 1606.04797",
    ),
    Peer(
        name="unetr",
        title="UNETR",
        library="monai",
        class_name=f"{_MONAI}.UNETR",
        multiple=16,
        extent_argument="img_size",
        recipe=_LOWER_RATE,
        paper="Hatamizadeh et al., WACV 2022, arXiv 2103.10504",
    ),
    Peer(
        name="swinunetr",
        title="SwinUNETR, 12 features",
        library="monai",
        class_name=f"{_MONAI}.SwinUNETR",
        arguments={"feature_size": 12},  # the smallest that it takes
        multiple=32,
        recipe=_LOWER_RATE,
        paper="Hatamizadeh et al., BrainLes 2021, arXiv 2201.01266",
    ),
    Peer(
        name="swinunetr_24",
        title="SwinUNETR, 24 features",
        library="monai",
        class_name=f"{_MONAI}.SwinUNETR",
        arguments={"feature_size": 24},  # the library's default
        multiple=32,
        recipe=_LOWER_RATE,
        paper="Hatamizadeh et al., BrainLes 2021, arXiv 2201.01266",
    ),
    Peer(
        name="mednext_s",
        title="MedNeXt-S, kernel 3",
        library="monai",
        class_name=f"{_MONAI}.MedNeXtS",
        arguments={"kernel_size": 3},
        multiple=16,
        paper="Roy et al., MICCAI 2023, arXiv 2303.09975",
    ),
)

PEERS: dict[str, Peer] = {row.name: row for row in _ROWS}


def find_peer(name: str) -> Peer:
    """The row of a name.

    Raises:
        PlanError: there is none.
    """
    if name not in PEERS:
        raise PlanError(f"The network is '{name}'. Expected one of {', '.join(PEERS)}.")
    return PEERS[name]


def require_channels(peer: Peer, channels: int) -> None:
    """Check that a network can take the channels of a dataset.

    Raises:
        PlanError: it cannot.
    """
    if not peer.takes(channels):
        raise PlanError(
            f"{peer.title} takes {', '.join(map(str, peer.legal_channels))} channels, the dataset "
            f"has {channels}. Compare with another network."
        )


def legal_extent(extent: Sequence[int], multiple: Sequence[int]) -> tuple[int, ...]:
    """The smallest extent, not below the given one, of whole multiples.

    The last axis has two of them where all have one: a network cannot normalise a single position.
    """
    cells = [-(-e // m) for e, m in zip(extent, multiple, strict=True)]
    if max(cells) == 1 and max(multiple) > 1:
        cells[-1] = 2
    return tuple(c * m for c, m in zip(cells, multiple, strict=True))
