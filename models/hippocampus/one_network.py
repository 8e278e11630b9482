"""One of the shipped model's networks as a bundle of its own."""

from pathlib import Path

from veloxseg.bundle.format import NETWORK, PIPELINE, model_file
from veloxseg.bundle.model_files import make_float32
from veloxseg.bundle.networks import read_networks
from veloxseg.bundle.reading import open_bundle
from veloxseg.bundle.trained_model import TrainedModel
from veloxseg.bundle.writing import write_bundle


def write_network(model: Path, fold: int, target: Path) -> None:
    """Write a bundle of the network that was trained on one fold.

    Args:
        model: A bundle of all folds, its weights in float16.
        fold: Which of them.
        target: The bundle to make.

    Raises:
        BundleError: there is no such bundle, or its network does not compute what it should.
    """
    shipped = open_bundle(model)
    config, folds = read_networks(shipped)
    one = TrainedModel(
        config=config,
        folds=[folds[fold]],
        pipeline=shipped.pipeline,
        has_fp16_weights=True,
    )
    graph, verification = make_float32(one, [])
    name = model_file("float32")
    about = {
        "name": f"{model.stem}_fold_{fold}",
        "source": f"Network {fold} of {model.stem}. {shipped.manifest.source}",
        "multiply_adds": one.multiply_adds,
        "evaluation": {},
        "verification": {name: verification},
    }
    files = {part: shipped.read(part) for part in (PIPELINE, NETWORK)}
    write_bundle(target, {**files, name: graph}, shipped.manifest.model_copy(update=about))
