"""An evaluation as a table to print."""

import math

from rich.table import Table

from veloxseg.evaluation.summary import Metrics, Summary


def format_summary(summary: Summary) -> Table:
    """Lay out Dice, HD95 and volumes of every case and label, and their means below.

    Where subsets of channels were asked for, there are means of each, with its number of cases.
    What is undefined shows as a dash.
    """
    table = Table(title=f"{len(summary.cases)} cases", show_footer=False)
    table.add_column("Case", overflow="fold")
    table.add_column("Label")
    for heading in ("Dice", "HD95 mm", "Volume ml", "Reference ml"):
        table.add_column(heading, justify="right")
    for case in summary.cases:
        for label, name in summary.label_names.items():
            table.add_row(case.name, name, *_cells(case.metrics[label]))
    for subset, part in summary.by_subset().items():
        _add_means(table, f"{subset} ({len(part.cases)})", part)
    _add_means(table, "Mean", summary, style="bold")
    return table


def _add_means(table: Table, title: str, summary: Summary, *, style: str = "") -> None:
    table.add_section()
    for label, name in summary.label_names.items():
        table.add_row(title, name, *_cells(summary.mean(label)), style=style)
    if len(summary.label_names) > 1:
        table.add_row(title, "all", *_cells(summary.foreground_mean()), style=style)


def _cells(metrics: Metrics) -> list[str]:
    places = {"Dice": 3, "HD95_mm": 1, "volume_ml": 2, "reference_volume_ml": 2}
    return [
        "-" if math.isnan(metrics[metric]) else f"{metrics[metric]:.{digits}f}"
        for metric, digits in places.items()
    ]
