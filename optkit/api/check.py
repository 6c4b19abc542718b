"""`optkit check`: compare the outputs of two models at every corner of their dimensions."""

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
from optkit.system.temporary import temporary_folder

if TYPE_CHECKING:
    import torch


class CheckRecord(Document):
    """A candidate model compared with a reference model."""

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
    """Compare two models at every corner of their dimensions, and check the batch independence of the candidate.

    Args:
        reference: model file, module in memory, or `file.py:build`.
        candidate: model file to check.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`; needed only if the passport has none.
        data: real samples; None uses seeded random values.
        to_feed: function that converts one item of `data` to a feed.
        atol: absolute tolerance for differences of outputs; None uses the default of the precision.
        rtol: relative tolerance for differences of outputs; None uses the default of the precision.
        device: device to run on, without fallback to another device.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the results; if `failures` is not empty, the two models differ.

    Raises:
        OptkitError: the models do not take the same inputs, or one of them cannot be run.
    """
    with call(progress) as api_call, temporary_folder() as folder:
        candidate_file = open_model_file(candidate, dims)
        target = api_call.data(data, to_feed)
        reference_artifact = open_any(api_call, reference, candidate_file, folder, dims, target)
        random = candidate_file.random or reference_artifact.random
        samples = Samples.of(target, candidate_file.inputs, candidate_file.dims, random)
        return check_pair(reference_artifact, candidate_file, samples, as_tolerance(atol, rtol), as_device(device))


def open_any(
    api_call: Call,
    model: "ModelFile | torch.nn.Module",
    like: Artifact,
    folder: Path,
    dims: Dims | None = None,
    data: str | None = None,
) -> Artifact:
    """Open a model file, or build a module with the contract of a model file.

    Args:
        api_call: current API call.
        model: model file, module in memory, or source such as `file.py:build`.
        like: model file that provides inputs, ranges and output names for a module.
        folder: folder for the source artifact of a module.
        dims: ranges of named dimensions; needed only if the passport has none.
        data: real samples that a module is run on to find its outputs; None uses random values.

    Raises:
        OptkitError: the model cannot be opened or built.
    """
    if is_model_file(model):
        return open_model_file(model, dims)
    return open_reference(api_call.model(model), like, folder, data)


def check_pair(
    reference: Artifact, candidate: Artifact, samples: Samples, tolerance: Tolerance | None, device: Device
) -> CheckRecord:
    """Check the parity of two models, and the batch independence of the candidate if it has a batch dimension.

    Raises:
        FeedError: the models do not take the same inputs.
        RunnerError: one of them cannot be loaded on the device.
    """
    check_same_inputs(reference, candidate)
    with open_runner(reference, device) as expected, open_runner(candidate, device) as found:
        parity = check_parity(expected, found, samples, candidate.dims, tolerance)
        comparable = parity.cosine is not None and batch_dim(candidate.inputs) is not None
        independence = check_batch_independence(found, samples, candidate.dims, tolerance) if comparable else None
    failures = [f"parity: {parity.failure}"] if not parity.passed else []
    if independence and not independence.passed:
        failures.append(f"batch independence: {independence.failure}")
    return CheckRecord(parity=parity, batch_independence=independence, failures=tuple(failures))


def open_reference(target: str, candidate: Artifact, folder: Path, data: str | None = None) -> Artifact:
    """Return the source artifact of a Python model, with the contract of the model file to compare it with.

    Args:
        target: factory function, or another source of a module.
        candidate: model file that provides inputs, ranges and output names.
        folder: folder for the source artifact.
        data: real samples that the module is run on to find its outputs; None uses random values.

    Raises:
        ModelError: the model cannot be built or run, or has a different number of outputs.
    """
    names = tuple(spec.name for spec in candidate.outputs)
    return make_source(target, folder, candidate.inputs, candidate.dims, outputs=names, data=data)


def check_same_inputs(a: Artifact, b: Artifact) -> None:
    """Raise an error if two models do not take the same inputs.

    Raises:
        FeedError: a name, a dtype or a number of dimensions differs.
    """
    if {(s.name, s.dtype, len(s.shape)) for s in a.inputs} != {(s.name, s.dtype, len(s.shape)) for s in b.inputs}:
        takes = " and ".join(f"{x.path.name} takes {', '.join(map(str, x.inputs))}" for x in (a, b))
        raise FeedError(f"the models do not take the same inputs: {takes}")
