"""The page of a report: one HTML file that needs no network and no other file."""

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from veloxseg.atomic import atomic_path
from veloxseg.errors import DatasetError, VeloxSegError
from veloxseg.evaluation.destination import require_file
from veloxseg.evaluation.measuring import Metric
from veloxseg.evaluation.report.agreement import Agreement, draw_agreement
from veloxseg.evaluation.report.cases import (
    ReportedCase,
    choose_cases,
    find_metrics,
    list_cases,
)
from veloxseg.evaluation.report.distribution import DistributionRow, draw_distribution
from veloxseg.evaluation.report.images import ImageFolder, open_image_folder
from veloxseg.evaluation.report.origin import list_origins
from veloxseg.evaluation.report.pictures import CasePicture, draw_case
from veloxseg.evaluation.report.reading import FOREGROUND, SummaryFile, read_summary
from veloxseg.evaluation.report.tables import (
    describe_cases,
    headings,
    list_cases_by_label,
    list_comparisons,
    list_figures,
    list_subsets,
    main_of_cases,
    metrics_of_subsets,
    shown_labels,
)
from veloxseg.evaluation.report.wording import describe_folds, describe_gaps, describe_picture, lead

_DISTRIBUTED = ("Dice", "HD95_mm", "NSD")
_TEMPLATE = "page.html.jinja"


def write_report(
    summary: Path,
    output: Path,
    *,
    images: Path | None = None,
    channels: Sequence[int] | None = None,
    title: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write an evaluation as one HTML page with tables, plots and pictures.

    Args:
        summary: The summary.json of ``veloxseg evaluate``, or nnU-Net's. The masks that it names
            are read for the pictures; where they are gone, the page says so.
        output: The page to write, whole or not at all.
        images: Folder of the images, such as ``imagesTr``, to show behind the outlines.
        channels: Numbers of the channels to show, from 0; None shows the first two.
        title: Of the page; None names the method, where the summary does.
        progress: Called after each case that was drawn with their number and that of all to draw.

    Returns:
        ``output``.

    Raises:
        DatasetError: the file is no summary or lists a case twice, there is no such folder or
            channel of images, or channels are named and no images.
        VeloxSegError: the page would take the summary's place or that of a folder, or lies where
            nothing can be written.
        FileNotFoundError: there is no summary.
        OSError: the page cannot be written.
    """
    found = read_summary(summary)
    require_file(output, like="report.html")
    if output.resolve() == summary.resolve():
        raise VeloxSegError(
            f"{output}: the page would take the summary's place. Name another file: -o report.html"
        )
    if channels and images is None:
        raise DatasetError(
            "Channels are of images, and no images are given. Name their folder: --images imagesTr"
        )
    folder = None if images is None else open_image_folder(images, channels)
    cases = list_cases(found, folder=summary.parent)
    pictures = _draw_pictures(found, cases, folder, progress)
    content = {
        "title": title or _title(found),
        "pictures": [(picture, describe_picture(picture, found.labels)) for picture in pictures],
        "origins": list_origins(found, summary, images=images),
        "folds": None if found.cross_validation is None else describe_folds(found.cross_validation),
        "gaps": describe_gaps(found.cross_validation, found.not_predicted),
        **_figures(found, cases),
    }
    page = _render(content)
    with atomic_path(output) as temporary:
        # A file's name may hold bytes that are no text; they are shown as escapes.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return output


def _draw_pictures(
    summary: SummaryFile,
    cases: Sequence[ReportedCase],
    images: ImageFolder | None,
    progress: Callable[[int, int], None] | None,
) -> list[CasePicture]:
    chosen = choose_cases(cases)
    pictures = []
    for rank, case in chosen:
        pictures.append(draw_case(case, rank, labels=summary.labels, images=images))
        if progress is not None:
            progress(len(pictures), len(chosen))
    return pictures


def _figures(summary: SummaryFile, cases: Sequence[ReportedCase]) -> dict[str, Any]:
    metrics = find_metrics(cases)
    labels = shown_labels(summary)
    tolerance_mm = None if summary.provenance is None else summary.provenance.tolerance_mm
    names = headings(metrics, tolerance_mm)
    statistics = describe_cases(cases, metrics, [*summary.labels, FOREGROUND])
    main = main_of_cases(metrics)
    return {
        "lead": lead(len(cases), summary.labels, statistics[FOREGROUND]),
        "figures": list_figures(statistics, labels, names),
        "distributions": _distributions(metrics, cases, summary.labels, names),
        "agreements": _agreements(cases, summary.labels),
        "comparison": summary.comparison,
        "compared": list_comparisons(summary, labels, names),
        "subsets": list_subsets(summary, cases, labels),
        "subset_columns": [names[metric.key] for metric in metrics_of_subsets(metrics)],
        "labels": list(labels.values()),
        "columns": [(names[metric.key], metric.key in main) for metric in metrics],
        "rows": list_cases_by_label(cases, metrics, labels),
    }


def _distributions(
    metrics: Sequence[Metric],
    cases: Sequence[ReportedCase],
    labels: Mapping[str, str],
    names: Mapping[str, str],
) -> list[tuple[str, Markup]]:
    plots = []
    for metric in (metric for metric in metrics if metric.key in _DISTRIBUTED):
        rows = []
        for label, name in labels.items():
            values = {
                case.name: value
                for case in cases
                if not math.isnan(value := case.values[label].get(metric.key, math.nan))
            }
            rows.append(
                DistributionRow(label=name, values=values, num_undefined=len(cases) - len(values))
            )
        if any(row.values for row in rows):
            plots.append((names[metric.key], draw_distribution(metric, rows)))
    return plots


def _agreements(
    cases: Sequence[ReportedCase], labels: Mapping[str, str]
) -> list[tuple[str, Markup]]:
    plots = []
    for label, name in labels.items():
        volumes = {}
        for case in cases:
            row = case.values[label]
            pair = (row.get("volume_ml", math.nan), row.get("reference_volume_ml", math.nan))
            if not any(map(math.isnan, pair)):
                volumes[case.name] = pair
        if volumes:
            plots.append((name, draw_agreement(Agreement(label=name, volumes_ml=volumes))))
    return plots


def _title(summary: SummaryFile) -> str:
    methods = {} if summary.provenance is None else summary.provenance.methods
    return f"Evaluation of {next(iter(methods))}" if methods else "Evaluation"


def _render(content: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (here / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template(_TEMPLATE).render(
        style=Markup((here / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own
        script=Markup(script),  # noqa: S704 - our own
        script_hash=f"sha256-{digest}",
        **content,
    )
