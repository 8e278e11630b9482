"""How large and how fast VeloxSeg and other networks are in PyTorch, on one patch of one plan.

All of them are measured alike: float32, no gradients, one patch at a time, each in a process of its
own. The processes take turns, so that what else the machine does falls on all of them, and a
network's ratio is to the VeloxSeg network of the same round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from veloxseg.datasets.description import read_description
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import PlanError, VeloxSegError
from veloxseg.installation import module_version
from veloxseg.network.config import Axes
from veloxseg.network.peers.registry import INSTALL_PEERS, PEERS, require_channels
from veloxseg.planning.files import CONFIGURATION, read_plans
from veloxseg.planning.peer_plans import SIZES, VELOXSEG, derive_plans
from veloxseg.planning.rules import make_network, stage_strides, whole_patch
from veloxseg.runtime.machine import describe_machine
from veloxseg.runtime.measuring_process import MeasurementError, run_measurement
from veloxseg.runtime.peer_benchmark_worker import job_words

COMPARED = (VELOXSEG, *SIZES, *PEERS)
"""Networks that can be measured; without being asked, VeloxSeg and those of other libraries are."""

_ROUNDS = 3
_STEM: Axes = (4, 4, 4)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What networks are compared on.

    Attributes:
        plans: A VeloxSeg plan, as far as networks depend on it.
        channels: Of the input.
        classes: Outputs.
    """

    plans: Mapping[str, Any]
    channels: int
    classes: int

    @property
    def patch_size(self) -> Axes:
        """Extent of the input in voxels."""
        z, y, x = self.plans["configurations"][CONFIGURATION]["patch_size"]
        return (z, y, x)

    def architecture(self, network: str) -> dict[str, Any]:
        """How a plan describes a network."""
        plans = self.plans
        if network != VELOXSEG:
            plans = derive_plans(plans, network=network)
        architecture: dict[str, Any] = plans["configurations"][CONFIGURATION]["architecture"]
        return architecture


@dataclass(frozen=True, kw_only=True)
class NetworkSpeed:
    """What was measured of a network.

    Attributes:
        network: Its name.
        parameters: Numbers that are trained.
        multiply_adds: Of one patch, as PyTorch counts matrix products and convolutions.
        input_size: The patch as the network takes it, zeros appended.
        num_runs: Patches that were timed.
        patches_per_second: Median over all runs.
        patches_per_second_min: Of the slowest run.
        patches_per_second_max: Of the fastest run.
        ratio_to_veloxseg: Its rate over VeloxSeg's, the median over the rounds; None where VeloxSeg
            was not measured.
        peak_memory_mb: Of the whole process, Python and PyTorch included; None where the system
            does not say.
    """

    network: str
    parameters: int
    multiply_adds: int
    input_size: tuple[int, ...]
    num_runs: int
    patches_per_second: float
    patches_per_second_min: float
    patches_per_second_max: float
    ratio_to_veloxseg: float | None
    peak_memory_mb: float | None


