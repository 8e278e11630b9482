"""Registering channels of a case to its reference channel, while a dataset is converted."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from veloxseg.datasets.converters.source_case import SourceCase
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.registration import Registration, register
from veloxseg.volumes.registration_limits import LIMITS, RegistrationLimits
from veloxseg.volumes.registration_picture import draw_registration
from veloxseg.volumes.registration_transform import move_header, resample_through, write_transform
from veloxseg.volumes.volume import Volume

_DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class RegisterChannels:
    """The ``prepare`` step of ``write_cases`` that brings channels into the reference's space.

    A rigidly moved channel keeps its voxels and gets a new header, so that putting it on the
    dataset's grid afterwards is the only interpolation; an affinely moved one is resampled onto
    the reference's grid. ``write_cases`` must be given the same reference. The label is not moved:
    it belongs to the reference channel's space.

    Attributes:
        channels: Names of the dataset's channels in their order.
        moving: Those to register.
        reference: The one that stays where it is.
        folder: Where ``CASE_CHANNEL.tfm`` (from the reference's space to the channel's, LPS mm)
            and ``CASE_CHANNEL.png`` (before and after) are written: the folder of the cases'
            records, ``conversion_Tr`` or ``conversion_Ts`` of the dataset.
        affine: Whether to go on to scaling and shear.
        limits: The largest motion that is believed.

    Raises:
        DatasetError: a channel to register, or the reference, is none of the channels, or the
            reference is to be registered to itself.
    """

    channels: tuple[str, ...]
    moving: tuple[str, ...]
    reference: str
    folder: Path
    affine: bool = False
    limits: RegistrationLimits = LIMITS

    def __post_init__(self) -> None:
        """Check the names against each other."""
        unknown = {*self.moving, self.reference} - set(self.channels)
        if unknown or self.reference in self.moving:
            raise DatasetError(
                f"Registration of {', '.join(self.moving)} to {self.reference}: expected channels "
                f"of {', '.join(self.channels)}, and a reference that is not among those to "
                "register. Correct the names."
            )

    def __call__(self, case: str, source: SourceCase) -> SourceCase:
        """Register the channels of one case; one that the case lacks is passed over.

        Returns:
            The case with the channels moved and ``notes["registration"]``: channel to what was
            found, as JSON values.

        Raises:
            DatasetError: the case lacks the reference.
            GeometryError: a registration was refused; the case and the channel are named.
            OSError: a file cannot be written.
        """
        images = dict(zip(self.channels, source.images, strict=True))
        fixed = images[self.reference]
        if fixed is None:
            raise DatasetError(
                f"Case {case}: has no {self.reference}, to which {', '.join(self.moving)} are to "
                "be registered. Expected its file. Add it or remove the case."
            )
        records = {}
        for channel in self.moving:
            image = images[channel]
            if image is not None:
                images[channel], records[channel] = self._register(case, channel, image, fixed)
        notes = {**source.notes, "registration": records}
        return replace(source, images=list(images.values()), notes=notes)

    def _register(
        self, case: str, channel: str, image: Volume, fixed: Volume
    ) -> tuple[Volume, dict[str, Any]]:
        try:
            found = register(image, fixed, affine=self.affine, limits=self.limits)
        except GeometryError as error:
            raise GeometryError(f"Case {case}: {channel} to {self.reference}: {error}") from error
        stem = f"{case}_{channel}"
        write_transform(self.folder / f"{stem}.tfm", found.transform)
        draw_registration(
            self.folder / f"{stem}.png",
            moving=image,
            fixed=fixed,
            registration=found,
            title=f"{case}: {channel} to {self.reference}",
        )
        if found.model == "rigid":
            moved = move_header(image, found.transform)
        else:
            moved = resample_through(
                image,
                fixed.grid,
                transform=found.transform,
                interpolation="linear",
                fill=float(image.data.min()),
            )
        files = {"transform": f"{stem}.tfm", "picture": f"{stem}.png"}
        return moved, {"reference": self.reference, **files, **_record(found)}


def _record(found: Registration) -> dict[str, Any]:
    """What was found, as JSON values; numbers are rounded, the transform's file is exact."""
    motion = {name: _rounded(value) for name, value in asdict(found.motion).items()}
    return {
        "model": found.model,
        "start": found.start,
        "improved": found.improved,
        "metric": "Mattes mutual information, nats",
        "metric_before": _rounded(found.metric_before),
        "metric_after": _rounded(found.metric_after),
        "num_voxels": found.num_voxels,
        "overlap_before": _rounded(found.overlap_before),
        "overlap_after": _rounded(found.overlap_after),
        **motion,
        "levels_mm": _rounded(found.levels_mm),
        "matrix": list(found.transform.matrix),
        "offset_xyz": list(found.transform.offset_xyz),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [round(number, _DIGITS) for number in value]
    return round(value, _DIGITS)
