"""The largest magnitude of each channel of the activations that are inputs of matrix products with weights."""

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from optkit.artifact.tensors import Feed
from optkit.errors import FeedError
from optkit.progress import track
from optkit.quantization.calibration.activations import Activations
from optkit.quantization.calibration.batches import in_batches

PRODUCTS = ("MatMul", "Gemm")


def channel_magnitudes(
    model: Path, tensors: Collection[str], feeds: Iterable[Feed], *, excluded: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Run the model over the feeds, a batch at a time, and return tensor -> the largest magnitude of each channel, (channels,).

    Channels are on the last axis. The result does not depend on the sizes of the feeds.

    Args:
        model: an ONNX file with inferred shapes; a temporary file is beside it while it is opened.
        tensors: the inputs of a MatMul or Gemm.
        feeds: read once.
        excluded: names of nodes whose activations are not wanted.

    Raises:
        StageError: the model cannot be run on a feed.
        FeedError: there is no sample, or a tensor is not finite.
    """
    found: dict[str, np.ndarray] = {}
    with Activations(model, PRODUCTS, excluded=excluded, symmetric=True) as run:
        batches, total = in_batches(feeds, run) if run.has_batch else (iter(feeds), None)
        for feed in track(batches, "smooth", total):
            activations = run(feed)
            for name in set(tensors) & activations.keys():
                values = np.abs(activations[name])
                largest = values.reshape(-1, values.shape[-1]).max(axis=0)  # (channels,)
                if not np.isfinite(largest).all():
                    raise FeedError(
                        f"tensor {name!r}: is not finite on the calibration data; expected finite numbers, for SmoothQuant"
                    )
                found[name] = np.maximum(found.get(name, largest), largest)
    if not found:
        raise FeedError("calibration data: no sample; SmoothQuant needs at least one")
    return found
