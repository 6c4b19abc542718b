"""Golden samples: inputs and the outputs of the artifact for them, stored with a package."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from optkit.artifact import Artifact, Format
from optkit.artifact.findings import Tolerance
from optkit.artifact.tensors import DimRange, Feed, TensorSpec, batch_dim
from optkit.checks import TOLERANCES
from optkit.data import Samples, write_npz
from optkit.runners import Device, open_runner
from optkit.untrusted.archives import read_npz

_ROWS = 4  # several different rows, and a small file
_INPUT, _OUTPUT = "input/", "output/"


@dataclasses.dataclass(frozen=True)
class Golden:
    """One feed, its outputs by name, and the tolerance for another runtime."""

    inputs: Feed
    outputs: Feed
    tolerance: Tolerance


def make_golden(artifact: Artifact, samples: Samples) -> Golden:
    """Run the artifact on a feed with the usual sizes and a few rows.

    Raises:
        RunnerError: the artifact cannot run on this machine.
        FeedError: the real data does not fit the inputs.
    """
    feed = samples.at(golden_sizes(artifact.inputs, artifact.dims))
    device = Device.CUDA if artifact.format is Format.TENSORRT else Device.CPU
    with open_runner(artifact, device) as runner:
        return Golden(feed, runner.infer(feed), TOLERANCES[artifact.precision])


def golden_sizes(inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange]) -> dict[str, int]:
    """Return the usual size of every dimension, with a small batch."""
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
    """Read a file that `write_golden` wrote.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    arrays = read_npz(path)
    return Golden(
        {name.removeprefix(_INPUT): array for name, array in arrays.items() if name.startswith(_INPUT)},
        {name.removeprefix(_OUTPUT): array for name, array in arrays.items() if name.startswith(_OUTPUT)},
        tolerance,
    )
