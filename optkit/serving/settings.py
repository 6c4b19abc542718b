"""The entries under `serve:` in a recipe. The packaging commands have the same options."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.data import absolute_data, data_fault
from optkit.data.preprocessing import ImagePreprocessing
from optkit.messages import did_you_mean
from optkit.record import Record
from optkit.serving.names import name_fault
from optkit.serving.triton_fields import Count, Instances, Optimization, Priorities, QueuePolicy, VersionPolicy
from optkit.untrusted.paths import is_file
from optkit.user_code import absolute_target, split_target, target_fault


def _checked_name(name: str) -> str:
    fault = name_fault(name)
    if fault:
        raise ValueError(fault)
    return name


FASTEST = "fastest"  # the artifact of an entry that takes the winner
Name = Annotated[str, AfterValidator(_checked_name)]


def _specs(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError("expected pairs of name: dtype[dim,...], for example image: float32[batch,3,224,224]")
    return tuple(TensorSpec.parse(str(text), name=str(name)) for name, text in value.items())


Specs = Annotated[tuple[TensorSpec, ...], BeforeValidator(_specs)]


def artifact_faults(artifact: str, steps: Sequence[str]) -> Iterator[str]:
    """Yield that an artifact is none that a run makes; `steps` are the names of its steps."""
    if artifact != FASTEST and artifact not in steps:
        yield f"artifact {artifact!r} is no step{did_you_mean(artifact, [FASTEST, *steps])}"


def range_faults(specs: Iterable[TensorSpec], dims: Mapping[str, DimRange]) -> Iterator[str]:
    """Yield named dimensions without a range."""
    used = {dim for spec in specs for dim in spec.shape if isinstance(dim, str)}
    yield from (f"dimension {dim!r} has no range in dims" for dim in sorted(used - set(dims)))


def _missing_files(files: Sequence[str]) -> Iterator[str]:
    yield from (f"{file}: no such file" for file in files if not is_file(file))


class TritonModelSettings(Record):
    """The settings of every model in a Triton repository.

    `max_batch_size` None means the largest declared size of the batch dimension. Without preferred batch sizes and queue delay, Triton
    batches the requests that arrive during an execution, and no request waits longer (benchmarks/results/serving_load.md). `optkit
    loadtest` gives advice.
    """

    name: Name | None = None
    version: Count = 1
    batching: bool = True
    preferred_batch_sizes: tuple[Count, ...] = ()
    max_queue_delay_us: Annotated[int, Field(ge=0)] = 0
    instances: Instances = Instances()
    version_policy: VersionPolicy = VersionPolicy(latest=1)
    warmup: bool = True
    client: bool = True
    max_batch_size: Count | None = None
    queue: QueuePolicy | None = None
    priorities: Priorities | None = None
    response_cache: bool = False

    @model_validator(mode="before")
    @classmethod
    def _no_sequences(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "sequence_batching" in given:
            raise ValueError(
                "sequence_batching: is not supported: it sends the requests of a sequence to one instance that keeps state between "
                "requests; an exported model keeps no state. Make the state an input and an output of the model."
            )
        return given

    @model_validator(mode="after")
    def _queues_need_batching(self) -> Self:
        given = [key for key in ("queue", "priorities") if getattr(self, key)]
        if given and not self.batching:
            raise ValueError(
                f"{given[0]}: is set together with batching: false; only Triton's dynamic batcher has a queue. Remove one of them."
            )
        return self

    @model_validator(mode="after")
    def _batching_fits_together(self) -> Self:
        if not self.batching and (self.preferred_batch_sizes or self.max_batch_size):
            given = "preferred_batch_sizes" if self.preferred_batch_sizes else "max_batch_size"
            raise ValueError(f"{given}: is set together with batching: false and has no effect. Remove one of them.")
        if self.max_batch_size:
            largest = max(self.preferred_batch_sizes, default=0)
            if largest > self.max_batch_size:
                raise ValueError(f"preferred_batch_sizes: {largest} is above max_batch_size {self.max_batch_size}")
        return self

    @model_validator(mode="after")
    def _own_version_is_loaded(self) -> Self:
        specific = self.version_policy.specific
        if specific and self.version not in specific:
            raise ValueError(
                f"version_policy.specific: {list(specific)} does not contain version {self.version}, which is being written; "
                f"the server would not load it. Add it."
            )
        return self

    @property
    def server(self) -> Literal["triton"]:
        """The server that the package is for."""
        return "triton"

    @property
    def batches(self) -> bool:
        """Whether the server batches requests."""
        return self.batching


class TritonServing(TritonModelSettings):
    """An artifact in a Triton repository. `artifact` is the name of a step, or `fastest`: the fastest artifact that passes every gate."""

    target: Literal["triton"] = "triton"
    artifact: str = FASTEST
    optimization: Optimization = Optimization()

    @model_validator(mode="after")
    def _accelerators_fit_their_instances(self) -> Self:
        names = [accelerator.name for accelerator in self.optimization.accelerators]
        if len(set(names)) < len(names):
            raise ValueError(f"optimization.accelerators: got {', '.join(names)}; expected each accelerator once")
        for accelerator in self.optimization.accelerators:
            if accelerator.kind != self.instances.kind:
                raise ValueError(
                    f"optimization.accelerators: {accelerator.name} needs instances of kind {accelerator.kind}; instances.kind is "
                    f"{self.instances.kind}. Set instances.kind: {accelerator.kind}, or remove the accelerator."
                )
        return self

    @property
    def files_read(self) -> tuple[str, ...]:
        """The user's files in the package, without the model."""
        return ()

    def faults(self, steps: Sequence[str], dims: Mapping[str, DimRange]) -> Iterator[str]:  # noqa: ARG002 - for functions
        """Yield what keeps the package from being written in a recipe with these steps and ranges of dimensions."""
        yield from artifact_faults(self.artifact, steps)

    def served_name(self, recipe: str) -> str:
        """The name of the model on the server."""
        return self.name or recipe

    def with_absolute_paths(self, _base: Path) -> Self:
        """Return the settings unchanged, because they contain no path."""
        return self


