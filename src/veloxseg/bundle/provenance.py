"""What a manifest says of where a model comes from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from veloxseg.bundle.real_cases import read_validation
from veloxseg.datasets.description import DatasetDescription
from veloxseg.training.runs import Run

_PACKAGES = ("veloxseg", "torch", "onnx", "nnunetv2", "numpy")
_NOT_STATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class About:
    """What the exporter says of a model; None leaves it to the dataset's own dataset.json.

    Attributes:
        name: The model's name.
        data: The training data, in words.
        licence: Of the weights.
        intended_use: What the model may be used for.
    """

    name: str | None = None
    data: str | None = None
    licence: str | None = None
    intended_use: str | None = None

    def fields(self, description: DatasetDescription | None, *, name: str) -> dict[str, str]:
        """The manifest's fields; ``name`` where none is given."""
        extra = (description.model_extra if description is not None else None) or {}
        data = ", ".join(str(extra[key]) for key in ("description", "reference") if extra.get(key))
        licence = extra.get("licence") or extra.get("license")
        fields = {
            "name": self.name or name,
            "data": self.data or data or _NOT_STATED,
            "licence": self.licence or str(licence or _NOT_STATED),
        }
        if self.intended_use:
            fields["intended_use"] = self.intended_use
        return fields


def package_versions() -> dict[str, str]:
    """Versions of the packages that make a bundle."""
    return {name: version(name) for name in _PACKAGES}


def describe_run(run: Run) -> str:
    """Dataset, folds and plan in words."""
    trainer, plan, configuration = (*run.folder.name.split("__"), "", "")[:3]
    folds = ", ".join(str(fold) for fold in run.folds)
    dataset = run.plans.get("dataset_name", run.folder.parent.name)
    return (
        f"{dataset}, fold{'s' if len(run.folds) > 1 else ''} {folds}, plan {plan}, "
        f"configuration {configuration}, trained by {trainer}"
    )


def evaluation_of_folds(run: Run) -> dict[str, Any]:
    """Figures of each fold's validation, as nnU-Net found them at the end of training."""
    folds = {}
    for fold in run.folds:
        summary = read_validation(run.folder / f"fold_{fold}")
        if summary:
            folds[f"fold_{fold}"] = _figures(summary, run.description)
    if not folds:
        return {}
    how = "nnU-Net, whole cases at the end of training, averaged over mirrored patches"
    return {"validation": {"by": how, **folds}}


def _figures(summary: Mapping[str, Any], description: DatasetDescription) -> dict[str, Any]:
    return {
        "num_cases": len(summary["metric_per_case"]),
        "mean_dice_mirrored": _finite(summary["foreground_mean"]["Dice"]),
        "dice_mirrored": {
            name: _finite(summary["mean"][key]["Dice"])
            for name, value in description.labels.items()
            for key in [_key(value)]
            if key in summary["mean"]
        },
    }


def _key(value: int | Sequence[int]) -> str:
    """How nnU-Net's summary names a label or a region."""
    return str(value) if isinstance(value, int) else str(tuple(value))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
