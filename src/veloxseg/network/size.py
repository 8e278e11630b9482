"""How large a network is."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from veloxseg.network.config import Axes, NetworkConfig
from veloxseg.network.plans import build_network
from veloxseg.network.veloxseg import VeloxSeg


def count_parameters(arch_kwargs: Mapping[str, Any], *, num_classes: int) -> int:
    """Parameters of the bare network that a plan's ``arch_kwargs`` describe; no memory is taken."""
    with torch.device("meta"):
        network = build_network(sum(arch_kwargs["in_channels"]), num_classes, **arch_kwargs)
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiply_adds(config: NetworkConfig, *, patch_size: Axes | None = None) -> int:
    """Multiply-adds of one patch through the bare network, as PyTorch counts them while it runs.

    Args:
        config: Of the network.
        patch_size: Extent of the patch if it is not the trained one.
    """
    network = VeloxSeg(config).eval()
    patch = torch.zeros(1, sum(config.in_channels), *(patch_size or config.patch_size))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(patch)
    return int(counter.get_total_flops()) // 2
