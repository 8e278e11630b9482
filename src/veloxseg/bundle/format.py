"""What the two JSON files of a bundle say.

``pipeline.json`` is all that the runtime needs beside the model: how an image becomes patches and
logits become a mask. ``manifest.json`` says where the model comes from, and vouches for the files.
"""

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

FORMAT_VERSION = 4
"""The newest format that this version reads.

2 knows optional channels, 3 postprocessing, 4 mirroring unasked.
"""

MANIFEST = "manifest.json"
PIPELINE = "pipeline.json"
NETWORK = "network.json"
WEIGHTS = "weights.safetensors"

Precision = Literal["float32", "bf16", "fp16", "int8"]
Scheme = Literal["z_score", "ct", "none", "rescale_0_1", "rgb_0_1"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Normalisation(_Strict):
    """How one channel's intensities are brought to the network's range; nnU-Net's schemes.

    Attributes:
        scheme: ``z_score``: (x - mean) / std of the case itself; ``ct``: clipped to ``lower`` and
            ``upper``, then (x - mean) / std of the training set; ``none``; ``rescale_0_1``: by the
            case's minimum and maximum; ``rgb_0_1``: divided by 255.
        within_mask: With ``z_score``: statistics of, and applied to, the non-zero region (its holes
            filled) alone; outside it voxels stay as they are.
        mean: With ``ct``: mean of the training set's foreground.
        std: With ``ct``: standard deviation of it.
        lower: With ``ct``: its 0.5th percentile.
        upper: With ``ct``: its 99.5th percentile.
    """

    scheme: Scheme
    within_mask: bool = False
    mean: float | None = None
    std: float | None = None
    lower: float | None = None
    upper: float | None = None

    @model_validator(mode="after")
    def _check_statistics(self) -> "Normalisation":
        statistics = (self.mean, self.std, self.lower, self.upper)
        if self.scheme == "ct" and None in statistics:
            raise ValueError("the scheme ct needs mean, std, lower and upper")
        return self


class Resampling(_Strict):
    """How arrays are brought to another grid; the meaning of nnU-Net's resampling functions.

    Attributes:
        order: Order of the spline along each axis (0 nearest, 1 linear, 3 cubic).
        order_z: Order along the axis of low resolution, when that one is treated apart.
        force_separate_z: Treat it apart always or never; None: where the largest spacing of the
            source, else of the target, is more than ``anisotropy_threshold`` times the smallest.
        anisotropy_threshold: See there.
    """

    order: Literal[0, 1, 2, 3] = 3
    order_z: Literal[0, 1, 2, 3] = 0
    force_separate_z: bool | None = None
    anisotropy_threshold: float = Field(default=3.0, gt=0)


class PostprocessingStep(_Strict):
    """Components of a mask that become background.

    Attributes:
        kind: ``keep_largest``: all but the largest one, or the largest ones if several are of one
            size; ``minimum_volume``: those that are smaller than ``minimum_ml``.
        labels: Values of the mask that are taken together, as of a region or of the whole
            foreground; voxels that share a face, an edge or a corner are connected.
        minimum_ml: With ``minimum_volume``: in ml, on the image's grid.
    """

    kind: Literal["keep_largest", "minimum_volume"]
    labels: tuple[int, ...] = Field(min_length=1)
    minimum_ml: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _check_volume(self) -> "PostprocessingStep":
        if (self.kind == "minimum_volume") != (self.minimum_ml > 0):
            raise ValueError("minimum_volume needs minimum_ml above 0, keep_largest has none")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_it_has_not(self, content: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = content(self)
        if self.kind == "keep_largest":
            del fields["minimum_ml"]
        return fields


class Pipeline(_Strict):
    """From images to patches and from logits to a mask: nnU-Net's plan, as far as it says that.

    Attributes:
        channels: Names of the images of a case, in the order of the network's input.
        optional: Those of the channels that a case may lack; they are zero to the network. One
            channel at least is always there.
        labels: Name to value, ``background`` being 0; a region is a tuple of values.
        regions_class_order: With regions: the value to write for each region, later ones over
            earlier ones, in the order of ``labels``.
        file_ending: Of images and masks in a folder, with its dot.
        orientation: ``stored``: array axes as in the file, z, y, x; ``ras``: reoriented first, so
            that x, y and z grow to right, anterior and superior, and masks back.
        transpose: Order of the file's axes (0 is z) in the network's input.
        spacing: Of the network's grid in mm, axes as after ``transpose``.
        normalisation: One for each channel.
        image_resampling: Of images to the network's grid.
        logits_resampling: Of logits to the image's grid.
        patch_size: Extent of the network's input, axes as after ``transpose``.
        overlap: Share of a patch that neighbouring patches cover too.
        mirror_axes: Spatial axes (0 to 2) that test-time augmentation may mirror.
        mirroring: Whether masks are averaged over mirrored patches where nobody says otherwise.
        postprocessing: What is removed from a mask on its image's grid, one step after the other.
    """

    channels: tuple[str, ...] = Field(min_length=1)
    optional: tuple[str, ...] = ()
    labels: dict[str, int | tuple[int, ...]]
    regions_class_order: tuple[int, ...] | None = None
    file_ending: str = Field(default=".nii.gz", pattern=r"^\.")
    orientation: Literal["stored", "ras"] = "stored"
    transpose: tuple[int, int, int] = (0, 1, 2)
    spacing: tuple[float, float, float]
    normalisation: tuple[Normalisation, ...]
    image_resampling: Resampling = Resampling(order=3, order_z=0)
    logits_resampling: Resampling = Resampling(order=1, order_z=0)
    patch_size: tuple[int, int, int]
    overlap: float = Field(default=0.5, ge=0, lt=1)
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    mirroring: bool = False
    postprocessing: tuple[PostprocessingStep, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Pipeline":
        if unknown := sorted(set(self.optional) - set(self.channels)):
            raise ValueError(f"optional names {', '.join(unknown)}: expected some of channels")
        if sorted(self.transpose) != [0, 1, 2]:
            raise ValueError(f"transpose is {self.transpose}: expected an order of 0, 1, 2")
        if min(self.spacing) <= 0 or min(self.patch_size) < 1:
            raise ValueError("spacing and patch_size must be positive")
        if len(self.normalisation) != len(self.channels):
            raise ValueError("normalisation needs one entry for each of channels")
        if not set(self.mirror_axes) <= {0, 1, 2}:
            raise ValueError(f"mirror_axes is {self.mirror_axes}: expected some of 0, 1, 2")
        if self.mirroring and not self.mirror_axes:
            raise ValueError("mirroring needs mirror_axes")
        if self.labels.get("background") != 0:
            raise ValueError('labels needs "background": 0')
        if self.has_regions and len(self.regions_class_order or ()) != len(self.foreground):
            raise ValueError("regions_class_order needs one value for each region")
        handled = {value for step in self.postprocessing for value in step.labels}
        if strangers := sorted(handled - self.values):
            raise ValueError(f"postprocessing names {strangers}: expected values that labels has")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_older_formats_do_not_know(
        self, content: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        fields: dict[str, Any] = content(self)
        for name in ("optional", "mirroring", "postprocessing"):
            if not getattr(self, name):
                del fields[name]
        return fields

    @property
    def format_version(self) -> int:
        """The oldest format of bundles that has what this pipeline needs."""
        if self.mirroring:
            return 4
        if self.postprocessing:
            return 3
        return 2 if self.optional else 1

    @property
    def required(self) -> tuple[str, ...]:
        """The channels that every case must have."""
        return tuple(channel for channel in self.channels if channel not in self.optional)

    @property
    def foreground(self) -> dict[str, int | tuple[int, ...]]:
        """Labels or regions, without background and ``ignore``."""
        return {
            name: value
            for name, value in self.labels.items()
            if name not in ("background", "ignore")
        }

    @property
    def values(self) -> set[int]:
        """All values of the foreground's labels or regions."""
        return {
            value
            for values in self.foreground.values()
            for value in (values if isinstance(values, tuple) else (values,))
        }

    @property
    def has_regions(self) -> bool:
        """Whether outputs are overlapping regions, one sigmoid each, as nnU-Net decides it."""
        return any(isinstance(value, tuple) and len(value) > 1 for value in self.labels.values())

    @property
    def num_classes(self) -> int:
        """Outputs of the network: labels with background, or regions without."""
        return len(self.foreground) + (0 if self.has_regions else 1)


class Verification(_Strict):
    """How a model file was compared with the trained network when it was exported.

    Attributes:
        backend: What ran the file.
        num_patches: How many patches were compared, random ones and real ones alike.
        max_error: Largest absolute difference of logits.
        max_logit: Largest absolute logit of the trained network, to read ``max_error`` by.
        tolerance: What ``max_error`` had to stay below, relative to ``max_logit``; None for
            reduced precisions, whose masks are compared instead.
        agreement: Share of voxels with the same label.
        mean_dice: On validation cases, of this file; None where it was not measured.
        mean_dice_float32: On the same cases, of the float32 model.
    """

    backend: str
    num_patches: int
    max_error: float
    max_logit: float
    tolerance: float | None = None
    agreement: float
    mean_dice: float | None = None
    mean_dice_float32: float | None = None


class Manifest(_Strict):
    """Where a model comes from, what it may be used for, and the hashes of its files.

    Attributes:
        format_version: Of the bundle; a reader refuses newer ones than it knows.
        name: The model's name.
        created: Date and time, ISO 8601, UTC.
        files: Path inside the bundle to SHA-256, of every file but the manifest.
        versions: Of the packages that made it.
        source: What it was exported from, in words: dataset, folds, plan.
        data: The training data, in words.
        licence: Of the weights, as far as the data decide it.
        intended_use: What it may be used for.
        num_parameters: Of the network at inference, one fold.
        multiply_adds: Of one patch, all folds.
        evaluation: Figures of the validation, as they were found.
        verification: Model file to how it was verified.
    """

    format_version: int
    name: str
    created: str
    files: dict[str, str]
    versions: dict[str, str]
    source: str
    data: str = "not stated"
    licence: str = "not stated"
    intended_use: str = "Research. Not a medical device."
    num_parameters: int
    multiply_adds: int
    evaluation: dict[str, Any] = {}
    verification: dict[str, Verification] = {}


def model_file(precision: Precision) -> str:
    """Name of the model of a precision: ``model.onnx`` is float32."""
    return "model.onnx" if precision == "float32" else f"model.{precision}.onnx"
