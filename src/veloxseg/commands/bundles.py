"""Commands on bundles: export."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from veloxseg.commands.naming import workspace_of_run
from veloxseg.commands.reporting import Root, case_bar, reported, results_console
from veloxseg.errors import BundleError
from veloxseg.installation import require_training

if TYPE_CHECKING:
    from veloxseg.bundle.format import Normalisation
    from veloxseg.bundle.published import PublishedCase
    from veloxseg.bundle.reading import Bundle


class ReducedPrecisionName(str, Enum):
    """What ``--precision`` takes."""

    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


_PUBLISHED = "Published networks"


@reported()
def export(
    run: Annotated[
        str,
        typer.Argument(
            help="Results folder of a run (all its finished folds) or of a fold, or DATASET or "
            "DATASET/FOLD for the newest run. With --published: the checkpoint."
        ),
    ],
    bundle: Annotated[
        Path, typer.Argument(help="Folder to make, as NAME.veloxseg, or zip, as NAME.zip.")
    ],
    precision: Annotated[
        list[ReducedPrecisionName] | None,
        typer.Option(
            help="Add a smaller, faster model; repeat for several. It must segment the validation "
            "cases as well as float32 does.",
        ),
    ] = None,
    max_cases: Annotated[
        int | None,
        typer.Option(
            help="Validation cases to judge a precision by.", min=1, show_default="all of them"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the model.", show_default="the bundle's")
    ] = None,
    data: Annotated[str | None, typer.Option(help="The training data, in words.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights.")] = None,
    intended_use: Annotated[
        str | None, typer.Option(help="What the model may be used for.")
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            help="Model JSON of a published checkpoint. Its network reads arrays in (X, Y, Z): the "
            "options below are in that order, and images are transposed for it.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a channel; once for each, in their order.", rich_help_panel=_PUBLISHED
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE of a class but the background, as tumour=1; once for each.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Of the network's grid in mm: x y z.", rich_help_panel=_PUBLISHED),
    ] = None,
    normalisation: Annotated[
        list[str] | None,
        typer.Option(
            help="z_score, none, rescale_0_1 or ct:MEAN,STD,LOWER,UPPER; once for each channel.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    patch: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            help="Extent of the network's input: x y z.",
            show_default="input_size of the JSON",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    postprocessing: Annotated[
        bool,
        typer.Option(
            "--postprocessing/--no-postprocessing",
            help="Take up what veloxseg postprocess chose for these folds, if it did.",
        ),
    ] = True,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Let predict average over mirrored patches unless told not to."),
    ] = False,
    fp16_weights: Annotated[
        bool,
        typer.Option(
            "--fp16-weights",
            help="Round the weights to float16 and store them so, in half the room; arithmetic "
            "stays float32.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle that is there.")
    ] = False,
    root: Root = None,
) -> None:
    """Make a bundle of a trained run, or of a published checkpoint, to predict without PyTorch."""
    require_training()
    from veloxseg.bundle.export import export as export_run
    from veloxseg.bundle.export import export_published
    from veloxseg.bundle.provenance import About

    notes: list[str] = []
    about = About(name=name, data=data, licence=licence, intended_use=intended_use)
    if published is not None:
        case = _published_case(channel, label, spacing, normalisation, patch)
        if precision:
            raise BundleError(
                "--precision needs a run's validation cases to be judged by. Leave it out with "
                "--published."
            )
        if tta or fp16_weights:
            raise BundleError("--tta and --fp16-weights are for runs. Leave them out here.")
        done = export_published(
            published, Path(run), bundle, case=case, about=about, overwrite=overwrite
        )
    else:
        if any((channel, label, spacing, normalisation, patch)):
            raise BundleError(
                "--channel, --label, --spacing, --normalisation and --patch describe a published "
                "checkpoint; a run has its plan. Give --published MODEL.json, or leave them out."
            )
        with case_bar("Judging precisions") as progress:
            done = export_run(
                run,
                bundle,
                workspace=workspace_of_run(run, root),
                precisions=[one.value for one in precision or []],
                about=about,
                max_cases=max_cases,
                postprocessing=postprocessing,
                mirroring=tta,
                fp16_weights=fp16_weights,
                overwrite=overwrite,
                progress=progress,
                note=notes.append,
            )
    _print_bundle(done, notes)


def _print_bundle(bundle: "Bundle", notes: list[str]) -> None:
    console = results_console()
    for name in sorted(bundle.manifest.files):
        console.print(f"{name}: {len(bundle.read(name)) / 1e6:.2f} MB")
    for name, found in bundle.manifest.verification.items():
        error = f"logits within {found.max_error:.2g} of PyTorch's (up to {found.max_logit:.3g})"
        dice = ""
        if found.mean_dice is not None:
            dice = f", mean Dice {found.mean_dice:.4f}, float32: {found.mean_dice_float32:.4f}"
        console.print(f"Verified: {name}: {error}{dice}; {found.backend}")
    for note in notes:
        console.print(f"Postprocessing: {note}")
    console.print(f"Written: {bundle.path}")


def _published_case(
    channels: list[str] | None,
    labels: list[str] | None,
    spacing: tuple[float, float, float] | None,
    normalisations: list[str] | None,
    patch: tuple[int, int, int] | None,
) -> "PublishedCase":
    from veloxseg.bundle.published import PublishedCase

    given = {
        "--channel": channels,
        "--label": labels,
        "--spacing": spacing,
        "--normalisation": normalisations,
    }
    missing = [option for option, value in given.items() if not value]
    if not (channels and labels and spacing and normalisations):
        raise BundleError(
            f"--published lacks {', '.join(missing)}. A published checkpoint does not say what "
            "images it takes: give them as it was trained."
        )
    return PublishedCase(
        channels=tuple(channels),
        labels=_labels(labels),
        spacing_xyz=spacing,
        normalisation=tuple(_normalisation(text) for text in normalisations),
        patch_size_xyz=patch,
    )


def _labels(texts: list[str]) -> dict[str, int]:
    labels: dict[str, int] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value.isdigit() or name in labels:
            raise BundleError(
                f"--label {text}: expected NAME=VALUE, each name once, such as --label tumour=1."
            )
        labels[name] = int(value)
    if sorted(labels.values()) != list(range(1, len(labels) + 1)):
        raise BundleError(
            f"--label gives the values {sorted(labels.values())}. Expected 1 to {len(labels)}, the "
            "network's classes after the background."
        )
    return dict(sorted(labels.items(), key=lambda entry: entry[1]))


def _normalisation(text: str) -> "Normalisation":
    from veloxseg.bundle.format import Normalisation

    scheme, _, numbers = text.partition(":")
    plain: dict[str, Literal["z_score", "none", "rescale_0_1"]] = {
        "z_score": "z_score",
        "none": "none",
        "rescale_0_1": "rescale_0_1",
    }
    if scheme in plain and not numbers:
        return Normalisation(scheme=plain[scheme])
    try:
        mean, std, lower, upper = (float(number) for number in numbers.split(","))
    except ValueError:
        scheme = ""
    if scheme != "ct":
        raise BundleError(
            f"--normalisation {text}: expected {', '.join(plain)} or ct:MEAN,STD,LOWER,UPPER, such "
            "as ct:32.7,71,-86,172."
        )
    return Normalisation(scheme="ct", mean=mean, std=std, lower=lower, upper=upper)
