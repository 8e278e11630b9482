"""Which series become which channels: rules in a small JSON file, or in words.

{"channels": {"CT": {"modality": "CT", "exclude": {"description": "scout"}},
              "PET": {"modality": "PT"}},
 "labels": {"tumour": "^GTV"}}
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from veloxseg.errors import DatasetError
from veloxseg.validation import describe_faults


def _checked_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"'{text}' is no regular expression ({error})") from error
    return text


def _name_alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Pattern = Annotated[str, AfterValidator(_checked_pattern)]
"""A regular expression, found anywhere in an attribute, in any case."""

_KEYWORDS = {
    "modality": "Modality",
    "description": "SeriesDescription",
    "protocol": "ProtocolName",
    "sequence": "SequenceName",
    "image_type": "ImageType",
    "body_part": "BodyPartExamined",
    "contrast": "ContrastBolusAgent",
    "kernel": "ConvolutionKernel",
    "manufacturer": "Manufacturer",
    "study": "StudyDescription",
    "number": "SeriesNumber",
    "uid": "SeriesInstanceUID",
    "echo_time": "echo_time",
    "b_value": "b_value",
    "time_point": "time_point",
    "frame_time": "frame_time",
    "trigger_time": "trigger_time",
    "acquisition": "acquisition",
}
_SEARCHED = (
    "description",
    "protocol",
    "sequence",
    "image_type",
    "body_part",
    "contrast",
    "kernel",
    "manufacturer",
    "study",
)


class SeriesRule(BaseModel):
    """What a series must look like: every pattern that is given must be found.

    Attributes:
        modality: Modality (0008,0060), the whole of it: ``CT``, ``PT``, ``MR``.
        description: Series Description (0008,103E).
        protocol: Protocol Name (0018,1030).
        sequence: Sequence Name (0018,0024).
        image_type: Image Type (0008,0008), its values joined by a backslash.
        body_part: Body Part Examined (0018,0015).
        contrast: Contrast/Bolus Agent (0018,0010).
        kernel: Convolution Kernel (0018,1210).
        manufacturer: Manufacturer (0008,0070).
        study: Study Description (0008,1030).
        number: Series Number (0020,0011), the whole of it.
        uid: Series Instance UID (0020,000E), the whole of it.
        echo_time: In a series of several echoes, the whole of Echo Time (0018,0081) in ms.
        b_value: In a series of several weightings, the whole of Diffusion b-value (0018,9087).
        time_point: In a series of several, Temporal Position Identifier (0020,0100).
        frame_time: In a dynamic series, Frame Reference Time (0054,1300) in ms.
        trigger_time: In a gated series, Trigger Time (0018,1060) in ms.
        acquisition: In a series of several acquisitions of one place, Acquisition Number
            (0020,0012).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: Pattern | None = None
    description: Pattern | None = None
    protocol: Pattern | None = None
    sequence: Pattern | None = None
    image_type: Pattern | None = None
    body_part: Pattern | None = None
    contrast: Pattern | None = None
    kernel: Pattern | None = None
    manufacturer: Pattern | None = None
    study: Pattern | None = None
    number: Pattern | None = None
    uid: Pattern | None = None
    echo_time: Pattern | None = None
    b_value: Pattern | None = None
    time_point: Pattern | None = None
    frame_time: Pattern | None = None
    trigger_time: Pattern | None = None
    acquisition: Pattern | None = None

    def matches(self, tags: Mapping[str, str]) -> bool:
        """Whether every pattern is found in its attribute.

        Args:
            tags: ``tags`` of a :class:`veloxseg.volumes.dicom.index.DicomSeries`.
        """
        for name, keyword in _KEYWORDS.items():
            pattern = getattr(self, name)
            # What tells repetitions apart goes before what the series' first image says.
            text = tags.get(name) or tags.get(keyword, "")
            find = re.search if name in _SEARCHED else re.fullmatch
            if pattern is not None and not find(pattern, text, re.IGNORECASE):
                return False
        return True

    def __str__(self) -> str:
        """The patterns in words."""
        given = ((name, getattr(self, name)) for name in _KEYWORDS)
        return ", ".join(f"{name} '{pattern}'" for name, pattern in given if pattern is not None)


