"""Plans of other networks, derived from a dataset's VeloxSeg plan: only the network differs.

A derived plan is a plans file of its own beside the dataset's, so that nnU-Net's commands run it,
too. Patch, batch, spacing, normalisation, augmentation, folds and schedule are those of the
dataset's plan, and so are the preprocessed cases. ``nnunet_own`` alone is another plan altogether:
what nnU-Net itself would train.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from veloxseg.atomic import read_json, write_json
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import PlanError
from veloxseg.network.config import Axes, NetworkConfig
from veloxseg.network.peers.registry import PEERS, Peer, legal_extent
from veloxseg.planning.files import (
    CONFIGURATION,
    DECISIONS_KEY,
    PLANS_NAME,
    plans_file,
    preprocessing_settings,
    read_plans,
)
from veloxseg.planning.network_plan import Decision
from veloxseg.planning.recipe import RECIPE_KEY, recipe_of
from veloxseg.planning.rules import Size, make_network
from veloxseg.planning.unet_rules import UNetStages, plan_unet

VELOXSEG = "veloxseg"
NNUNET_OWN = "nnunet_own"

SIZES: dict[str, Size] = {"veloxseg_s": "S", "veloxseg_b": "B", "veloxseg_l": "L"}

NETWORKS = (VELOXSEG, *SIZES, *PEERS, NNUNET_OWN)
"""What ``--network`` takes."""

_PEER_CLASS_NAME = "veloxseg.network.peers.plans.build_peer"
_NNUNET_RECIPE = {
    "optimizer": "sgd",
    "schedule": "poly",
    "learning_rate": 1e-2,
    "weight_decay": 3e-5,
    "epochs": 1000,
    "steps_per_epoch": 250,
    "foreground_share": 0.33,
    "augmentation": "nnunet",
    "teachers": "off",
}
"""How nnU-Net 2 trains; its objective is the segmentation part of ours."""


def require_network(network: str) -> None:
    """Check a network's name.

    Raises:
        PlanError: there is none of that name.
    """
    if network not in NETWORKS:
        raise PlanError(
            f"--network: there is no '{network}'. Expected one of {', '.join(NETWORKS)}."
        )


def network_plans_name(network: str) -> str:
    """The name of a network's plans: the dataset's own, or a derived one's.

    Raises:
        PlanError: there is no network of that name.
    """
    require_network(network)
    return PLANS_NAME if network == VELOXSEG else f"{PLANS_NAME}_{network}"


def network_plans(workspace: Workspace, name: str, network: str) -> dict[str, Any]:
    """The plan of a dataset for a network; a derived one is written beside the dataset's own.

    Args:
        workspace: nnU-Net's folders, as exported.
        name: Full name of a planned dataset.
        network: One of ``NETWORKS``.

    Raises:
        PlanError: there is no such network, the dataset has no plan, or the plan has no such size.
    """
    require_network(network)
    plans = read_plans(workspace, name)
    if network == VELOXSEG:
        return plans
    derived = (
        _own_plans(plans, name) if network == NNUNET_OWN else derive_plans(plans, network=network)
    )
    file = plans_file(workspace, name, network_plans_name(network))
    if not file.is_file() or read_json(file) != derived:
        write_json(file, derived)
    return derived


def derive_plans(plans: Mapping[str, Any], *, network: str) -> dict[str, Any]:
    """The plan with another network in it.

    Args:
        plans: A dataset's VeloxSeg plan.
        network: A size of VeloxSeg, or a peer's name.

    Raises:
        PlanError: the plan's network is not one of the planned sizes, so it has no others.
    """
    derived = copy.deepcopy(dict(plans))
    derived["plans_name"] = network_plans_name(network)
    configuration = derived["configurations"][CONFIGURATION]
    if network in SIZES:
        arguments = _resized(configuration["architecture"]["arch_kwargs"], SIZES[network])
        configuration["architecture"]["arch_kwargs"] = arguments
        why = f"size {SIZES[network]} of the planned network"
    else:
        _put_peer(configuration, PEERS[network])
        why = f"{PEERS[network].title}: {PEERS[network].paper}; all else is {PLANS_NAME}'s"
    _put_decision(configuration, network, why)
    return derived


def peer_architecture(
    peer: Peer, *, patch_size: Axes, spacing: Sequence[float]
) -> tuple[dict[str, Any], tuple[float, ...] | None]:
    """The ``architecture`` of a plan for a peer, and weights of its heads if it has several.

    Args:
        peer: A row of the registry.
        patch_size: In voxels.
        spacing: mm, axes as the patch's.
    """
    if peer.library == "nnunet":
        residual = peer.class_name.endswith("ResidualEncoderUNet")
        stages = plan_unet(patch_size, spacing, residual=residual)
        return _unet_architecture(peer, stages), stages.head_weights
    multiple = (peer.multiple,) * 3
    arguments = dict(peer.arguments)
    if peer.extent_argument is not None:
        arguments[peer.extent_argument] = list(legal_extent(patch_size, multiple))
    return _architecture(peer, multiple=multiple, arguments=arguments), None


def _put_peer(configuration: dict[str, Any], peer: Peer) -> None:
    z, y, x = configuration["patch_size"]
    architecture, weights = peer_architecture(
        peer, patch_size=(z, y, x), spacing=configuration["spacing"]
    )
    configuration["architecture"] = architecture
    recipe = {"teachers": "off", "head_weights": weights, **peer.recipe}
    configuration[RECIPE_KEY] = _checked(
        {**recipe_of(configuration).model_dump(mode="json"), **recipe}
    )


def _unet_architecture(peer: Peer, stages: UNetStages) -> dict[str, Any]:
    return _architecture(
        peer,
        multiple=stages.multiple,
        arguments={**peer.arguments, **stages.arguments},
        head_strides=[list(stride) for stride in stages.head_strides],
    )


def _architecture(peer: Peer, *, multiple: Axes, **kwargs: Any) -> dict[str, Any]:
    return {
        "network_class_name": _PEER_CLASS_NAME,
        "arch_kwargs": {"peer": peer.name, "multiple": list(multiple), **kwargs},
        "_kw_requires_import": [],
    }


def _checked(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as JSON values, with all its keys."""
    return recipe_of({RECIPE_KEY: dict(recipe)}).model_dump(mode="json")


