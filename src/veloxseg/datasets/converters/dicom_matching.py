"""Series of one study to the channels of a case, by rules."""

from collections.abc import Mapping, Sequence

from veloxseg.datasets.converters.dicom_rules import ChannelRule, DicomRules
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.dicom.files import show_path
from veloxseg.volumes.dicom.index import DicomSeries, DicomStudy


def match_series(
    study: DicomStudy, rules: DicomRules, *, register: Sequence[str] = ()
) -> dict[str, DicomSeries]:
    """Find the series of every channel in a study.

    Args:
        study: The study.
        rules: Which series become which channels.
        register: Channels that will be registered, which may have a frame of reference of their
            own.

    Returns:
        Channel name to its series, in the order of the rules; optional channels may be absent.

    Raises:
        DatasetError: two patients share the study, a channel has no series or several, a series
            matches two channels, or the channels' frames of reference differ.
        GeometryError: a few slices of a matched series have another orientation.
    """
    _require_one_patient(study)
    found = {}
    for channel, rule in rules.channels.items():
        series = _series_of(channel, rule, study)
        if series is not None:
            found[channel] = series
    if not found:
        raise DatasetError(f"no channel has a series. {_describe_series(study.series)}")
    _require_distinct(found)
    if rules.frames_of_reference == "same":
        _require_one_frame({name: one for name, one in found.items() if name not in register})
    for channel, series in found.items():
        if series.strays:
            raise GeometryError(
                f"{channel}: {series}: some slices have another Image Orientation (Patient): "
                f"{'; '.join(series.strays)}. Expected one for all. Their tag is wrong, or they "
                "are of another series: export the series again, or move those files away."
            )
    return found


def _series_of(channel: str, rule: ChannelRule, study: DicomStudy) -> DicomSeries | None:
    matching = [series for series in study.series if rule.matches(series.tags)]
    enough = [series for series in matching if len(series.slices) >= rule.min_slices]
    if rule.prefer is not None and enough:
        wanted = (max if rule.prefer == "most_slices" else min)(
            len(series.slices) for series in enough
        )
        enough = [series for series in enough if len(series.slices) == wanted]
    if len(enough) > 1:
        listed = "; ".join(str(series) for series in enough)
        raise DatasetError(
            f"{channel}: {len(enough)} series match ({rule}): {listed}. Expected one. Narrow the "
            "rule: by a description, by 'exclude', by 'uid', or by 'prefer': 'most_slices'."
        )
    if enough:
        return enough[0]
    if rule.optional:
        return None
    short = "; ".join(str(series) for series in matching)
    few = f" Fewer than {rule.min_slices} slices have: {short}." if short else ""
    raise DatasetError(
        f"{channel}: no series matches ({rule}).{few} {_describe_series(study.series)} "
        "Correct the rule, add the series, or make the channel optional."
    )


def _describe_series(series: Sequence[DicomSeries]) -> str:
    listed = "; ".join(str(one) for one in series)
    return f"The study has {listed or 'no images'}."


def _require_one_patient(study: DicomStudy) -> None:
    if len(study.patients) > 1:
        listed = "; ".join(
            f"'{patient}' in {show_path(path)}" for patient, path in study.patients.items()
        )
        raise DatasetError(
            f"study {study.uid} is mixed: it has {len(study.patients)} Patient IDs: {listed}. "
            "Expected one. Sort the files of the patients into studies of their own."
        )


def _require_distinct(found: Mapping[str, DicomSeries]) -> None:
    channels: dict[int, str] = {}
    for channel, series in found.items():
        other = channels.setdefault(id(series), channel)
        if other != channel:
            raise DatasetError(
                f"{other} and {channel}: both match {series}. Expected a series of its own for "
                "each. Narrow their rules, as by 'exclude'."
            )


def _require_one_frame(found: Mapping[str, DicomSeries]) -> None:
    known = {
        channel: series.frame_of_reference_uid
        for channel, series in found.items()
        if series.frame_of_reference_uid
    }
    for channel, uid in known.items():
        first, reference = next(iter(known.items()))
        if uid != reference:
            raise DatasetError(
                f"{first} and {channel}: frames of reference {reference} and {uid}. Expected one: "
                "in another, positions mean other places. Register one: --register "
                f"{channel} --reference {first}; or, if they share a space all the same, set "
                "'frames_of_reference': 'any' in the rules."
            )
