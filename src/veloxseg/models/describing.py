"""What is to be said of a model: its card, and the figure that it is best known by."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from veloxseg.bundle.format import Manifest, Pipeline
from veloxseg.bundle.reading import Bundle, open_bundle
from veloxseg.models.finding import KnownModel
from veloxseg.models.installing import bundle_hash

CARD = "model_card.md"
"""File of a bundle that describes the model in its author's words; a bundle may be without."""

_SECTIONS = ("cross_validation", "validation")
_FIGURES = ("mean_dice", "mean_dice_mirrored")


@dataclass(frozen=True, kw_only=True)
class ReportedDice:
    """A mean Dice as the manifest reports it.

    Attributes:
        mean: Over labels and cases.
        num_cases: How many cases; None where the manifest does not say it.
        section: Of the manifest's evaluation: ``cross_validation`` or ``validation``.
    """

    mean: float
    num_cases: int | None
    section: str


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """One row of the list of models.

    Attributes:
        name: What ``-m`` takes.
        origin: ``shipped`` or ``installed``.
        size_mb: What it takes on disk.
        channels: In words.
        labels: In words.
        dice: As reported; None where nothing is.
        licence: Of the weights.
        sha256: Of its manifest.
    """

    name: str
    origin: str
    size_mb: float
    channels: str
    labels: str
    dice: ReportedDice | None
    licence: str
    sha256: str


def summary_of_model(model: KnownModel) -> ModelSummary:
    """Open a model and say what a list of models says of it.

    Raises:
        BundleError: it is damaged.
        OSError: it may not be read.
    """
    bundle = open_bundle(model.path)
    return ModelSummary(
        name=model.name,
        origin=model.origin,
        size_mb=size_mb(bundle),
        channels=channels_in_words(bundle.pipeline),
        labels=labels_in_words(bundle.pipeline),
        dice=reported_dice(bundle.manifest),
        licence=printable(bundle.manifest.licence),
        sha256=bundle_hash(model.path),
    )


def reported_dice(manifest: Manifest) -> ReportedDice | None:
    """The mean Dice that a manifest reports; of several folds, the mean over their cases.

    Looked for are ``mean_dice`` and ``mean_dice_mirrored`` of ``cross_validation``, else of
    ``validation``, there or in its folds; None where there is no such figure.
    """
    for section in _SECTIONS:
        content = manifest.evaluation.get(section)
        if isinstance(content, Mapping):
            own = _figure(content)
            folds = [_figure(one) for one in content.values() if isinstance(one, Mapping)]
            found = [own] if own else [one for one in folds if one]
            if found:
                return _joined(found, section)
    return None


def model_card(bundle: Bundle) -> str:
    """The model's card in Markdown: its author's words first, then what its files say.

    Control characters, with which a file could rewrite a terminal, are left out.
    """
    parts = [_facts(bundle)]
    if CARD in bundle.manifest.files:
        parts.insert(0, bundle.read(CARD).decode(errors="replace").strip())
    return printable("\n\n".join(parts))


def size_mb(bundle: Bundle) -> float:
    """What the bundle takes on disk, in MB: its zip, or its files together."""
    if bundle.path.is_file():
        return bundle.path.stat().st_size / 1e6
    return sum(len(bundle.read(name)) for name in bundle.manifest.files) / 1e6


def printable(text: str) -> str:
    """A text of unknown origin without control characters; lines stay lines."""
    return "".join(sign for sign in text if sign.isprintable() or sign == "\n")


def _facts(bundle: Bundle) -> str:
    manifest, pipeline = bundle.manifest, bundle.pipeline
    facts = {
        "Data": manifest.data,
        "Licence": manifest.licence,
        "Intended use": manifest.intended_use,
        "Made from": f"{manifest.source}, {manifest.created}",
        "Channels": channels_in_words(pipeline),
        "Labels": labels_in_words(pipeline),
        "Grid": f"{_numbers(pipeline.spacing)} mm (z, y, x), "
        f"patches of {_numbers(pipeline.patch_size)}",
        "Network": f"{manifest.num_parameters / 1e6:.2f} M parameters, "
        f"{manifest.multiply_adds / 1e9:.3g} G multiply-adds a patch",
        "Models": ", ".join(bundle.precisions),
        "Size": f"{size_mb(bundle):.1f} MB",
        "SHA-256 of its manifest": bundle_hash(bundle.path),
    }
    lines = [f"# {manifest.name}: facts", "", *(f"- {key}: {facts[key]}" for key in facts)]
    if manifest.evaluation:
        lines += ["", "## Evaluation", "", *_listed(manifest.evaluation)]
    return "\n".join(lines)


def channels_in_words(pipeline: Pipeline) -> str:
    """Names in the order of the network's input, optional ones marked."""
    optional = pipeline.optional
    return ", ".join(
        f"{printable(name)} (optional)" if name in optional else printable(name)
        for name in pipeline.channels
    )


def labels_in_words(pipeline: Pipeline) -> str:
    """Names and values, as ``liver 1, tumour 2``; of regions all their values."""
    return ", ".join(
        f"{printable(name)} {value if isinstance(value, int) else '+'.join(map(str, value))}"
        for name, value in pipeline.foreground.items()
    )


def _listed(content: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield f"{indent}- {key}:"
            yield from _listed(value, f"{indent}  ")
        else:
            yield f"{indent}- {key}: {value}"


def _figure(content: Mapping[str, Any]) -> tuple[float, int | None] | None:
    for name in _FIGURES:
        mean, number = content.get(name), content.get("num_cases")
        if isinstance(mean, (int, float)) and 0 <= mean <= 1:
            return float(mean), number if isinstance(number, int) and number > 0 else None
    return None


def _joined(found: list[tuple[float, int | None]], section: str) -> ReportedDice:
    """Every fold weighs as much as its cases; where a number of cases lacks, all weigh alike."""
    numbers = [number for _, number in found if number is not None]
    if len(numbers) < len(found):
        mean = sum(mean for mean, _ in found) / len(found)
        return ReportedDice(mean=mean, num_cases=None, section=section)
    weighted = sum(mean * number for (mean, _), number in zip(found, numbers, strict=True))
    return ReportedDice(mean=weighted / sum(numbers), num_cases=sum(numbers), section=section)


def _numbers(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:.6g}" for number in numbers)
