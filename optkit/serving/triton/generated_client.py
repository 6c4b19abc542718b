"""The generated client for a model in a Triton repository."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from optkit.artifact.tensors import DimRange, Feed, TensorSpec, batch_dim
from optkit.serving.clients.folder import write_package
from optkit.serving.clients.generate import (
    ClientMethod,
    ModelClass,
    description,
    field,
    parameters,
    quoted,
    sizes_text,
    tensors_text,
)
from optkit.serving.clients.samples import npz_bytes
from optkit.serving.triton.contract import TritonContract

_TENSORS, _SIZES = "tuple[Tensor, ...]", "Mapping[str, range]"


def write_triton_client(
    repository: Path,
    model: str,
    contract: TritonContract,
    dims: Mapping[str, DimRange],
    sample: Feed | None,
) -> tuple[Path | None, str | None]:
    """Write the client of a model in a Triton repository.

    Args:
        repository: the model repository.
        model: the name of the model.
        contract: the inputs and outputs in Triton.
        dims: the ranges of named dimensions.
        sample: inputs as clients send them, for trying the client, or None.

    Returns:
        The folder, or None if it holds no client of this model; and the reason if nothing was written.

    Raises:
        OutputError: the folder cannot be written.
    """
    inputs = [_shown(spec, contract.max_batch_size) for spec in contract.inputs]
    outputs = [_shown(spec, contract.max_batch_size) for spec in contract.outputs]
    sizes = _sizes(inputs, dims, contract.max_batch_size)
    names = parameters(spec.name for spec in inputs)
    feed = ", ".join(f"{quoted(name)}: {parameter}" for name, parameter in names.items())
    described = ModelClass(
        module="triton_template",
        base="TritonModel",
        model=model,
        takes=f": {description(inputs, sizes)}",
        gives=f": {description(outputs)}",
        fields=(
            field("inputs", _TENSORS, tensors_text(inputs)),
            field("outputs", _TENSORS, tensors_text(outputs)),
            field("sizes", _SIZES, sizes_text(sizes)),
        ),
        method=ClientMethod(
            parameters=", ".join(f"{parameter}: np.ndarray" for parameter in names.values()),
            returns="dict[str, np.ndarray]",
            result="outputs by name",
            call=f"self._infer({{{feed}}})",
        ),
    )
    return write_package(repository, described, {"sample.npz": npz_bytes(sample)} if sample is not None else {})


def _shown(spec: TensorSpec, max_batch_size: int) -> TensorSpec:
    """Return the spec that clients see: Triton represents a scalar as [1]."""
    single = len(spec.shape) == (1 if max_batch_size else 0)
    return spec.model_copy(update={"shape": (*spec.shape, 1)}) if single else spec


def _sizes(inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange], max_batch_size: int) -> dict[str, range]:
    """Return the allowed sizes of each named input dimension in one request."""
    batch = batch_dim(inputs) if max_batch_size else None
    used = dict.fromkeys(dim for spec in inputs for dim in spec.shape if isinstance(dim, str) and dim in dims)
    largest = {dim: min(dims[dim].max, max_batch_size) if dim == batch else dims[dim].max for dim in used}
    return {dim: range(dims[dim].min, largest[dim] + 1, dims[dim].multiple_of) for dim in used}
