"""The cases to predict and where their masks go, checked before anything is computed."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from veloxseg.datasets.problems import Problem, describe_two_grids, raise_problems
from veloxseg.errors import DatasetError, ImageReadError
from veloxseg.runtime.channels import describe_channels, describe_missing, order_by_channel
from veloxseg.volumes.reading import read_grid
from veloxseg.volumes.volume import same_grid

_NIFTI_ENDINGS = (".nii.gz", ".nii")
_IMAGE_ENDINGS = (*_NIFTI_ENDINGS, ".nrrd", ".mha", ".mhd")


@dataclass(frozen=True, kw_only=True)
class PredictionCase:
    """One case to predict.

    Attributes:
        name: The case's name.
        images: One file a channel, in the channels' order; None for an optional channel that the
            case lacks.
        output: The mask to write.
    """

    name: str
    images: tuple[Path | None, ...]
    output: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are there, in the channels' order."""
        return tuple(path for path in self.images if path is not None)


def find_prediction_cases(
    inputs: Sequence[Path] | Mapping[str, Path],
    output: Path,
    *,
    channels: Sequence[str],
    file_ending: str,
    optional: Sequence[str] = (),
    without: Sequence[str] = (),
) -> list[PredictionCase]:
    """Find the cases of a folder, or take files as the channels of one case.

    Args:
        inputs: One folder with ``CASE_0000.nii.gz``, ``CASE_0001.nii.gz``, ..., or the files of one
            case in the channels' order or by the channels' names.
        output: A folder for the masks, ``CASE.nii.gz`` each; for one case a file as well.
        channels: Names of the images that the network was trained on, in its order.
        optional: Those of the channels that a case may lack.
        without: Optional channels that are passed over where a case has them.
        file_ending: Of the images in a folder, and of the masks, with its dot. A folder without one
            such image but with NIfTI images, compressed or not, is taken with these.

    Raises:
        DatasetError: channels are missing or unknown, nothing is found, files cannot be read or
            channels of a case lie on different grids; all cases are reported at once.
    """
    _require_optional(without, channels, optional)
    folder = input_folder(inputs)
    if folder is not None:
        if output.name.endswith(_IMAGE_ENDINGS):
            raise DatasetError(
                f"{folder} is a folder, the output {output} a file. Give a folder for the masks."
            )
        ending, found = _find_images(folder, channels, file_ending)
        files = _complete_cases(folder, found, channels, optional, ending)
        cases = [
            PredictionCase(name=name, images=images, output=output / f"{name}{ending}")
            for name, images in files.items()
        ]
    else:
        cases = [_case_of_files(inputs, output, channels, optional, file_ending)]
    where = str(cases[0].files[0] if folder is None else folder)
    if without:
        cases = _leave_out(cases, channels, without, where=where)
    problems = [problem for case in cases for problem in _check_images(case, channels)]
    raise_problems(where, problems)
    return cases


def parse_inputs(texts: Sequence[str | Path]) -> list[Path] | dict[str, Path]:
    """Tell paths from ``CHANNEL=PATH``.

    A text that is the path of something is a path, whatever is in it.

    Raises:
        DatasetError: some are named and others not, or a channel is named twice.
    """
    named: dict[str, Path] = {}
    paths: list[Path] = []
    for text in map(str, texts):
        name, separator, path = text.partition("=")
        if not separator or not name or not path or "/" in name or Path(text).exists():
            paths.append(Path(text))
            continue
        if name in named:
            raise DatasetError(f"-i {text}: the channel {name} is given twice. Give it once.")
        named[name] = Path(path).expanduser()
    if named and paths:
        raise DatasetError(
            f"-i {paths[0]} is given without its channel, -i {next(iter(named))}=... with one. "
            "Name all channels or none."
        )
    return named or paths


def input_folder(inputs: Sequence[Path] | Mapping[str, Path]) -> Path | None:
    """The folder of cases that is given; None for files of one case."""
    if isinstance(inputs, Mapping) or len(inputs) != 1 or not inputs[0].is_dir():
        return None
    return inputs[0]


