"""Which channel an image is, and which channels a case may lack."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from veloxseg.errors import DatasetError

_Image = TypeVar("_Image")


def describe_channels(channels: Sequence[str], optional: Sequence[str]) -> str:
    """Name the channels that a model knows, and which of them a case may lack."""
    if not optional:
        return ", ".join(channels)
    return f"{', '.join(channels)} (optional: {', '.join(optional)})"


def describe_missing(
    images: Sequence[Any | None], channels: Sequence[str], optional: Sequence[str]
) -> str | None:
    """Say what a case lacks and must have: a channel that is not optional, or any at all.

    Args:
        images: One for each channel, None where there is none.
        channels: Their names.
        optional: Those that a case may lack.

    Returns:
        Such as ``no PET image``; None where nothing is missing.
    """
    missing = [
        channel
        for channel, image in zip(channels, images, strict=True)
        if image is None and channel not in optional
    ]
    if missing:
        return f"no {' and no '.join(missing)} image"
    return "no image" if all(image is None for image in images) else None


def order_by_channel(
    images: Mapping[str, _Image | None], channels: Sequence[str], optional: Sequence[str]
) -> list[_Image | None]:
    """Bring images that are given by their channels' names in the channels' order.

    Returns:
        One for each channel, None where there is none.

    Raises:
        DatasetError: a name is no channel's.
    """
    if unknown := [name for name in images if name not in channels]:
        raise DatasetError(
            f"No channel {', '.join(unknown)}. The model knows "
            f"{describe_channels(channels, optional)}. Correct the name."
        )
    return [images.get(channel) for channel in channels]
