"""How many folds a run's cross-validation has when it is whole."""

from pathlib import Path

from veloxseg.atomic import read_json
from veloxseg.datasets.splits import SPLITS_FILE
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import VeloxSegError

NUM_FOLDS = 5
"""Of a dataset whose splits are not found: as nnU-Net makes them."""


def count_folds(run: Path) -> int:
    """Count the splits of the dataset that a run was trained on.

    Args:
        run: ``nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION``.

    Returns:
        How many splits its ``splits_final.json`` has: that in the ``nnUNet_preprocessed`` beside
        ``nnUNet_results``, or else where nnU-Net's environment variables say. Without one that can
        be read, `NUM_FOLDS`.
    """
    dataset = run.resolve().parent
    for root in (dataset.parent.parent, None):
        try:
            splits = read_json(Workspace.resolve(root).preprocessed / dataset.name / SPLITS_FILE)
        except (OSError, VeloxSegError):
            continue
        if isinstance(splits, list) and splits:
            return len(splits)
    return NUM_FOLDS
