"""Published configurations and checkpoints as models to export."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json
from veloxseg.bundle.checkpoints import as_arrays, load_tensors
from veloxseg.bundle.format import Normalisation
from veloxseg.bundle.pipeline import OVERLAP, validated_pipeline
from veloxseg.bundle.trained_model import TrainedModel
from veloxseg.errors import BundleError
from veloxseg.network.config import Axes
from veloxseg.network.published import load_published, published_config

_TRANSPOSE = (2, 1, 0)


@dataclass(frozen=True, kw_only=True)
class PublishedCase:
    """What images a published network takes and what its classes mean: no checkpoint says so.

    Published networks read arrays in (X, Y, Z), so all that is given by axis is given in that
    order, the network's own.

    Attributes:
        channels: Names of the images of a case.
        labels: Name to value, without background.
        spacing_xyz: Of the network's grid in mm.
        normalisation: One for each channel.
        patch_size_xyz: Extent of the input if it is not the trained one.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, int]
    spacing_xyz: tuple[float, float, float]
    normalisation: tuple[Normalisation, ...]
    patch_size_xyz: Axes | None = None


def load_published_model(config: Path, checkpoint: Path, case: PublishedCase) -> TrainedModel:
    """Read a published configuration and its weights.

    Raises:
        PlanError: the configuration cannot be built, or the weights do not fit it.
        BundleError: a file is damaged, or the case does not fit the network.
    """
    content = _inner_dictionary(read_json(config))
    sizes = published_config(content)
    network = load_published(content, load_tensors(checkpoint)).network
    pipeline = validated_pipeline(
        f"{config} and the options",
        channels=case.channels,
        labels={"background": 0, **case.labels},
        transpose=_TRANSPOSE,
        spacing=case.spacing_xyz,
        normalisation=case.normalisation,
        patch_size=case.patch_size_xyz or sizes.patch_size,
        overlap=OVERLAP,
    )
    expected = (sum(sizes.in_channels), sizes.num_classes)
    if (len(pipeline.channels), pipeline.num_classes) != expected:
        raise BundleError(
            f"{config}: a network of {expected[0]} channels and {expected[1]} classes. The options "
            f"name {len(pipeline.channels)} channels and, with background, {pipeline.num_classes} "
            "classes. Give --channel once for each channel and --label for each class but the "
            "background."
        )
    return TrainedModel(config=sizes, folds=[as_arrays(network)], pipeline=pipeline)


def _inner_dictionary(content: Any) -> Mapping[str, Any]:
    """The sizes in a published model JSON, which may stand under the model's name."""
    if isinstance(content, dict) and "in_ch" not in content:
        inner = [v for v in content.values() if isinstance(v, dict) and "in_ch" in v]
        if len(inner) == 1:
            return inner[0]
    if not isinstance(content, dict):
        raise BundleError(
            f"The model JSON holds a {type(content).__name__}. Expected the keys of a published "
            "configuration, such as in_ch, n_classes and input_size."
        )
    return content
