"""The command that makes masks, without PyTorch."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from veloxseg.commands.reporting import case_bar, progress_console, reported, results_console

if TYPE_CHECKING:
    from veloxseg.runtime.prediction import Predictions


class BackendChoice(str, Enum):
    """What ``--backend`` takes."""

    AUTO = "auto"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TORCH = "torch"


class PrecisionChoice(str, Enum):
    """What ``--precision`` takes."""

    FLOAT32 = "float32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


class InferenceDevice(str, Enum):
    """What ``--device`` takes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@reported(resume_option="--resume")
def predict(
    model: Annotated[
        str,
        typer.Option(
            "-m", "--model", help="Bundle that veloxseg export made, or a name of veloxseg models."
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Option(
            "-i",
            "--input",
            metavar="[CHANNEL=]PATH",
            help="Folder with CASE_0000.nii.gz, ...; or a file for each channel, in their order or "
            "by name: CT=ct.nii.gz.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the masks; for one case a file too.")
    ],
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="CHANNEL", help="Pass over an optional channel; repeat for more."),
    ] = None,
    backend: Annotated[
        BackendChoice, typer.Option(help="Engine; auto takes the fastest here.")
    ] = BackendChoice.AUTO,
    precision: Annotated[
        PrecisionChoice,
        typer.Option(help="Of the arithmetic; an engine in float32 gives one mask anywhere."),
    ] = PrecisionChoice.FLOAT32,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads.", show_default="one for each core")
    ] = None,
    device: Annotated[
        InferenceDevice, typer.Option(help="For engines that know GPUs.")
    ] = InferenceDevice.AUTO,
    overlap: Annotated[
        float | None,
        typer.Option(help="Of neighbouring patches, 0 to below 1.", show_default="the bundle's"),
    ] = None,
    tta: Annotated[
        bool | None,
        typer.Option(
            "--tta/--no-tta",
            help="Average over mirrored patches: up to 8 times slower.",
            show_default="as the bundle says",
        ),
    ] = None,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Write CASE.npz beside each mask.")
    ] = False,
    postprocessing: Annotated[
        bool,
        typer.Option(
            "--postprocessing/--no-postprocessing",
            help="Remove what the bundle's postprocessing removes, if it has one.",
        ),
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave masks that are there as they are.")
    ] = False,
    max_memory: Annotated[
        float | None,
        typer.Option(min=0.1, help="GB; if a case is estimated to need more, none is predicted."),
    ] = None,
) -> None:
    """Predict masks with a bundle, on its images' own grids."""
    from veloxseg.runtime.inputs import parse_inputs
    from veloxseg.runtime.prediction import predict as predict_masks

    with case_bar("Predicting") as progress, _warnings_in_words():
        done = predict_masks(
            model,
            parse_inputs(inputs),
            output,
            without=without or (),
            backend=None if backend is BackendChoice.AUTO else backend.value,
            precision=precision.value,
            threads=threads,
            device=device.value,
            overlap=overlap,
            mirroring=tta,
            probabilities=save_probabilities,
            postprocessing=postprocessing,
            resume=resume,
            max_memory_gb=max_memory,
            progress=progress,
        )
    _print(done)


def _print(done: "Predictions") -> None:
    console = results_console()
    num = len(done.masks)
    cases = f"{num} case{'s' if num > 1 else ''}"
    if done.skipped:
        cases += f", {done.skipped} of them done before"
    if done.choice is not None:
        console.print(f"Computed by {done.choice.execution} ({done.choice.reason})")
    console.print(f"Volumes: {done.volumes[1]}")
    console.print(f"Written: {done.masks[0] if num == 1 else done.masks[0].parent} ({cases})")


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    """Show warnings as the command line shows errors."""
    from veloxseg.runtime.case import PredictionWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", PredictionWarning)
        warnings.showwarning = _show
        yield


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    text = Text.assemble(("Warning: ", "bold yellow"), str(message))
    progress_console().print(text, soft_wrap=True)