@dataclass(frozen=True, kw_only=True)
class PeerBenchmark:
    """What was measured of all networks.

    Attributes:
        patch_size: Extent of the patch.
        channels: Of the input.
        classes: Outputs.
        threads: Threads that each computed with.
        machine: See :func:`~veloxseg.runtime.machine.describe_machine`; with PyTorch's version.
        networks: One each.
    """

    patch_size: Axes
    channels: int
    classes: int
    threads: int
    machine: dict[str, Any]
    networks: tuple[NetworkSpeed, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return asdict(self)


def comparison_of_dataset(dataset: str, *, workspace: Workspace) -> Comparison:
    """Networks for the plan of a dataset.

    Raises:
        DatasetError: there is no such dataset.
        PlanError: it has no plan.
    """
    name = workspace.dataset_name(dataset)
    description = read_description(workspace.raw / name)
    left_out = {"ignore"} | ({"background"} if description.regions_class_order else set())
    classes = len(set(description.labels) - left_out)
    return Comparison(
        plans=read_plans(workspace, name),
        channels=len(description.channel_names),
        classes=classes,
    )


def comparison_of_patch(patch_size: Axes, *, channels: int = 1, classes: int = 2) -> Comparison:
    """Networks for a patch of 1 mm voxels; VeloxSeg's is the base size with the published stem.

    Args:
        patch_size: In voxels.
        channels: Of the input, each a modality of its own.
        classes: Outputs.

    Raises:
        PlanError: VeloxSeg has no network for that patch, or a number is not positive.
    """
    if min(*patch_size, channels, classes) < 1:
        raise PlanError("The patch, its channels and classes must be positive.")
    legal = _legal_patch(patch_size)
    if legal != patch_size:
        raise PlanError(
            f"--patch {_commas(patch_size)}: VeloxSeg with a stem of 4 voxels takes whole cells. "
            f"The next patch is {_commas(legal)}."
        )
    network = make_network(
        patch_size=patch_size,
        in_channels=(1,) * channels,
        num_classes=classes,
        stem=_STEM,
        strides=_strides(patch_size),
        size="B",
    ).to_json()
    del network["num_classes"]
    architecture = {
        "network_class_name": "veloxseg.network.plans.build_network",
        "arch_kwargs": network,
        "_kw_requires_import": [],
    }
    configuration = {
        "patch_size": list(patch_size),
        "spacing": [1.0, 1.0, 1.0],
        "architecture": architecture,
    }
    return Comparison(
        plans={"configurations": {CONFIGURATION: configuration}}, channels=channels, classes=classes
    )


def benchmark_peers(
    comparison: Comparison,
    *,
    networks: Sequence[str] = (),
    threads: int = 1,
    seconds: float = 2.0,
    rounds: int = _ROUNDS,
    progress: Callable[[float, int], None] | None = None,
) -> PeerBenchmark:
    """Measure VeloxSeg and other networks, taking turns.

    Args:
        comparison: What they are compared on.
        networks: Names; none: VeloxSeg and all peers that can take the channels.
        threads: Threads to compute with.
        seconds: Shortest time to run each network for in a round; three runs are the fewest.
        rounds: How often each has its turn.
        progress: Called with the number of measurements done and that of all.

    Raises:
        PlanError: there is no network of a name, or it cannot take the plan's channels.
        VeloxSegError: a library is not installed, or a measurement failed.
    """
    able = [name for name, peer in PEERS.items() if peer.takes(comparison.channels)]
    names = list(dict.fromkeys(networks or (VELOXSEG, *able)))
    for name in names:
        if name not in COMPARED:
            raise PlanError(
                f"--network: there is no '{name}'. Expected one of {', '.join(COMPARED)}."
            )
        if name in PEERS:
            require_channels(PEERS[name], comparison.channels)
    architectures = {name: comparison.architecture(name) for name in names}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(rounds):
        for place, name in enumerate(names):
            if progress is not None:
                progress(turn * len(names) + place, rounds * len(names))
            words = job_words(
                architectures[name],
                channels=comparison.channels,
                classes=comparison.classes,
                patch_size=comparison.patch_size,
                threads=threads,
                seconds=seconds,
            )
            found[name].append(_run(name, words, threads))
    if progress is not None:
        progress(rounds * len(names), rounds * len(names))
    machine = describe_machine()
    machine["versions"]["torch"] = module_version("torch")
    return PeerBenchmark(
        patch_size=comparison.patch_size,
        channels=comparison.channels,
        classes=comparison.classes,
        threads=threads,
        machine=machine,
        networks=tuple(_summarise(name, found[name], found.get(VELOXSEG)) for name in names),
    )


def _summarise(
    name: str, turns: Sequence[Mapping[str, Any]], veloxseg: Sequence[Mapping[str, Any]] | None
) -> NetworkSpeed:
    rates = [1 / one for turn in turns for one in turn["seconds"]]
    ratios = [
        median(ours["seconds"]) / median(turn["seconds"])
        for turn, ours in zip(turns, veloxseg or (), strict=False)
    ]
    peaks = [turn["peak_memory_mb"] for turn in turns]
    return NetworkSpeed(
        network=name,
        parameters=turns[0]["parameters"],
        multiply_adds=turns[0]["multiply_adds"],
        input_size=tuple(turns[0]["input_size"]),
        num_runs=len(rates),
        patches_per_second=median(rates),
        patches_per_second_min=min(rates),
        patches_per_second_max=max(rates),
        ratio_to_veloxseg=median(ratios) if ratios else None,
        peak_memory_mb=None if None in peaks else max(peaks),
    )


def _run(name: str, words: Sequence[str], threads: int) -> dict[str, Any]:
    try:
        return run_measurement(words, threads=threads)
    except MeasurementError as error:
        raise VeloxSegError(
            f"Measuring {name} ended with code {error.code} ({error.said}). Leave it out: "
            f"--network chooses what is measured. Libraries of other networks: {INSTALL_PEERS}"
        ) from error


def _strides(patch_size: Axes) -> tuple[Axes, ...]:
    cells = [-(-p // s) for p, s in zip(patch_size, _STEM, strict=True)]
    return stage_strides((cells[0], cells[1], cells[2]), [float(s) for s in _STEM])


def _legal_patch(patch_size: Axes) -> Axes:
    return whole_patch(patch_size, _STEM, _strides(patch_size))


def _commas(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
