"""The network as a plans file names it."""

from typing import Any

from torch import nn

from veloxseg.errors import PlanError
from veloxseg.network.config import NetworkConfig
from veloxseg.network.distillation import DistillationModel
from veloxseg.network.veloxseg import VeloxSeg

NETWORK_CLASS_NAME = f"{__name__}.build_network"


def build_network(
    input_channels: int, num_classes: int, deep_supervision: bool = False, **config: Any
) -> nn.Module:
    """Build what the ``architecture`` of a VeloxSeg plan describes; nnU-Net calls this by its name.

    Args:
        input_channels: Channels of the dataset.
        num_classes: Outputs: labels with background, or regions.
        deep_supervision: Build the ``DistillationModel`` for training, else the bare network.
        config: The other fields of ``NetworkConfig``, as plain JSON values.

    Raises:
        PlanError: the plan and the dataset differ in their channels, or the sizes are illegal.
    """
    sizes = NetworkConfig(num_classes=num_classes, **config)
    if sum(sizes.in_channels) != input_channels:
        raise PlanError(
            f"The plan groups {sum(sizes.in_channels)} channels into modalities "
            f"{sizes.in_channels}, the dataset has {input_channels}. Plan it again: veloxseg plan."
        )
    network = VeloxSeg(sizes)
    return DistillationModel(network) if deep_supervision else network
