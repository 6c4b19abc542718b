"""The config.pbtxt of one model, built with Triton's schema."""

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.artifact import Artifact, Format
from optkit.artifact.tensors import DType, Feed, TensorSpec, check_feed
from optkit.errors import ArtifactError, first_line
from optkit.serving.packaged import ModelContract
from optkit.serving.settings import TritonModelSettings, TritonServing
from optkit.serving.triton.contract import TritonContract
from optkit.serving.triton_fields import Instances, Optimization, QueuePolicy, VersionPolicy
from optkit.untrusted.reading import MAX_CONFIG_BYTES, read_text

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema

_PLATFORM = {
    Format.ONNX: ("onnxruntime_onnx", "onnxruntime"),
    Format.TORCHSCRIPT: ("pytorch_libtorch", "pytorch"),
    Format.TENSORRT: ("tensorrt_plan", "tensorrt"),
}
_TYPE = {
    DType.FLOAT32: "TYPE_FP32",
    DType.FLOAT16: "TYPE_FP16",
    DType.FLOAT64: "TYPE_FP64",
    DType.INT64: "TYPE_INT64",
    DType.INT32: "TYPE_INT32",
    DType.INT16: "TYPE_INT16",
    DType.INT8: "TYPE_INT8",
    DType.UINT8: "TYPE_UINT8",
    DType.BOOL: "TYPE_BOOL",
}


@dataclasses.dataclass(frozen=True)
class Warmup:
    """One warm-up request: the shapes and values of its inputs, by their names in Triton.

    If Triton batches, `shapes` has no batch dimension. If the warm-up sends zeros, `files` is empty.
    """

    shapes: dict[str, tuple[int, ...]]
    files: dict[str, bytes]  # input -> raw values


def warmup_of(model: ModelContract, contract: TritonContract, sample: Feed | None) -> Warmup:
    """Return the warm-up request for a sample or, without a sample, for zeros of the usual sizes.

    Raises:
        FeedError: the sample does not fit the model's inputs.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    files: dict[str, bytes] = {}
    if sample is not None:
        check_feed(sample, model.inputs, model.dims)
    usual = {name: r.opt for name, r in model.dims.items()}
    for own, spec in zip(model.inputs, contract.inputs, strict=True):
        shape = own.shape_at(usual) if sample is None else sample[own.name].shape
        shapes[spec.name] = shape[1:] if contract.max_batch_size else shape
        if sample is not None:
            files[spec.name] = (sample[own.name][:1] if contract.max_batch_size else sample[own.name]).tobytes()
    return Warmup(shapes, files)


def warmup_files(warmup: Warmup) -> dict[str, str]:
    """Return input -> file in the warm-up folder. The files have the names of the inputs if all of them are valid file names."""
    plain = all(re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII) for name in warmup.files)
    return {name: name if plain else f"input_{i}" for i, name in enumerate(warmup.files)}


def model_config(
    name: str, artifact: Artifact, settings: TritonServing, contract: TritonContract, warmup: Warmup | None
) -> "schema.ModelConfig":
    """Return the configuration of an artifact as a message of Triton's schema. All fields exist in release 24.10 and later."""
    platform, backend = _PLATFORM[artifact.format]
    config = backend_config(name, backend, settings, contract, warmup, reshape=True)
    config.platform = platform
    _add_optimization(config, settings.optimization)
    return config


def backend_config(
    name: str,
    backend: str,
    settings: TritonModelSettings,
    contract: TritonContract,
    warmup: Warmup | None,
    *,
    reshape: bool,
) -> "schema.ModelConfig":
    """Return the configuration of a model for any backend; for `reshape` see `describe_tensor`."""
    from tritonclient.grpc import model_config_pb2 as schema

    config = schema.ModelConfig(
        name=name,
        backend=backend,
        max_batch_size=contract.max_batch_size,
        version_policy=_version_policy(settings.version_policy),
        instance_group=[instance_group(settings.instances)],
    )
    for spec in contract.inputs:
        describe_tensor(config.input.add(), spec, contract, reshape=reshape)
    for spec in contract.outputs:
        describe_tensor(config.output.add(), spec, contract, reshape=reshape)
    if contract.max_batch_size:
        config.dynamic_batching.SetInParent()
        config.dynamic_batching.preferred_batch_size.extend(contract.preferred_batch_sizes)
        config.dynamic_batching.max_queue_delay_microseconds = settings.max_queue_delay_us
        _add_queues(config.dynamic_batching, settings)
    if settings.response_cache:
        config.response_cache.enable = True
    if warmup:
        _add_warmup(config, contract, warmup)
    return config


def config_text(config: "schema.ModelConfig") -> str:
    """Return a configuration as the text of a config.pbtxt."""
    from google.protobuf import text_format

    text = str(text_format.MessageToString(config))
    # The text format omits 0. Without max_batch_size, Triton would guess it from the model.
    return text if config.max_batch_size else f"max_batch_size: 0\n{text}"


