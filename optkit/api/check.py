"""`optkit check`: one model against another, at every corner of their dimensions."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from optkit.api.arguments import (
    Call,
    Data,
    Dims,
    ModelFile,
    Progress,
    ToFeed,
    as_device,
    as_tolerance,
    call,
    is_model_file,
    open_model_file,
)
from optkit.artifact import Artifact
from optkit.artifact.findings import BatchIndependence, Parity, Tolerance
from optkit.artifact.tensors import batch_dim
from optkit.checks import check_batch_independence, check_parity
from optkit.data import Samples
from optkit.errors import FeedError
from optkit.pytorch.source import make_source
from optkit.record import Document
from optkit.runners import Device, open_runner

if TYPE_CHECKING:
    import torch


class CheckRecord(Document):
    """One model held against another."""

    schema_id: ClassVar[str] = "optkit/check/1"

    parity: Parity
    batch_independence: BatchIndependence | None
    failures: tuple[str, ...]


def check(
    reference: "ModelFile | torch.nn.Module",
    candidate: ModelFile,
    *,
    dims: Dims | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    progress: Progress | None = None,
) -> CheckRecord:
    """Compare two models at every corner of their dimensions, and check that the candidate's samples do not depend on their batch.

    Args:
        reference: a model file, a module in memory, or `file.py:build`.
        candidate: the model file to prove.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}`, where no passport has it.
        data: real samples; without any, seeded random values.
        to_feed: makes a feed of one item of `data`.
        atol: absolute tolerance; None takes that of the precision.
        rtol: relative tolerance; None takes that of the precision.
        device: where both run; never another one in its place.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        what was compared; with `failures` the two differ.

    Raises:
        OptkitError: they do not take the same inputs, or one of them cannot be run.
    """
    with call(progress) as given, tempfile.TemporaryDirectory(prefix="optkit-source-") as folder:
        proven = open_model_file(candidate, dims)
        target = given.data(data, to_feed)
        right = open_any(given, reference, proven, Path(folder), dims, target)
        samples = Samples.of(target, proven.inputs, proven.dims, proven.random or right.random)
        return check_pair(right, proven, samples, as_tolerance(atol, rtol), as_device(device))


def open_any(
    given: Call,
    model: "ModelFile | torch.nn.Module",
    like: Artifact,
    folder: Path,
    dims: Dims | None = None,
    data: str | None = None,
) -> Artifact:
    """Open a model file, or build a module with the contract of a file.

    Args:
        given: the call that the model belongs to.
        model: a model file, a module in memory, or a source such as `file.py:build`.
        like: the file whose inputs, ranges and names of outputs a module gets.
        folder: where the source artifact of a module is written.
        dims: ranges, where no passport has them.
        data: real samples, which a module is run on to find its outputs.

    Raises:
        OptkitError: it cannot be opened or built.
    """
    if is_model_file(model):
        return open_model_file(model, dims)
    return open_reference(given.model(model), like, folder, data)


def check_pair(
    reference: Artifact, candidate: Artifact, samples: Samples, tolerance: Tolerance | None, device: Device
) -> CheckRecord:
    """Check parity of two models, and batch independence of the candidate where it has a batch dimension.

    Raises:
        FeedError: the two do not take the same inputs.
        RunnerError: one of them cannot be loaded on the device.
    """
    check_same_inputs(reference, candidate)
    with open_runner(reference, device) as right, open_runner(candidate, device) as proven:
        parity = check_parity(right, proven, samples, candidate.dims, tolerance)
        comparable = parity.cosine is not None and batch_dim(candidate.inputs) is not None
        independence = check_batch_independence(proven, samples, candidate.dims, tolerance) if comparable else None
    failures = [f"parity: {parity.failure}"] if not parity.passed else []
    if independence and not independence.passed:
        failures.append(f"batch independence: {independence.failure}")
    return CheckRecord(parity=parity, batch_independence=independence, failures=tuple(failures))


def open_reference(target: str, candidate: Artifact, folder: Path, data: str | None = None) -> Artifact:
    """Return the source artifact of a model in Python, with the contract of the file that is held against it.

    Args:
        target: a factory, or what else a module can come from.
        candidate: gives the inputs, the ranges and the names of the outputs.
        folder: where the source artifact is written.
        data: real samples to run it on; None for none.

    Raises:
        ModelError: it cannot be built or run, or returns another number of outputs.
    """
    names = tuple(spec.name for spec in candidate.outputs)
    return make_source(target, folder, candidate.inputs, candidate.dims, outputs=names, data=data)


def check_same_inputs(a: Artifact, b: Artifact) -> None:
    """Refuse two models that do not take the same inputs.

    Raises:
        FeedError: a name, a type or the number of dimensions differs.
    """
    if {(s.name, s.dtype, len(s.shape)) for s in a.inputs} != {(s.name, s.dtype, len(s.shape)) for s in b.inputs}:
        takes = " and ".join(f"{x.path.name} takes {', '.join(map(str, x.inputs))}" for x in (a, b))
        raise FeedError(f"the models do not take the same inputs: {takes}")
