"""How large the network of a plan is."""

from collections.abc import Mapping
from typing import Any

import torch

from veloxseg.network.plans import build_network


def count_parameters(arch_kwargs: Mapping[str, Any], *, num_classes: int) -> int:
    """Parameters of the bare network that a plan's ``arch_kwargs`` describe; no memory is taken."""
    with torch.device("meta"):
        network = build_network(sum(arch_kwargs["in_channels"]), num_classes, **arch_kwargs)
    return sum(parameter.numel() for parameter in network.parameters())
