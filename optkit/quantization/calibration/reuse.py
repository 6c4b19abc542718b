"""Reuse of calibration: the ranges of an earlier artifact are used again while model, data and settings are unchanged."""

from collections.abc import Collection, Sequence
from pathlib import Path

from optkit import user_code
from optkit.artifact import Artifact
from optkit.artifact.calibration import CalibrationKey, CalibrationResult
from optkit.data import Feeds
from optkit.deps import built_with
from optkit.hashing import hash_of
from optkit.quantization.calibration.collect import calibrate
from optkit.quantization.calibration.doctor import diagnose
from optkit.quantization.calibration.settings import CalibrationSettings

_DOCTORS_SAMPLE = 8  # of the elements, for the histograms of a method that needs none


def calibrated(
    prepared: Path,
    source: Artifact,
    ops: Sequence[str],
    feeds: Feeds,
    settings: CalibrationSettings,
    *,
    excluded: Collection[str] = (),
    smooth: float = 0.0,
    earlier: CalibrationResult | None = None,
    doctor: bool = False,
) -> CalibrationResult:
    """Return the ranges of a model and the diagnosis of the data; those of `earlier` where nothing has changed.

    Args:
        prepared: the model to quantize.
        source: the artifact that it was prepared from.
        ops: operators whose activations are wanted.
        feeds: the calibration data.
        settings: how ranges are chosen.
        excluded: names of nodes that stay in float.
        smooth: SmoothQuant's alpha for `prepared`.
        earlier: the calibration of an earlier artifact.
        doctor: whether long tails are reported also with a method that needs no histograms.

    Raises:
        StageError: the model cannot be run on a feed, or has no such node.
        FeedError: the data does not fit the inputs.
    """
    of = {"model": source.identity, "ops": sorted(ops), "excluded": sorted(excluded), "versions": built_with()}
    key = CalibrationKey(
        **settings.model_dump(),
        model_sha256=hash_of(of | ({"smooth": smooth} if smooth else {})),
        data_sha256=feeds.sha256(),
    )
    unchanged = earlier and earlier.key == key and not user_code.changed((earlier.reads,), (feeds.target,))
    if earlier and unchanged and not (doctor and earlier.diagnosis.long_tails is None):
        return earlier
    histograms = doctor or settings.method.needs_histogram
    if not settings.method.needs_histogram:
        settings = settings.model_copy(update={"sample": _DOCTORS_SAMPLE})
    ranges, statistics = calibrate(prepared, ops, feeds, settings, excluded=excluded, histograms=histograms)
    return CalibrationResult(
        key=key,
        ranges={name: (range_.low, range_.high) for name, range_ in ranges.items()},
        diagnosis=diagnose(statistics, ranges),
        reads=user_code.reads((feeds.target,))[0],
    )
