"""What a user writes on the command line as one word: channels, labels, spacings, runs."""

from math import inf
from pathlib import Path

from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError


def channel_patterns(texts: list[str]) -> dict[str, str]:
    """Channel name to pattern, of ``NAME=PATTERN``, in the order given.

    Raises:
        DatasetError: a text has another form, or a name comes twice.
    """
    channels: dict[str, str] = {}
    for text in texts:
        name, separator, pattern = text.partition("=")
        if not (name and separator and pattern) or name in channels:
            raise DatasetError(
                f"--channel {text}: expected NAME=PATTERN, each name once, such as "
                "--channel CT='{case}/CT.nii.gz'."
            )
        channels[name] = pattern
    return channels


def label_names(texts: list[str]) -> dict[str, int]:
    """Label name to value, of ``NAME=VALUE`` or several with commas between them.

    Raises:
        DatasetError: a text has another form, or a name or a value comes twice.
    """
    names: dict[str, int] = {}
    for text in (part for texts_ in texts for part in texts_.split(",")):
        name, value = (word.strip() for word in text.partition("=")[::2])
        if not name or not value.isdecimal() or name in names or int(value) in names.values():
            raise DatasetError(
                f"--labels {text}: expected NAME=VALUE, each name and value once, such as "
                "--labels lesion=1."
            )
        names[name] = int(value)
    return names


def spacing_zyx(text: str) -> tuple[float, float, float] | None:
    """A spacing in mm of one number for all axes or three, ``Z,Y,X``; None for ``keep``.

    Raises:
        DatasetError: the text has another form, or a number is not positive.
    """
    if text == "keep":
        return None
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(0 < number < inf for number in numbers):
        raise DatasetError(
            f"--spacing {text}: expected millimetres, one number or three as Z,Y,X, such as "
            "--spacing 1 or --spacing 3,1,1, or --spacing keep."
        )
    z, y, x = numbers * (3 // len(numbers))
    return z, y, x


def method_folders(texts: list[str]) -> dict[str, Path]:
    """Method name to its folder of masks, of ``NAME=FOLDER``, in the order given.

    Raises:
        DatasetError: a text has another form, or a name comes twice.
    """
    folders: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not (name.strip() and folder) or name in folders:
            raise DatasetError(
                f"--other {text}: expected NAME=FOLDER, each name once, such as "
                "--other unet=masks_unet."
            )
        folders[name] = Path(folder)
    return folders


def workspace_of_run(run: str, root: Path | None) -> Workspace | None:
    """Where a run named ``DATASET`` or ``DATASET/FOLD`` is looked up; None for a folder.

    Raises:
        DatasetError: the run is no folder, and neither a root nor nnU-Net's variables say where.
    """
    try:
        return Workspace.resolve(root)
    except DatasetError:
        if Path(run).expanduser().exists():
            return None
        raise
