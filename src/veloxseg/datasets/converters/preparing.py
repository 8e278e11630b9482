"""What is done to a case before its images are put on one grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from veloxseg.datasets.cases import Part
from veloxseg.datasets.converters.manifest import records_folder
from veloxseg.datasets.converters.source_case import Prepare
from veloxseg.errors import DatasetError
from veloxseg.installation import require_packages


def registration_step(
    folder: Path,
    *,
    part: Part,
    channels: Sequence[str],
    register: Sequence[str],
    reference: str | None,
    affine: bool,
) -> Prepare | None:
    """The step of ``write_cases`` that registers channels to the reference; None for no channel.

    Args:
        folder: The dataset's folder; transforms and pictures go beside the cases' records.
        part: ``Tr`` or ``Ts``.
        channels: Names of the dataset's channels in their order.
        register: Those to register.
        reference: The one that stays where it is, and the label with it.
        affine: Whether scaling and shear are allowed for, too.

    Raises:
        DatasetError: a name is none of the channels, or there is no reference, or it is to be
            registered to itself.
        VeloxSegError: matplotlib, which draws the pictures, is not installed.
    """
    if not register:
        return None
    if reference is None:
        raise DatasetError(
            f"{', '.join(register)} cannot be registered without a reference. Expected the channel "
            "that stays where it is. Name it: --reference NAME"
        )
    require_packages("matplotlib", install="pip install matplotlib")
    from veloxseg.datasets.converters.registering import RegisterChannels

    return RegisterChannels(
        channels=tuple(channels),
        moving=tuple(register),
        reference=reference,
        folder=records_folder(folder, part=part),
        affine=affine,
    )


def registration_settings(register: Sequence[str], *, affine: bool) -> dict[str, Any]:
    """What the settings of a conversion say of registration: nothing where there is none."""
    return {"register": list(register), "affine": affine} if register else {}
