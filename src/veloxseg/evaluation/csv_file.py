"""An evaluation as CSV: a row a case and label, for spreadsheets and statistics programs."""

import csv
import io
import math
from pathlib import Path

from veloxseg.atomic import atomic_path
from veloxseg.evaluation.measuring import METRICS
from veloxseg.evaluation.results import Summary


def write_csv(path: Path, summary: Summary) -> None:
    """Write every case and label of every method, whole or not at all.

    Columns: ``method``, ``case``, ``fold`` (empty without folds), ``subset`` (of channels; empty
    where nobody asked), ``label`` (its value, or a region's), ``label_name``, and each metric by
    its key. An undefined metric is an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "case", "fold", "subset", "label", "label_name", *METRICS])
    for method, found in {summary.name: summary, **summary.others}.items():
        for case in found.cases:
            fold = "" if case.fold is None else case.fold
            subset = summary.subsets.get(case.name, "")
            for label, name in summary.label_names.items():
                values = [_cell(case.metrics[label][metric]) for metric in METRICS]
                writer.writerow([method, case.name, fold, subset, str(label), name, *values])
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape")


def _cell(value: float) -> str:
    return "" if math.isnan(value) else str(value)
