"""The best single threshold on one channel: what a network has to beat.

    python benchmarks/threshold_baseline.py RAW_DATASET SPLITS.json --channel 1 --fold 0

The threshold with the best mean Dice over the training cases of the fold is applied to its
validation cases. Every foreground label counts as one class. Prints JSON.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from veloxseg.evaluation.metrics import dice
from veloxseg.volumes.reading import read_volume


def case_dice(dataset: Path, case: str, channel: int, thresholds: np.ndarray) -> list[float]:
    """Dice of ``image >= threshold`` against the foreground, for every threshold."""
    image = read_volume(dataset / "imagesTr" / f"{case}_{channel:04d}.nii.gz").data
    foreground = read_volume(dataset / "labelsTr" / f"{case}.nii.gz").data > 0
    return [dice(image >= threshold, foreground) for threshold in thresholds]


def main() -> None:
    """Parse the command line and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("splits", type=Path)
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--thresholds", type=float, nargs=3, default=(0.5, 15.0, 0.25))
    options = parser.parse_args()

    low, high, step = options.thresholds
    thresholds = np.arange(low, high + step / 2, step)
    split = json.loads(options.splits.read_text())[options.fold]
    scores = {
        part: np.array(
            [case_dice(options.dataset, c, options.channel, thresholds) for c in split[part]]
        )
        for part in ("train", "val")
    }
    best = int(np.nanmean(scores["train"], axis=0).argmax())
    result = {
        "threshold": float(thresholds[best]),
        "training_cases": len(split["train"]),
        "training_mean_dice": float(np.nanmean(scores["train"][:, best])),
        "validation_mean_dice": float(np.nanmean(scores["val"][:, best])),
        "validation_dice": dict(zip(split["val"], scores["val"][:, best].tolist(), strict=True)),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
