"""nnU-Net's dataset.json."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from veloxseg.errors import DatasetError
from veloxseg.validation import describe_faults

FILE_NAME = "dataset.json"


class DatasetDescription(BaseModel):
    """What nnU-Net's dataset.json says: channels, labels, number and kind of files.

    Keys that are not named here (``licence``, ``description``, ...) are kept as they are.

    Attributes:
        channel_names: Channel index as text, from ``"0"`` on, to its name (``CT``, ``PET``).
        labels: Name to value, ``background`` being 0; a region is a list of values. A label named
            ``ignore`` has the highest value and marks voxels without annotation.
        num_training: Number of training cases (``numTraining``).
        file_ending: Ending of images and labels alike, with its dot.
        regions_class_order: With regions: the value to write for each region, later ones over
            earlier ones, in the order of ``labels``.
        overwrite_image_reader_writer: Name of nnU-Net's class to read the files with.
        optional: Names of channels whose file a case may lack; every case has one channel at
            least. A key of ours, which nnU-Net passes by.
    """

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    channel_names: dict[str, str]
    labels: dict[str, int | tuple[int, ...]]
    num_training: int = Field(alias="numTraining", ge=0)
    file_ending: str = Field(pattern=r"^\.")
    regions_class_order: tuple[int, ...] | None = None
    overwrite_image_reader_writer: str | None = None
    optional: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _recognise_the_old_form(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        labels = content.get("labels")
        if "modality" in content and "channel_names" not in content:
            raise ValueError(
                "'modality' instead of 'channel_names': the form of nnU-Net v1 and the Medical "
                "Segmentation Decathlon. Convert the dataset: veloxseg convert msd SRC"
            )
        if isinstance(labels, dict) and labels and all(str(name).isdigit() for name in labels):
            raise ValueError(
                f"labels {labels} go from value to name. Expected from name to value, such as "
                '{"background": 0, "tumour": 1}. Swap them'
            )
        return content

    @model_validator(mode="after")
    def _check_channels(self) -> "DatasetDescription":
        expected = [str(index) for index in range(len(self.channel_names))]
        if not expected or sorted(self.channel_names, key=_as_number) != expected:
            raise ValueError(
                f"channel_names has keys {list(self.channel_names)}. "
                'Expected "0", "1", ... without a gap'
            )
        return self

    @model_validator(mode="after")
    def _check_optional(self) -> "DatasetDescription":
        unknown = [name for name in self.optional if name not in self.channels]
        if unknown:
            raise ValueError(
                f"optional names {', '.join(unknown)}. Expected some of the channels "
                f"{', '.join(self.channels)}. Correct the name, or remove it"
            )
        if self.optional and len(set(self.channels)) < self.num_channels:
            raise ValueError(
                f"channel_names has a name twice ({', '.join(self.channels)}). Expected different "
                "names where channels are optional. Rename one"
            )
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> "DatasetDescription":
        if self.labels.get("background") != 0:
            raise ValueError(
                f"labels has background {self.labels.get('background', 'missing')}. "
                'Expected "background": 0'
            )
        if isinstance(self.labels.get("ignore"), tuple):
            raise ValueError("the label 'ignore' is a list. Expected one value, the highest")
        values = self.label_values
        if values != tuple(range(len(values))):
            raise ValueError(
                f"labels has values {list(values)}. Expected consecutive ones from 0. "
                "Renumber the labels in dataset.json and in the label files alike"
            )
        if self.ignore_label is not None and self.ignore_label <= max(self._annotated_values()):
            raise ValueError(
                f"the label 'ignore' is {self.ignore_label}. Expected the highest value of all"
            )
        return self

    @model_validator(mode="after")
    def _check_regions(self) -> "DatasetDescription":
        if not self.has_regions:
            return self
        regions = [name for name in self.labels if name not in ("background", "ignore")]
        order = self.regions_class_order
        if order is None or len(order) != len(regions):
            raise ValueError(
                f"regions_class_order is {None if order is None else list(order)}. "
                f"Expected one value for each of the regions {', '.join(regions)}"
            )
        if not set(order) <= set(self._annotated_values()) - {0}:
            raise ValueError(
                f"regions_class_order is {list(order)}. Expected values that labels has, not 0"
            )
        return self

    @property
    def num_channels(self) -> int:
        """Number of images a case has."""
        return len(self.channel_names)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels in their order."""
        return tuple(self.channel_names[str(index)] for index in range(self.num_channels))

    @property
    def optional_channels(self) -> tuple[int, ...]:
        """Numbers of the channels whose file a case may lack, from 0, in rising order."""
        return tuple(i for i, name in enumerate(self.channels) if name in self.optional)

    @property
    def read_by_itk(self) -> bool:
        """Whether nnU-Net reads the files with ITK, which is stricter than nibabel."""
        if self.overwrite_image_reader_writer not in (None, "None"):
            return self.overwrite_image_reader_writer == "SimpleITKIO"
        return self.file_ending != ".nii"

    @property
    def has_regions(self) -> bool:
        """Whether a label stands for several values, as nnU-Net decides it."""
        return any(isinstance(value, tuple) and len(value) > 1 for value in self.labels.values())

    @property
    def ignore_label(self) -> int | None:
        """Value of voxels without annotation, if there is one."""
        value = self.labels.get("ignore")
        return value if isinstance(value, int) else None

    @property
    def label_values(self) -> tuple[int, ...]:
        """All values a label file may hold, ``ignore`` included, in rising order."""
        ignore = {self.ignore_label} if self.ignore_label is not None else set()
        return tuple(sorted(self._annotated_values() | ignore))

    def to_json(self) -> dict[str, Any]:
        """Content of dataset.json, nnU-Net's own keys as nnU-Net spells them."""
        content = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        if not self.optional:
            del content["optional"]
        return content

    def _annotated_values(self) -> set[int]:
        return {
            value
            for name, values in self.labels.items()
            if name != "ignore"
            for value in (values if isinstance(values, tuple) else (values,))
        }


def read_description(folder: Path) -> DatasetDescription:
    """Read and check ``dataset.json`` of a dataset folder.

    Raises:
        DatasetError: the folder or the file is missing, or what it says breaks nnU-Net's rules.
    """
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder. Expected a dataset in nnU-Net's raw format.")
    if not path.is_file():
        raise DatasetError(
            f"{folder}: no {FILE_NAME}. Expected nnU-Net's raw format. "
            "Finish or start its conversion: veloxseg convert ..."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not JSON ({error}). Correct it at that place.") from error
    return validate_description(content, where=str(path))


def validate_description(content: Any, *, where: str) -> DatasetDescription:
    """Check the content of a dataset.json.

    Raises:
        DatasetError: it breaks nnU-Net's rules; ``where`` begins the message.
    """
    try:
        return DatasetDescription.model_validate(content)
    except ValidationError as error:
        raise DatasetError(f"{where}: {describe_faults(error)}.") from error


def _as_number(text: str) -> int:
    return int(text) if text.isdigit() else -1