class TritonPythonServing(TritonModelSettings):
    """A Python function as a model in a Triton repository. It takes input name -> array and returns output name -> array.

    The package contains the code, everything that it imports from its own folder, and `extra_files`. The recipe declares the
    dimensions. `data` names real feeds of the function.
    """

    target: Literal["triton-python"] = "triton-python"
    function: str
    inputs: Specs
    outputs: Specs
    data: str | None = None
    extra_files: tuple[str, ...] = ()

    @property
    def files_read(self) -> tuple[str, ...]:
        """The user's files in the package, without the code."""
        return self.extra_files

    def faults(self, steps: Sequence[str], dims: Mapping[str, DimRange]) -> Iterator[str]:  # noqa: ARG002 - for artifacts
        """Yield what keeps the package from being written in a recipe with these steps and ranges of dimensions."""
        if fault := target_fault(self.function):
            yield fault
        if self.data and (fault := data_fault(self.data)):
            yield f"data: {fault}"
        yield from range_faults(self.inputs, dims)
        yield from _missing_files(self.files_read)

    def served_name(self, recipe: str) -> str:  # noqa: ARG002 - for artifacts
        """The name of the model on the server."""
        return self.name or split_target(self.function)[1]

    def with_absolute_paths(self, base: Path) -> Self:
        """Return the settings with absolute paths; relative paths start at `base`.

        Raises:
            ModelError: the target does not name a function.
        """
        return self.model_copy(
            update={
                "function": absolute_target(self.function, base),
                "data": absolute_data(self.data, base) if self.data else None,
                "extra_files": tuple(str((base / file).absolute()) for file in self.extra_files),
            }
        )


class TorchServeServing(Record):
    """A model in a TorchServe archive.

    `handler` is the path of the user's own handler; None means the generated handler. The generated handler reads JSON or, if `image` is
    set, image files; `image` is the preprocessing from an image to the model's input. With `class_names` the handler returns the most
    probable classes. `class_scores` is the type of the model's output: logits, to which the handler applies softmax, or probabilities.
    """

    target: Literal["torchserve"] = "torchserve"
    artifact: str = FASTEST
    name: Name | None = None
    version: Name = "1.0"
    handler: str | None = None
    extra_files: tuple[str, ...] = ()
    requirements: str | None = None
    workers: Count = 1
    batch_size: Count = 1
    max_batch_delay_ms: Annotated[int, Field(ge=0)] = 100
    image: ImagePreprocessing | None = None
    class_names: tuple[str, ...] | None = None
    class_scores: Literal["logits", "probabilities"] = "logits"
    client: bool = True

    @model_validator(mode="after")
    def _generated_handler_only(self) -> Self:
        for key in ("class_names", "image"):
            if self.handler and getattr(self, key) is not None:
                raise ValueError(f"{key}: works with the generated handler only; handler is set. Remove one of them.")
        return self

    @property
    def server(self) -> Literal["torchserve"]:
        """The server that the package is for."""
        return "torchserve"

    @property
    def batches(self) -> bool:
        """Whether the server batches requests."""
        return self.batch_size > 1

    @property
    def files_read(self) -> tuple[str, ...]:
        """The user's files in the package, without the model."""
        return tuple(file for file in (self.handler, *self.extra_files, self.requirements) if file)

    def faults(self, steps: Sequence[str], dims: Mapping[str, DimRange]) -> Iterator[str]:  # noqa: ARG002 - for functions
        """Yield what keeps the package from being written in a recipe with these steps and ranges of dimensions."""
        yield from artifact_faults(self.artifact, steps)
        yield from _missing_files(self.files_read)

    def served_name(self, recipe: str) -> str:
        """The name of the model on the server."""
        return self.name or recipe

    def with_absolute_paths(self, base: Path) -> Self:
        """Return the settings with absolute paths; relative paths start at `base`."""
        return self.model_copy(
            update={
                "handler": str((base / self.handler).absolute()) if self.handler else None,
                "extra_files": tuple(str((base / file).absolute()) for file in self.extra_files),
                "requirements": str((base / self.requirements).absolute()) if self.requirements else None,
            }
        )


ArtifactServing = TritonServing | TorchServeServing
AnyServing = Annotated[TritonServing | TritonPythonServing | TorchServeServing, Field(discriminator="target")]