def read_config(path: Path) -> "schema.ModelConfig":
    """Read a config.pbtxt.

    Raises:
        ArtifactError: the file cannot be read, or it does not fit Triton's schema.
    """
    return parse_config(read_text(path, "a Triton configuration", MAX_CONFIG_BYTES), path)


def parse_config(text: str, path: Path) -> "schema.ModelConfig":
    """Parse the text of a config.pbtxt; `path` is for messages.

    Raises:
        ArtifactError: the text does not fit Triton's schema.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    try:
        return text_format.Parse(text, schema.ModelConfig())
    except (text_format.ParseError, ValueError) as e:
        raise ArtifactError(f"{path}: cannot be read as a Triton configuration ({first_line(e)})") from e


def differing_fields(one: "schema.ModelConfig", other: "schema.ModelConfig") -> list[str]:
    """Return the names of the top-level fields that differ between two configurations."""
    return [f.name for f in one.DESCRIPTOR.fields if getattr(one, f.name) != getattr(other, f.name)]


def describe_tensor(tensor: Any, spec: TensorSpec, contract: TritonContract, *, reshape: bool = True) -> None:
    """Fill in a ModelInput or ModelOutput. `reshape` lets a backend get a shape that differs from the clients' shape."""
    dims = [dim if isinstance(dim, int) else -1 for dim in spec.shape][1 if contract.max_batch_size else 0 :]
    tensor.name = spec.name
    _set_type(tensor, spec.dtype)
    tensor.dims.extend(dims or [1])
    # Triton has no empty dims. One number per sample is [1] and is reshaped for the model. Without batching, Triton refuses an
    # empty reshape, and its ONNX backend accepts [1] for a scalar (onnxruntime_backend pull 213).
    if reshape and not dims and contract.max_batch_size:
        tensor.reshape.SetInParent()


def _set_type(tensor: Any, dtype: DType) -> None:
    from tritonclient.grpc import model_config_pb2 as schema

    tensor.data_type = schema.DataType.Value(_TYPE[dtype])


def _version_policy(policy: VersionPolicy) -> "schema.ModelVersionPolicy":
    from tritonclient.grpc import model_config_pb2 as schema

    kinds = schema.ModelVersionPolicy
    if policy.latest:
        return kinds(latest=kinds.Latest(num_versions=policy.latest))
    return kinds(all=kinds.All()) if policy.all else kinds(specific=kinds.Specific(versions=policy.specific))


def instance_group(instances: Instances) -> "schema.ModelInstanceGroup":
    """Return the instance group: the number of instances and their devices."""
    from tritonclient.grpc import model_config_pb2 as schema

    group = schema.ModelInstanceGroup
    kind = group.KIND_GPU if instances.kind == "gpu" else group.KIND_CPU
    return group(count=instances.count, kind=kind, gpus=instances.gpus)


def _add_queues(batching: "schema.ModelDynamicBatching", settings: TritonModelSettings) -> None:
    if settings.queue:
        batching.default_queue_policy.CopyFrom(_queue_policy(settings.queue))
    if settings.priorities:
        batching.priority_levels = settings.priorities.levels
        batching.default_priority_level = settings.priorities.default
        for level, queue in settings.priorities.queues.items():
            batching.priority_queue_policy[level].CopyFrom(_queue_policy(queue))


def _queue_policy(queue: QueuePolicy) -> "schema.ModelQueuePolicy":
    from tritonclient.grpc import model_config_pb2 as schema

    return schema.ModelQueuePolicy(
        timeout_action=schema.ModelQueuePolicy.TimeoutAction.Value(queue.timeout_action.upper()),
        default_timeout_microseconds=queue.timeout_us,
        allow_timeout_override=queue.allow_timeout_override,
        max_queue_size=queue.max_size,
    )


def _add_optimization(config: "schema.ModelConfig", optimization: Optimization) -> None:
    if optimization.cuda_graphs:
        config.optimization.cuda.graphs = True
    for accelerator in optimization.accelerators:
        accelerators = config.optimization.execution_accelerators
        of_kind = getattr(accelerators, f"{accelerator.kind}_execution_accelerator")
        of_kind.add(name=accelerator.name, parameters=accelerator.parameters)


def _add_warmup(config: "schema.ModelConfig", contract: TritonContract, warmup: Warmup) -> None:
    """Add a warm-up with one request and, if Triton batches, with the usual batch sizes. Triton repeats the request for each size."""
    names = warmup_files(warmup)
    for size in contract.warmup_batch_sizes:
        entry = config.model_warmup.add(name=f"batch_{size}", batch_size=size)
        for spec in contract.inputs:
            tensor = entry.inputs[spec.name]
            _set_type(tensor, spec.dtype)
            tensor.dims.extend(warmup.shapes[spec.name] or (1,))
            if spec.name in names:
                tensor.input_data_file = names[spec.name]
            else:
                tensor.zero_data = True
