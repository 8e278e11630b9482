"""A model's card and figures into its bundle, when it is made ready for others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from veloxseg.bundle.reading import Bundle, open_bundle
from veloxseg.bundle.writing import write_bundle
from veloxseg.models.describing import CARD


def add_card(path: Path, card: str, *, evaluation: Mapping[str, Any] | None = None) -> Bundle:
    """Put a card into a bundle, which is rewritten whole; files it does not list are not kept.

    Args:
        path: The bundle's folder or zip.
        card: Markdown: data, licence, intended use, figures, where it fails, how it was made.
        evaluation: Sections to add to the manifest's, as ``cross_validation`` of ``mean_dice`` and
            ``num_cases``, which ``veloxseg models`` shows.

    Returns:
        The new bundle.

    Raises:
        BundleError: there is no sound bundle.
        OSError: the disk is full or not to be written to; the bundle stays as it was.
    """
    bundle = open_bundle(path)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    sections = {**bundle.manifest.evaluation, **(evaluation or {})}
    manifest = bundle.manifest.model_copy(update={"evaluation": sections})
    return write_bundle(path, {**files, CARD: card.encode()}, manifest, overwrite=True)
