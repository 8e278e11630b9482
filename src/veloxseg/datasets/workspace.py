"""Where nnU-Net's three folders are, and which dataset a name or a number means."""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from veloxseg.errors import DatasetError
from veloxseg.installation import num_cores

_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_TITLE = r"([A-Za-z0-9][A-Za-z0-9_\-]*)"
_NAME = re.compile(rf"Dataset(\d{{3,}})_{_TITLE}")
_SHORT_NAME = re.compile(rf"(\d+)_{_TITLE}")


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """nnU-Net's three folders.

    Attributes:
        raw: Datasets as nnU-Net defines them, one ``DatasetNNN_Name`` folder each.
        preprocessed: Fingerprints, plans and preprocessed cases.
        results: Trained runs.
    """

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def resolve(cls, root: Path | None = None) -> "Workspace":
        """Take the three folders below ``root``, or from nnU-Net's environment variables.

        Raises:
            DatasetError: no root is given and a variable is not set.
        """
        if root is not None:
            root = root.expanduser().resolve()
            return cls(**{name.removeprefix("nnUNet_"): root / name for name in _VARIABLES})
        missing = [name for name in _VARIABLES if not os.environ.get(name)]
        if missing:
            raise DatasetError(
                f"The folders to work in are unknown: {', '.join(missing)} not set. "
                "Give --root DIR, or set nnU-Net's three environment variables."
            )
        return cls(
            **{
                name.removeprefix("nnUNet_"): Path(os.environ[name]).expanduser().resolve()
                for name in _VARIABLES
            }
        )

    @property
    def option(self) -> str:
        """What a command needs to mean these folders: `` --root DIR``; nothing where it cannot."""
        root = self.raw.parent
        folders = tuple(root / name for name in _VARIABLES)
        if (self.raw, self.preprocessed, self.results) != folders:
            return ""  # they are where nnU-Net's variables say
        return f" --root {shlex.quote(str(root))}"

    def export(self) -> None:
        """Create the folders and set nnU-Net's environment variables to them.

        nnU-Net reads the variables when it is imported: call this first. Where nothing else is
        said, nnU-Net starts no more processes than there are cores.
        """
        os.environ.setdefault("nnUNet_def_n_proc", str(min(8, num_cores())))
        for name in _VARIABLES:
            folder: Path = getattr(self, name.removeprefix("nnUNet_"))
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[name] = str(folder)

    def dataset_name(self, dataset: str) -> str:
        """Full name (``Dataset004_Hippocampus``) of an existing dataset given by number or name.

        ``4``, ``4_Hippocampus`` and ``Dataset004_Hippocampus`` mean the same.

        Raises:
            DatasetError: there is no such dataset, or its number is taken twice.
        """
        known = sorted(
            {
                entry.name
                for folder in (self.raw, self.preprocessed, self.results)
                if folder.is_dir()
                for entry in folder.iterdir()
                if entry.is_dir() and _NAME.fullmatch(entry.name)
            }
        )
        if dataset.isdigit():
            wanted = [name for name in known if parse_dataset_name(name)[0] == int(dataset)]
        else:
            number, title = parse_dataset_name(dataset)
            wanted = [name for name in known if parse_dataset_name(name)[0] == number]
            if wanted and _full_name(number, title) not in wanted:
                raise DatasetError(
                    f"{self.raw}: no {dataset}, but number {number} is {', '.join(wanted)}. "
                    "Use that name, or convert the new dataset under a free number."
                )
        if len(wanted) > 1:
            raise DatasetError(
                f"Dataset number {dataset} is taken twice: {', '.join(wanted)} in {self.raw} or "
                "its sister folders. nnU-Net needs one name per number: rename or remove one."
            )
        if not wanted:
            raise DatasetError(
                f"{self.raw}: no dataset {dataset}. Found: {', '.join(known) or 'none'}. "
                "Convert one first: veloxseg convert folder SRC Dataset100_Name ..."
            )
        return wanted[0]

    def new_dataset_name(self, dataset: str) -> str:
        """Check the full name of a dataset to be made: well formed, its number not taken.

        Raises:
            DatasetError: the name is not ``DatasetNNN_Name`` (or ``NNN_Name``), or another dataset
                has its number.
        """
        number, title = parse_dataset_name(dataset)
        name = _full_name(number, title)
        for folder in (self.raw, self.preprocessed, self.results):
            for entry in folder.glob(f"Dataset{number:03d}_*"):
                if entry.name != name:
                    raise DatasetError(
                        f"{folder}: number {number} is taken by {entry.name}. "
                        f"Choose a free number for {title}."
                    )
        return name


def parse_dataset_name(dataset: str) -> tuple[int, str]:
    """Split ``Dataset004_Hippocampus`` or ``4_Hippocampus`` into (4, "Hippocampus").

    Raises:
        DatasetError: the text has neither form.
    """
    match = _NAME.fullmatch(dataset) or _SHORT_NAME.fullmatch(dataset)
    if match is None:
        raise DatasetError(
            f"'{dataset}' is no dataset name. Expected a number and a name, like Dataset100_Tumour "
            "or 100_Tumour."
        )
    return int(match.group(1)), match.group(2)


def _full_name(number: int, title: str) -> str:
    return f"Dataset{number:03d}_{title}"
