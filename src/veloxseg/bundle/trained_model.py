"""What a bundle is made of: the networks of a run, their sizes, and how images reach them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from veloxseg.bundle.checkpoints import as_arrays, load_tensors
from veloxseg.bundle.format import Pipeline
from veloxseg.bundle.graph import network_graph
from veloxseg.bundle.pipeline import pipeline_from_plans
from veloxseg.bundle.verification import Run as RunPatches
from veloxseg.bundle.weights import Weights, round_to_fp16
from veloxseg.errors import BundleError
from veloxseg.installation import num_cores
from veloxseg.network.config import NetworkConfig
from veloxseg.network.inference import ArrayNetwork
from veloxseg.network.plans import NETWORK_CLASS_NAME
from veloxseg.network.size import count_multiply_adds
from veloxseg.network.veloxseg import VeloxSeg
from veloxseg.training.runs import FINAL, Run


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """What a bundle is made of.

    Attributes:
        config: The network's sizes, as trained.
        folds: Weights of each network to average.
        pipeline: How images become patches and logits a mask.
        has_fp16_weights: Whether float16 holds the weights as they are.
    """

    config: NetworkConfig
    folds: list[Weights]
    pipeline: Pipeline
    has_fp16_weights: bool = False

    @property
    def num_parameters(self) -> int:
        """Of one network."""
        return sum(weight.size for weight in self.folds[0].values())

    @property
    def multiply_adds(self) -> int:
        """Of one patch, all networks."""
        patch_size = self.pipeline.patch_size
        return len(self.folds) * count_multiply_adds(self.config, patch_size=patch_size)

    def with_fp16_weights(self) -> "TrainedModel":
        """The same with its weights rounded to float16; arithmetic stays float32.

        Raises:
            BundleError: a weight is beyond float16.
        """
        folds: list[Weights] = [round_to_fp16(weights) for weights in self.folds]
        return replace(self, folds=folds, has_fp16_weights=True)

    def graph(self, *, relative: bool = False) -> onnx.ModelProto:
        """The model as ONNX."""
        patch_size = self.pipeline.patch_size
        return network_graph(self.config, self.folds, patch_size=patch_size, relative=relative)

    def reference(self) -> RunPatches:
        """The networks in PyTorch, on the processor."""
        return ArrayNetwork(self.config, self.folds, threads=num_cores(), device="cpu").run


def load_run(run: Run) -> TrainedModel:
    """Read the networks of a run and its plan.

    Raises:
        BundleError: another network than VeloxSeg, a plan that cannot be exported, or checkpoints
            that are damaged or do not fit it.
    """
    plans, configuration = run.plans, run.folder.name.split("__")[-1]
    architecture = _architecture(run, plans, configuration)
    checkpoints = [load_tensors(run.folder / f"fold_{fold}" / FINAL) for fold in run.folds]
    pipeline = pipeline_from_plans(
        plans,
        configuration,
        run.description,
        mirror_axes=checkpoints[0].get("inference_allowed_mirroring_axes") or (),
    )
    config = _config(architecture, pipeline, where=run.folder)
    folds = [
        _weights_of_run(checkpoint, config, where=run.folder / f"fold_{fold}")
        for fold, checkpoint in zip(run.folds, checkpoints, strict=True)
    ]
    return TrainedModel(config=config, folds=folds, pipeline=pipeline)


def _architecture(run: Run, plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    settings = plans.get("configurations", {}).get(configuration, {})
    architecture = settings.get("architecture", {})
    found = architecture.get("network_class_name", settings.get("UNet_class_name", "not named"))
    if found != NETWORK_CLASS_NAME:
        raise BundleError(
            f"{run.folder}: its network is {found}. Expected {NETWORK_CLASS_NAME}: only VeloxSeg "
            "networks are exported. Predict with it by nnUNetv2_predict, or train a VeloxSeg one: "
            "veloxseg run DATASET"
        )
    arguments: dict[str, Any] = architecture["arch_kwargs"]
    return arguments


def _config(architecture: Mapping[str, Any], pipeline: Pipeline, *, where: Path) -> NetworkConfig:
    try:
        config = NetworkConfig(num_classes=pipeline.num_classes, **architecture)
    except TypeError as error:
        raise BundleError(
            f"{where}: plans.json does not describe a network of this version ({error}). Export "
            "with the version that trained it, or upgrade: pip install --upgrade veloxseg"
        ) from error
    if sum(config.in_channels) != len(pipeline.channels):
        raise BundleError(
            f"{where}: the network takes {sum(config.in_channels)} channels, dataset.json names "
            f"{len(pipeline.channels)}. Expected files of one training. Copy the folder again."
        )
    return config


def _weights_of_run(
    checkpoint: Mapping[str, Any], config: NetworkConfig, *, where: Path
) -> Weights:
    network = VeloxSeg(config)
    try:
        weights = checkpoint["network_weights"]
        network.load_state_dict({k.removeprefix("module."): v for k, v in weights.items()})
    except (KeyError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{where}: the weights of {FINAL} do not fit the network of plans.json ({reason}). "
            "Expected both from one training. Copy the whole folder again."
        ) from error
    return as_arrays(network)
