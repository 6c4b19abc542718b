"""Golden samples: inputs and the answers that the artifact itself gave to them, kept beside what is packaged."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from optkit.artifact import Artifact, Format
from optkit.artifact.findings import Tolerance
from optkit.artifact.tensors import DimRange, Feed, TensorSpec, batch_dim
from optkit.checks import TOLERANCES
from optkit.data import Samples, write_npz
from optkit.errors import ArtifactError
from optkit.runners import Device, open_runner
from optkit.untrusted.paths import path_fault

_ROWS = 4  # enough to tell rows apart, and small in a repository
_INPUT, _OUTPUT = "input/", "output/"


@dataclasses.dataclass(frozen=True)
class Golden:
    """One feed and its answers by name, and how near another runtime must come to them."""

    inputs: Feed
    outputs: Feed
    tolerance: Tolerance


def make_golden(artifact: Artifact, samples: Samples) -> Golden:
    """Run the artifact on a sample of usual sizes, of a few rows.

    Raises:
        RunnerError: it cannot be run here.
        FeedError: the real data does not fit the inputs.
    """
    feed = samples.at(golden_sizes(artifact.inputs, artifact.dims))
    device = Device.CUDA if artifact.format is Format.TENSORRT else Device.CPU
    with open_runner(artifact, device) as runner:
        return Golden(feed, runner.infer(feed), TOLERANCES[artifact.precision])


def golden_sizes(inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange]) -> dict[str, int]:
    """Return the usual size of every dimension, but a few rows."""
    sizes = {name: r.opt for name, r in dims.items()}
    batch = batch_dim(inputs)
    if batch is not None and batch in sizes:
        allowed = dims[batch]
        sizes[batch] = max(allowed.min, min(allowed.opt, _ROWS // allowed.multiple_of * allowed.multiple_of))
    return sizes


def write_golden(golden: Golden, path: Path) -> None:
    """Write the arrays as one .npz."""
    arrays = {f"{_INPUT}{name}": array for name, array in golden.inputs.items()}
    arrays |= {f"{_OUTPUT}{name}": array for name, array in golden.outputs.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        write_npz(stream, arrays)


def read_golden(path: Path, tolerance: Tolerance) -> Golden:
    """Read what `write_golden` wrote.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    if fault := path_fault(path):
        raise ArtifactError(f"{path}: cannot be read as golden samples ({fault}). Package the model again.")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as e:  # zipfile.BadZipFile, zlib.error, OSError and ValueError share no base
        raise ArtifactError(f"{path}: cannot be read as golden samples ({e}). Package the model again.") from e
    return Golden(
        {name.removeprefix(_INPUT): array for name, array in arrays.items() if name.startswith(_INPUT)},
        {name.removeprefix(_OUTPUT): array for name, array in arrays.items() if name.startswith(_OUTPUT)},
        tolerance,
    )