def _require_optional(
    without: Sequence[str], channels: Sequence[str], optional: Sequence[str]
) -> None:
    if wrong := [name for name in without if name not in optional]:
        raise DatasetError(
            f"--without {wrong[0]}: not an optional channel. The model knows "
            f"{describe_channels(channels, optional)}. It was not trained to do without others."
        )


def _leave_out(
    cases: Sequence[PredictionCase], channels: Sequence[str], without: Sequence[str], *, where: str
) -> list[PredictionCase]:
    """The cases without some channels; a case of nothing else is an error."""
    remaining = [
        replace(
            case,
            images=tuple(
                None if channel in without else path
                for channel, path in zip(channels, case.images, strict=True)
            ),
        )
        for case in cases
    ]
    raise_problems(
        where,
        [
            Problem(
                case=case.name,
                severity="error",
                message=f"Case {case.name}: no image is left without {', '.join(without)}. "
                "Expected one at least. Move the case away, or leave out less.",
            )
            for case in remaining
            if not case.files
        ],
    )
    return remaining


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
    folder: Path,
    found: dict[str, dict[int, Path]],
    channels: Sequence[str],
    optional: Sequence[str],
    ending: str,
) -> dict[str, tuple[Path | None, ...]]:
    """Case name -> its files in the channels' order."""
    but = f" but the optional ones ({', '.join(optional)})" if optional else ""
    problems = []
    for name, files in found.items():
        if unknown := sorted(set(files) - set(range(len(channels)))):
            problems.append(
                f"Case {name}: channel {unknown[0]:04d}. The network knows "
                f"{len(channels)}: {', '.join(channels)}. Remove the file."
            )
        problems += [
            f"Case {name}: no {channel} image {folder / f'{name}_{index:04d}{ending}'}. "
            f"Expected one file for each channel{but}. Add it, or remove the case."
            for index, channel in enumerate(channels)
            if index not in files and channel not in optional
        ]
    raise_problems(
        str(folder),
        [Problem(case=None, severity="error", message=message) for message in problems],
    )
    return {
        name: tuple(files.get(index) for index in range(len(channels)))
        for name, files in found.items()
    }


def _case_of_files(
    inputs: Sequence[Path] | Mapping[str, Path],
    output: Path,
    channels: Sequence[str],
    optional: Sequence[str],
    file_ending: str,
) -> PredictionCase:
    files = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
    if absent := [path for path in files if not path.exists()]:
        raise DatasetError(
            f"{', '.join(map(str, absent))}: found nothing. Expected a folder of cases, or the "
            "image files of one case. Check the path."
        )
    images: list[Path | None] = list(files)
    if isinstance(inputs, Mapping):
        images = order_by_channel(inputs, channels, optional)
    known = describe_channels(channels, optional)
    if len(images) != len(channels):
        by_name = f", by name those that there are (-i {channels[0]}=FILE)" if optional else ""
        raise DatasetError(
            f"{len(files)} input{'s' if len(files) != 1 else ''} given: "
            f"{', '.join(map(str, files)) or 'none'}. The network was trained on "
            f"{len(channels)} channel(s): {known}. Give one file for each, in that "
            f"order (-i FILE -i FILE){by_name}, or one folder of cases."
        )
    if (missing := describe_missing(images, channels, optional)) is not None:
        raise DatasetError(
            f"{', '.join(map(str, files))}: {missing} given. The network was trained on "
            f"{known}. Give one for each that is not optional, and one at least: -i CHANNEL=FILE."
        )
    if output.name.endswith(_IMAGE_ENDINGS):
        name = _stem(output)
    else:
        index, first = next((i, path) for i, path in enumerate(images) if path is not None)
        name = _stem(first).removesuffix(f"_{index:04d}")
        output = output / f"{name}{file_ending}"
    return PredictionCase(name=name, images=tuple(images), output=output)


def _stem(path: Path) -> str:
    ending = next((end for end in _IMAGE_ENDINGS if path.name.endswith(end)), path.suffix)
    return path.name.removesuffix(ending)


def _check_images(case: PredictionCase, channels: Sequence[str]) -> list[Problem]:
    messages = []
    grids = []
    for channel, path in zip(channels, case.images, strict=True):
        if path is None:
            continue
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
