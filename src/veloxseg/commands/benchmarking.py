"""The command that measures a bundle, without PyTorch, or networks, in it."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from veloxseg.commands.peer_benchmarking import Wanted, measure_peers
from veloxseg.commands.prediction import PrecisionChoice
from veloxseg.commands.reporting import Root, case_bar, reported, results_console
from veloxseg.errors import VeloxSegError

if TYPE_CHECKING:
    from veloxseg.runtime.benchmark import Benchmark, CaseTime


class EngineChoice(str, Enum):
    """What ``--backend`` takes here, where there is nothing to choose automatically."""

    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TORCH = "torch"


@reported()
def benchmark(
    dataset: Annotated[
        str | None,
        typer.Argument(help="With --peers: the dataset whose plan says patch and channels."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="Bundle that veloxseg export made, or a name of veloxseg models.",
            show_default=False,
        ),
    ] = None,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Measure VeloxSeg and other networks in PyTorch instead."),
    ] = False,
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="With --peers: one to measure; may be repeated.",
            show_default="the plan's, and all others that can take its channels",
        ),
    ] = None,
    patch: Annotated[
        str | None,
        typer.Option(help="With --peers: Z,Y,X in voxels of 1 mm, in place of a dataset."),
    ] = None,
    channels: Annotated[int, typer.Option(help="With --patch: of the image.", min=1)] = 1,
    classes: Annotated[int, typer.Option(help="With --patch: outputs.", min=1)] = 2,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Threads; may be repeated.", show_default="1, and all cores"),
    ] = None,
    precision: Annotated[
        list[PrecisionChoice] | None,
        typer.Option(help="May be repeated.", show_default="all that the bundle has"),
    ] = None,
    backend: Annotated[
        list[EngineChoice] | None,
        typer.Option(help="Engine; may be repeated.", show_default="all that are installed"),
    ] = None,
    case: Annotated[
        list[Path] | None,
        typer.Option(
            help="Image to time as a whole; one for each channel, in their order.",
            show_default="a random image of eight patches",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures there, too.")
    ] = None,
    root: Root = None,
) -> None:
    """Measure a bundle: size, patches a second, memory and a whole case.

    What is measured is remembered, and veloxseg predict takes the fastest engine by it. With
    --peers: the networks of a plan beside those of other libraries.
    """
    from veloxseg.atomic import write_json
    from veloxseg.runtime.benchmark import benchmark as measure

    if peers:
        if model is not None or precision or backend or case:
            raise VeloxSegError(
                "--peers measures networks in PyTorch, in float32: leave out --model, --precision, "
                "--backend and --case, or leave out --peers."
            )
        wanted = Wanted(dataset=dataset, patch=patch, channels=channels, classes=classes)
        measure_peers(wanted, networks=network or (), threads=threads, file=json_file, root=root)
        return
    if model is None or dataset is not None or network or patch is not None:
        raise VeloxSegError(
            "Expected a bundle, -m BUNDLE, or --peers with a dataset or --patch Z,Y,X."
        )

    with case_bar("Measuring") as progress:
        found = measure(
            model,
            backends=[one.value for one in backend or ()],
            precisions=[one.value for one in precision or ()],
            threads=threads or (),
            case=case or (),
            progress=progress,
        )
    if json_file is not None:
        write_json(json_file, found.to_json())
    _print(found)
    if json_file is not None:
        results_console().print(f"Written: {json_file}")


def _print(found: "Benchmark") -> None:
    console = results_console()
    versions = found.machine["versions"]
    console.print(
        f"{found.model}: {found.parameters / 1e6:.2f} M parameters, "
        f"{found.multiply_adds / 1e9:.3g} G multiply-adds a patch of {_times(found.patch_size)}"
    )
    console.print(f"{found.machine['processor']}, {found.machine['cores']} cores")
    console.print(", ".join(f"{name} {version}" for name, version in versions.items()))
    console.print(_rates_table(found))
    console.print(
        "Medians (slowest to fastest run). Product: GFLOP/s of large float32 matrices, by NumPy."
    )
    console.print(_case_table(found.case))


def _rates_table(found: "Benchmark") -> Table:
    table = Table(title="Patches")
    table.add_column("Engine")
    for heading in ("Threads", "Batch", "Patches/s", "Peak MB", "GFLOP/s", "Product", "Ratio"):
        table.add_column(heading, justify="right")
    for rate in found.rates:
        one = rate.execution
        table.add_row(
            f"{one.backend} {one.precision}",
            str(one.threads),
            str(one.batch),
            f"{_short(rate.patches_per_second)} ({_short(rate.patches_per_second_min)} to "
            f"{_short(rate.patches_per_second_max)})",
            _megabytes(rate.peak_memory_mb),
            f"{rate.gflops:.1f}",
            f"{rate.matrix_product_gflops:.1f}",
            f"{rate.ratio_to_matrix_product:.2f}",
        )
    return table


def _case_table(case: "CaseTime") -> Table:
    table = Table(title=f"A case: {case.execution}", show_header=False)
    table.add_row("image", ", ".join(Path(image).name for image in case.images))
    table.add_row("voxels, tiles", f"{_times(case.size_zyx)}, {case.num_tiles}")
    for stage, seconds in {**case.seconds, "total": case.total_seconds}.items():
        table.add_row(stage, f"{seconds:.2f} s")
    table.add_row("peak MB", _megabytes(case.peak_memory_mb))
    return table


def _megabytes(number: float | None) -> str:
    return "not known" if number is None else f"{number:.0f}"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _times(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))
