"""The networks of a bundle, for who builds them anew."""

import json

from safetensors.numpy import load

from veloxseg.bundle.format import NETWORK, WEIGHTS
from veloxseg.bundle.reading import Bundle
from veloxseg.bundle.weights import Weights, split_folds
from veloxseg.network.config import NetworkConfig


def read_networks(bundle: Bundle) -> tuple[NetworkConfig, list[Weights]]:
    """The sizes of a bundle's networks, and each one's weights as float32."""
    config = NetworkConfig(**json.loads(bundle.read(NETWORK)))
    return config, [*split_folds(load(bundle.read(WEIGHTS)))]