def _resized(arguments: Mapping[str, Any], size: Size) -> dict[str, Any]:
    """The planned network in another size, by the same rules.

    Raises:
        PlanError: the rules have not made it: its sizes are a preset's or published ones.
    """
    planned = NetworkConfig(num_classes=1, **arguments)
    sizes = {
        one: make_network(
            patch_size=planned.patch_size,
            in_channels=planned.in_channels,
            num_classes=1,
            stem=planned.stem_stride,
            strides=planned.strides,
            size=one,
        )
        for one in SIZES.values()
    }
    if planned not in sizes.values():
        raise PlanError(
            f"--network veloxseg_{size.lower()}: the sizes of the plan's network are given, not "
            "planned, so it has no others. Leave --network out, or plan by the rules: veloxseg "
            "plan without --preset and --published."
        )
    network = sizes[size].to_json()
    del network["num_classes"]
    return network


def _own_plans(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """nnU-Net's own plan, its preprocessed cases shared where they are made alike."""
    from veloxseg.planning.nnunet_own import plan_by_nnunet

    derived = plan_by_nnunet(name, plans_name=network_plans_name(NNUNET_OWN))
    configuration = derived["configurations"][CONFIGURATION]
    if preprocessing_settings(derived) == preprocessing_settings(plans):
        shared = plans["configurations"][CONFIGURATION]["data_identifier"]
        configuration["data_identifier"] = shared
    z, y, x = configuration["patch_size"]
    stages = UNetStages(
        arguments=configuration["architecture"]["arch_kwargs"], patch_size=(z, y, x)
    )
    configuration["architecture"] = _unet_architecture(PEERS["nnunet"], stages)
    configuration[RECIPE_KEY] = _checked(
        {
            **_NNUNET_RECIPE,
            "head_weights": stages.head_weights,
            "channel_dropout": recipe_of(plans["configurations"][CONFIGURATION]).channel_dropout,
        }
    )
    _put_decision(configuration, NNUNET_OWN, "all as nnU-Net's own planner and trainer have it")
    return derived


def _put_decision(configuration: dict[str, Any], network: str, why: str) -> None:
    decision = Decision(what="network", value=network, why=why)
    configuration[DECISIONS_KEY] = [decision.to_json()]
