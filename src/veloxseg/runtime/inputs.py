"""The cases to predict and where their masks go, checked before anything is computed."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from veloxseg.datasets.problems import Problem, describe_two_grids, raise_problems
from veloxseg.errors import DatasetError, ImageReadError
from veloxseg.volumes.reading import read_grid
from veloxseg.volumes.volume import same_grid

_NIFTI_ENDINGS = (".nii.gz", ".nii")
_IMAGE_ENDINGS = (*_NIFTI_ENDINGS, ".nrrd", ".mha", ".mhd")


@dataclass(frozen=True, kw_only=True)
class PredictionCase:
    """One case to predict.

    Attributes:
        name: The case's name.
        images: One file a channel, in the channels' order.
        output: The mask to write.
    """

    name: str
    images: tuple[Path, ...]
    output: Path


def find_prediction_cases(
    inputs: Sequence[Path],
    output: Path,
    *,
    channels: Sequence[str],
    file_ending: str,
) -> list[PredictionCase]:
    """Find the cases of a folder, or take files as the channels of one case.

    Args:
        inputs: One folder with ``CASE_0000.nii.gz``, ``CASE_0001.nii.gz``, ..., or the files of one
            case in the channels' order.
        output: A folder for the masks, ``CASE.nii.gz`` each; for one case a file as well.
        channels: Names of the images that the network was trained on, in its order.
        file_ending: Of the images in a folder, and of the masks, with its dot. A folder without one
            such image but with NIfTI images, compressed or not, is taken with these.

    Raises:
        DatasetError: channels are missing, nothing is found, files cannot be read or channels of a
            case lie on different grids; all cases are reported at once.
    """
    if len(inputs) == 1 and inputs[0].is_dir():
        if output.name.endswith(_IMAGE_ENDINGS):
            raise DatasetError(
                f"{inputs[0]} is a folder, the output {output} a file. Give a folder for the masks."
            )
        ending, found = _find_images(inputs[0], channels, file_ending)
        files = _complete_cases(inputs[0], found, channels, ending)
        cases = [
            PredictionCase(name=name, images=images, output=output / f"{name}{ending}")
            for name, images in files.items()
        ]
    else:
        cases = [_case_of_files(inputs, output, channels, file_ending)]
    problems = [problem for case in cases for problem in _check_images(case, channels)]
    raise_problems(str(inputs[0]), problems)
    return cases


def _find_images(
    folder: Path, channels: Sequence[str], file_ending: str
) -> tuple[str, dict[str, dict[int, Path]]]:
    """The ending that the images have, and case name -> channel -> image."""
    for ending in dict.fromkeys((file_ending, *_NIFTI_ENDINGS)):
        found: dict[str, dict[int, Path]] = defaultdict(dict)
        for path in sorted(folder.iterdir()):
            match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", path.name)
            if match is not None and not path.name.startswith("."):
                found[match[1]][int(match[2])] = path
        if found:
            return ending, found
    raise DatasetError(
        f"{folder}: no image. Expected CASE_0000{file_ending} for {channels[0]}"
        + (", CASE_0001 for " + channels[1] if len(channels) > 1 else "")
        + ". Rename the images, or give the files of one case: -i FILE for each channel."
    )


def _complete_cases(
    folder: Path, found: dict[str, dict[int, Path]], channels: Sequence[str], ending: str
) -> dict[str, tuple[Path, ...]]:
    """Case name -> its files in the channels' order."""
    problems = []
    for name, files in found.items():
        if unknown := sorted(set(files) - set(range(len(channels)))):
            problems.append(
                f"Case {name}: channel {unknown[0]:04d}. The network knows "
                f"{len(channels)}: {', '.join(channels)}. Remove the file."
            )
        problems += [
            f"Case {name}: no {channel} image {folder / f'{name}_{index:04d}{ending}'}. "
            "Expected one file for each channel. Add it, or remove the case."
            for index, channel in enumerate(channels)
            if index not in files
        ]
    raise_problems(
        str(folder),
        [Problem(case=None, severity="error", message=message) for message in problems],
    )
    return {
        name: tuple(files[index] for index in range(len(channels))) for name, files in found.items()
    }


def _case_of_files(
    inputs: Sequence[Path], output: Path, channels: Sequence[str], file_ending: str
) -> PredictionCase:
    if absent := [path for path in inputs if not path.exists()]:
        raise DatasetError(
            f"{', '.join(map(str, absent))}: found nothing. Expected a folder of cases, or the "
            "image files of one case. Check the path."
        )
    if len(inputs) != len(channels):
        raise DatasetError(
            f"{len(inputs)} input{'s' if len(inputs) != 1 else ''} given: "
            f"{', '.join(map(str, inputs)) or 'none'}. The network was trained on "
            f"{len(channels)} channel(s): {', '.join(channels)}. Give one file for each, in that "
            "order (-i FILE -i FILE), or one folder of cases."
        )
    if output.name.endswith(_IMAGE_ENDINGS):
        name = _stem(output)
    else:
        name = re.sub(r"_0000$", "", _stem(inputs[0]))
        output = output / f"{name}{file_ending}"
    return PredictionCase(name=name, images=tuple(inputs), output=output)


def _stem(path: Path) -> str:
    ending = next((end for end in _IMAGE_ENDINGS if path.name.endswith(end)), path.suffix)
    return path.name.removesuffix(ending)


def _check_images(case: PredictionCase, channels: Sequence[str]) -> list[Problem]:
    messages = []
    grids = []
    for channel, path in zip(channels, case.images, strict=True):
        if path.resolve() == case.output.resolve():
            messages.append(f"Case {case.name}: {path} would be overwritten. Give another output.")
        try:
            grids.append((channel, read_grid(path)))
        except ImageReadError as error:
            messages.append(f"Case {case.name}, {channel}: {error}")
    for channel, grid in grids[1:]:
        first_channel, first = grids[0]
        if not same_grid(first, grid):
            messages.append(describe_two_grids(case.name, first_channel, first, channel, grid))
    return [Problem(case=case.name, severity="error", message=message) for message in messages]
