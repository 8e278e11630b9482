"""Both hippocampi of the MNI152 template that nilearn ships: a first mask without own images.

The template is skull-stripped T1 at 1 mm in MNI space. It is symmetric by construction, so its two
sides differ by nothing but the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from veloxseg.atomic import write_json
from veloxseg.demos.hippocampus_crops import SIDES, box_slices, cut_crop, unmirror
from veloxseg.demos.hippocampus_picture import MAX_PARTS, draw_parts
from veloxseg.errors import BundleError, VeloxSegError
from veloxseg.installation import INSTALL_DEMO
from veloxseg.models.describing import printable
from veloxseg.models.finding import find_model
from veloxseg.runtime.model import Model, load
from veloxseg.runtime.segmentation import label_volumes_ml
from veloxseg.volumes.orientation import from_ras, to_ras
from veloxseg.volumes.reading import read_volume, write_mask, write_volume
from veloxseg.volumes.volume import Volume

MODEL = "hippocampus"
"""The model that is used, by its name."""

_TEMPLATE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
_NUM_PATCHES = 4  # what the two crops come to


@dataclass(frozen=True, kw_only=True)
class Hippocampi:
    """What was found on both sides.

    Attributes:
        mask: (Z, Y, X) uint8 on the image's grid: the model's labels on the left side, on the right
            side the same with the number of labels added.
        labels: Name to value, as ``left anterior``.
        volumes_ml: Of each label, in the order of ``labels``.
    """

    mask: NDArray[np.uint8]
    labels: dict[str, int]
    volumes_ml: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class HippocampusDemo:
    """What the demo has written.

    Attributes:
        mask: NIfTI on the template's grid.
        volumes: JSON of labels and volumes in ml.
        picture: PNG.
        crops: Folder of the two images that the model was given, named as ``predict`` takes them.
        found: The same in memory.
        seconds: Of ``segmenting`` and of ``all``.
    """

    mask: Path
    volumes: Path
    picture: Path
    crops: Path
    found: Hippocampi
    seconds: dict[str, float]


def run_hippocampus_demo(
    output: Path,
    *,
    console: Console,
    model: Path | str | None = None,
    template: Path | None = None,
) -> HippocampusDemo:
    """Segment both hippocampi of the MNI152 template, and write mask, volumes, picture and crops.

    Args:
        output: Folder to write to; files of an earlier demo are replaced.
        console: Where stages and results are told.
        model: A bundle or a model's name: one channel, T1, crops of one hippocampus. None takes
            the known model called ``MODEL``.
        template: Another skull-stripped image in MNI space; None takes nilearn's.

    Raises:
        VeloxSegError: nilearn or its template is missing, the output is a file, or the model finds
            nothing; nothing is written.
        BundleError: there is no such model, or it takes more than one channel or gives more labels
            than the picture has colours for.
        GeometryError: the boxes do not lie in the image.
    """
    started = perf_counter()
    if output.exists() and not output.is_dir():
        raise VeloxSegError(f"{output}: a file. Expected a folder. Choose another: --output DIR.")
    source = find_template() if template is None else template
    opened = load(model or find_model(MODEL).path, num_patches=_NUM_PATCHES)
    parts = list(opened.pipeline.foreground)
    if len(parts) > MAX_PARTS:
        raise BundleError(
            f"{opened.bundle.path}: gives {', '.join(parts)}. Expected {MAX_PARTS} labels at most, "
            "for which the demo's picture has colours. Segment images with it: veloxseg predict"
        )
    image = read_volume(source)
    name = printable(opened.bundle.manifest.name)
    console.print(f"Segmenting both hippocampi of {source.name} with {name}")
    before = perf_counter()
    found = segment_hippocampi(image, opened)
    segmented = perf_counter()
    if not found.mask.any():
        raise VeloxSegError(
            f"{opened.bundle.path}: found nothing in {source.name}, and nothing was written. "
            "Expected a model of the hippocampus. Leave -m out to take the one that is shipped."
        )
    paths = [output / f"hippocampus_{end}" for end in ("mask.nii.gz", "volumes.json", "mask.png")]
    mask, volumes, picture = paths
    write_mask(mask, found.mask, image.grid, like=source)
    write_json(volumes, {"labels": found.labels, "volumes_ml": _rounded(found.volumes_ml)})
    ras, crops = to_ras(image), output / "crops"
    for side in SIDES:
        write_volume(crops / f"hippocampus_{side}_0000.nii.gz", cut_crop(ras, side))
    draw_parts(
        ras,
        to_ras(Volume.on_grid(found.mask, image.grid)).data,
        picture,
        parts={name: _values_of_part(found, number) for number, name in enumerate(parts)},
        title="Hippocampi of the MNI152 template",
        note=_in_words(found),
    )
    seconds = {"segmenting": segmented - before, "all": perf_counter() - started}
    console.print(_table(found, parts))
    if template is None:
        console.print("The template is symmetric: left and right are expected to be alike.")
    console.print(f"Seconds: {seconds['segmenting']:.1f} to segment, {seconds['all']:.1f} in all")
    for path in (*paths, crops):
        console.print(f"Written: {path}")
    return HippocampusDemo(
        mask=mask, volumes=volumes, picture=picture, crops=crops, found=found, seconds=seconds
    )


def find_template() -> Path:
    """The T1 template inside the installed nilearn, which is not imported.

    Raises:
        VeloxSegError: nilearn is not installed, or a version without the template.
    """
    spec = find_spec("nilearn")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    if not folders:
        raise VeloxSegError(
            "The demo needs nilearn, which ships the MNI152 template. It is not installed. "
            f"Install: {INSTALL_DEMO}"
        )
    path = Path(folders[0]) / "datasets" / "data" / _TEMPLATE
    if not path.is_file():
        raise VeloxSegError(
            f"{path}: missing. Expected nilearn to ship it, as versions from 0.8.1 on do. "
            f"Install: {INSTALL_DEMO} --upgrade"
        )
    return path


def segment_hippocampi(image: Volume, model: Model) -> Hippocampi:
    """Segment the left and the right hippocampus of a T1 image in MNI space.

    Args:
        image: Skull-stripped, of any axis order and sense, not oblique; positions are MNI's.
        model: One channel; trained on crops of left hippocampi, or of right ones mirrored.

    Raises:
        BundleError: the model takes more than one channel, or has regions.
        GeometryError: the image is oblique, or does not hold the boxes.
    """
    labels = _labels(model)
    ras = to_ras(image)
    mask = np.zeros(ras.data.shape, np.uint8)
    for number, side in enumerate(SIDES):
        crop = cut_crop(ras, side)
        # Without the crop's own sense of x: a model that turns images would undo the mirroring.
        seen = Volume(data=crop.data, spacing_zyx=ras.spacing_zyx, direction=ras.direction)
        part = model.predict(seen).mask
        part = np.where(part > 0, part + number * len(labels), 0).astype(np.uint8)
        mask[box_slices(ras, side)] = unmirror(part, side)
    names = {
        f"{side} {name.lower()}": value + number * len(labels)
        for number, side in enumerate(SIDES)
        for name, value in labels.items()
    }
    return Hippocampi(
        mask=np.ascontiguousarray(from_ras(mask, image.grid)),
        labels=names,
        volumes_ml=label_volumes_ml(mask, ras.grid, dict(names)),
    )


def _labels(model: Model) -> dict[str, int]:
    labels = {
        name: value for name, value in model.pipeline.foreground.items() if isinstance(value, int)
    }
    if len(model.pipeline.channels) != 1 or sorted(labels.values()) != list(
        range(1, len(model.pipeline.foreground) + 1)
    ):
        raise BundleError(
            f"{model.bundle.path}: takes {', '.join(model.pipeline.channels)} and gives "
            f"{', '.join(model.pipeline.foreground)}. Expected one channel, T1, and labels from 1 "
            "on without regions."
        )
    return labels


def _values_of_part(found: Hippocampi, number: int) -> Sequence[int]:
    values = list(found.labels.values())
    return values[number :: len(values) // len(SIDES)]


def _side_ml(found: Hippocampi, side: str) -> float:
    return sum(ml for name, ml in found.volumes_ml.items() if name.startswith(f"{side} "))


def _in_words(found: Hippocampi) -> str:
    return "    ".join(f"{side} {_side_ml(found, side):.2f} ml" for side in SIDES)


def _rounded(volumes_ml: dict[str, float]) -> dict[str, float]:
    return {name: round(ml, 4) for name, ml in volumes_ml.items()}


def _table(found: Hippocampi, parts: Sequence[str]) -> Table:
    table = Table()
    table.add_column("ml")
    rows: dict[str, list[Any]] = {part: [] for part in parts}
    for side in SIDES:
        table.add_column(side, justify="right")
        for part in parts:
            rows[part].append(found.volumes_ml[f"{side} {part.lower()}"])
    for part, cells in rows.items():
        table.add_row(part.lower(), *(f"{ml:.2f}" for ml in cells))
    table.add_section()
    table.add_row("whole", *(f"{_side_ml(found, side):.2f}" for side in SIDES))
    return table
