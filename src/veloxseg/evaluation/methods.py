"""The masks of one or several methods, all of the same cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from veloxseg.errors import DatasetError
from veloxseg.evaluation.label_set import read_mask, values_in
from veloxseg.evaluation.pairing import (
    MaskPair,
    PredictedMasks,
    find_predictions,
    pair_as,
    pair_masks,
)
from veloxseg.evaluation.spreading import spread


@dataclass(frozen=True, kw_only=True)
class Methods:
    """What is evaluated.

    Attributes:
        masks: Each method's name to its masks; the one that the others are compared with is first.
        pairs: Each method's name to its masks with their references, the same cases for all.
        not_predicted: Cases of the references that the first method has no prediction of.
    """

    masks: Mapping[str, PredictedMasks]
    pairs: Mapping[str, Sequence[MaskPair]]
    not_predicted: tuple[str, ...]

    @property
    def all_pairs(self) -> list[MaskPair]:
        """Those of all methods, one method after the other."""
        return [pair for pairs in self.pairs.values() for pair in pairs]


def find_methods(
    folders: Mapping[str, Path], reference: Path, ending: str, *, subset: bool
) -> Methods:
    """Find the masks of each method and their references.

    Args:
        folders: Each method's name to its folder; the first has the cases to evaluate.
        reference: Folder of reference masks.
        ending: Of all masks' names.
        subset: Allow references without a prediction.

    Raises:
        DatasetError: a folder is missing or has no masks, or a mask lacks its counterpart.
    """
    masks = {name: find_predictions(folder, ending) for name, folder in folders.items()}
    main, *others = masks
    pairs, not_predicted = pair_masks(masks[main], reference, ending, subset=subset)
    compared = {name: pair_as(pairs, masks[name], method=name) for name in others}
    return Methods(masks=masks, pairs={main: pairs, **compared}, not_predicted=not_predicted)


def method_folders(
    prediction: Path, name: str | None, others: Mapping[str, Path]
) -> dict[str, Path]:
    """Each method's name to its folder, the evaluated one first.

    Args:
        prediction: Folder of the method to evaluate.
        name: Its name; None takes the folder's.
        others: The other methods.

    Raises:
        DatasetError: a name is empty, or two methods have it.
    """
    name = prediction.resolve().name if name is None else name
    if name in others:
        raise DatasetError(
            f"Two methods are called {name}. Expected different names: --name NAME for the first, "
            "--other NAME=FOLDER for the others."
        )
    if not all(text.strip() for text in (name, *others)):
        raise DatasetError("A method has no name. Expected one: --name NAME, --other NAME=FOLDER.")
    return {name: prediction, **others}


def values_found(pairs: Sequence[MaskPair], *, num_workers: int) -> set[int]:
    """All values that the masks of some cases hold.

    Raises:
        DatasetError: a voxel holds no whole number.
        ImageReadError: a file is no whole image.
    """
    files = list({file: (pair.name, file) for pair in pairs for file in pair.files}.values())
    return set().union(*spread(_values_of, files, num_workers=num_workers))


def _values_of(mask: tuple[str, Path]) -> set[int]:
    return values_in(read_mask(*mask).data)