class ChannelRule(SeriesRule):
    """Which series becomes a channel, and how.

    Attributes:
        exclude: A series that this matches is none of the channel's.
        min_slices: Series of fewer slices, as scouts, are passed over.
        prefer: Which of several matching series to take; None makes several an error.
        optional: Whether a study may lack the channel.
        suv: Whether PET becomes SUV by body weight; false keeps its units.
    """

    exclude: SeriesRule | None = None
    min_slices: int = Field(default=5, ge=2)
    prefer: Literal["most_slices", "fewest_slices"] | None = None
    optional: bool = False
    suv: bool = True

    def matches(self, tags: Mapping[str, str]) -> bool:
        """Whether a series' attributes match and are not excluded."""
        excluded = self.exclude is not None and self.exclude.matches(tags)
        return super().matches(tags) and not excluded


class LabelRule(BaseModel):
    """Which regions make a label: those in whose names the pattern is found.

    Attributes:
        name: Pattern for an ROI's name, or a segment's label or type.
        optional: Whether a study may lack it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Pattern
    optional: bool = False

    def matches(self, *names: str) -> bool:
        """Whether the pattern is found in one of a region's names."""
        return any(re.search(self.name, name, re.IGNORECASE) for name in names)


class DicomRules(BaseModel):
    """How a study becomes a case.

    Attributes:
        channels: Channel name to its rule, in the order of the channels.
        labels: Label name to its rule; values are 1, 2, ... in this order, and where regions
            overlap the later label holds. Without any, test images are written.
        label_files: Which structure sets and segmentations to look into (``modality`` is
            ``RTSTRUCT`` or ``SEG``).
        frames_of_reference: Whether all channels must share one frame of reference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: dict[str, ChannelRule] = Field(min_length=1)
    labels: dict[str, Annotated[LabelRule, BeforeValidator(_name_alone)]] = {}
    label_files: SeriesRule = SeriesRule()
    frames_of_reference: Literal["same", "any"] = "same"

    @property
    def optional(self) -> tuple[str, ...]:
        """Names of the channels that a study may lack."""
        return tuple(name for name, rule in self.channels.items() if rule.optional)

    @property
    def label_values(self) -> dict[str, int]:
        """Label name to value."""
        return {name: value for value, name in enumerate(self.labels, start=1)}


def read_rules(path: Path) -> DicomRules:
    """Read rules from a JSON file.

    Raises:
        DatasetError: the file is missing, no JSON, or has unknown keys or broken patterns.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such file. Expected rules as JSON. Check the path.")
    try:
        return DicomRules.model_validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        raise DatasetError(f"{path}: {_in_words(error)}.") from error


def rules_in_words(channels: Sequence[str], labels: Sequence[str] = ()) -> DicomRules:
    """Make rules of words, as the command line takes them.

    Args:
        channels: One a channel: ``NAME=KEY:PATTERN,KEY:PATTERN``, as ``CT=modality:CT``; ``!KEY``
            excludes.
        labels: One a label: ``NAME=PATTERN``, as ``tumour=GTV``.

    Raises:
        DatasetError: a word has not this form, a name comes twice, or a key is unknown.
    """
    rules = {name: _rule_in_words(text) for name, text in _named("--channel", channels).items()}
    content = {"channels": rules, "labels": _named("--label", labels)}
    try:
        return DicomRules.model_validate(content)
    except ValidationError as error:
        raise DatasetError(f"--channel, --label: {_in_words(error)}.") from error


def _named(option: str, texts: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for text in texts:
        name, separator, rest = (part.strip() for part in text.partition("="))
        if not (name and separator and rest) or name in named:
            raise DatasetError(
                f"{option} {text}: expected NAME=..., each name once, such as "
                "--channel CT=modality:CT or --label tumour=GTV."
            )
        named[name] = rest
    return named


def _rule_in_words(text: str) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    for part in text.split(","):
        key, separator, pattern = (word.strip() for word in part.partition(":"))
        if not separator or not pattern:
            raise DatasetError(
                f"--channel ...={text}: '{part}' has no form KEY:PATTERN. Expected such as "
                "modality:PT,description:AC,!description:NAC. A pattern with a comma needs --rules."
            )
        if key.startswith("!"):
            rule.setdefault("exclude", {})[key[1:]] = pattern
        else:
            rule[key] = pattern
    return rule


def _in_words(error: ValidationError) -> str:
    unknown_key = f"unknown key. Known for a series: {', '.join(_KEYWORDS)}"
    return describe_faults(error, unknown_key=unknown_key)
