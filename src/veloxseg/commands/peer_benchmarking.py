"""What ``veloxseg benchmark --peers`` does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from veloxseg.commands.reporting import case_bar, results_console
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import VeloxSegError
from veloxseg.installation import require_training

if TYPE_CHECKING:
    from veloxseg.runtime.peer_benchmark import Comparison, PeerBenchmark


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to compare networks on, as it was typed.

    Attributes:
        dataset: A dataset with a plan, by number or name.
        patch: ``Z,Y,X`` in place of it.
        channels: Of the patch.
        classes: Outputs for the patch.
    """

    dataset: str | None
    patch: str | None
    channels: int
    classes: int


def measure_peers(
    wanted: Wanted,
    *,
    networks: Sequence[str],
    threads: Sequence[int] | None,
    file: Path | None,
    root: Path | None,
) -> None:
    """Measure networks, print a table and write the figures.

    Raises:
        VeloxSegError: the options do not go together, or what measuring raises.
    """
    require_training()
    from veloxseg.atomic import write_json
    from veloxseg.runtime.peer_benchmark import benchmark_peers

    comparison = _comparison(wanted, root)
    if threads is not None and len(threads) > 1:
        raise VeloxSegError("--threads: with --peers there is one number of threads.")
    with case_bar("Measuring") as progress:
        found = benchmark_peers(
            comparison,
            networks=networks,
            threads=threads[0] if threads else 1,
            progress=progress,
        )
    if file is not None:
        write_json(file, found.to_json())
    _print(found)
    if file is not None:
        results_console().print(f"Written: {file}")


def _comparison(wanted: Wanted, root: Path | None) -> "Comparison":
    from veloxseg.runtime.peer_benchmark import comparison_of_dataset, comparison_of_patch

    if (wanted.dataset is None) == (wanted.patch is None):
        raise VeloxSegError("--peers needs a planned dataset, or --patch Z,Y,X: give one of them.")
    if wanted.dataset is not None:
        return comparison_of_dataset(wanted.dataset, workspace=Workspace.resolve(root))
    words = str(wanted.patch).split(",")
    if len(words) != 3 or not all(word.strip().isdigit() for word in words):
        raise VeloxSegError(f"--patch is '{wanted.patch}'. Expected Z,Y,X such as 96,96,96.")
    z, y, x = map(int, words)
    return comparison_of_patch((z, y, x), channels=wanted.channels, classes=wanted.classes)


def _print(found: "PeerBenchmark") -> None:
    console = results_console()
    table = Table(title=f"Patches of {_times(found.patch_size)}, {found.channels} channels")
    table.add_column("Network", overflow="fold")
    for heading in ("Parameters", "Multiply-adds", "Patches/s", "Ratio", "Peak MB", "Input"):
        table.add_column(heading, justify="right", overflow="fold")
    for one in found.networks:
        ratio, peak = one.ratio_to_veloxseg, one.peak_memory_mb
        table.add_row(
            one.network,
            f"{one.parameters / 1e6:.2f} M",
            f"{one.multiply_adds / 1e9:.3g} G",
            f"{one.patches_per_second:.3g} ({one.patches_per_second_min:.3g} to "
            f"{one.patches_per_second_max:.3g})",
            "" if ratio is None else f"{ratio:.3g}",
            "not known" if peak is None else f"{peak:.0f}",
            _times(one.input_size) if one.input_size != found.patch_size else "",
        )
    console.print(f"{found.machine['processor']}, {found.threads} threads, PyTorch float32")
    console.print(table)
    console.print(
        "Medians (slowest to fastest run). Ratio: to VeloxSeg in the same round. Input: where "
        "zeros fill the patch up."
    )


def _times(numbers: Sequence[int]) -> str:
    return " x ".join(map(str, numbers))
