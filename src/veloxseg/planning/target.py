"""The machine that a network is planned for."""

import re
from dataclasses import dataclass

from veloxseg.errors import PlanError

SMALLEST_BATCH = 2
"""Patches of a training step: the published and nnU-Net's smallest batch."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What training may take.

    Attributes:
        name: As ``--target`` names it.
        memory_gb: Peak memory of a training step, in GB of 2³⁰ bytes.
        max_voxels: Of a patch: on a CPU larger patches cost more steps than they are worth.
        max_positions: Of the first grid, likewise.
        max_batch: Largest batch; a CPU makes better use of its time with small ones.
        counts_steps: Whether time is so short there that every part of a step must pay for itself.
    """

    name: str
    memory_gb: float
    max_voxels: int | None = None
    max_positions: int | None = None
    max_batch: int = SMALLEST_BATCH
    counts_steps: bool = False


CPU_VOXELS = 96**3
"""Of a patch on a CPU: the published one."""

CPU_POSITIONS = 24**3 * 3 // 2
"""Of the first grid on a CPU: half more than the published one has."""

TARGETS = {
    "cpu": Target(
        name="cpu",
        memory_gb=4.0,
        max_voxels=CPU_VOXELS,
        max_positions=CPU_POSITIONS,
        counts_steps=True,
    ),
    "8gb": Target(name="8gb", memory_gb=8.0, max_batch=8),
    "24gb": Target(name="24gb", memory_gb=24.0, max_batch=8),
}
DEFAULT_TARGET = TARGETS["cpu"]


def parse_target(text: str) -> Target:
    """The target of a name, or of any memory such as ``11gb``.

    Raises:
        PlanError: it is neither.
    """
    name = text.strip().lower()
    if name in TARGETS:
        return TARGETS[name]
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*gb", name)
    if match is None or float(match[1]) <= 0:
        raise PlanError(
            f"The target is '{text}'. Expected {', '.join(TARGETS)}, or the memory of a training "
            "step such as 11gb."
        )
    return Target(name=name, memory_gb=float(match[1]), max_batch=TARGETS["8gb"].max_batch)
