"""Further keys of a Triton entry under `serve:`: queues, priorities, instances, versions and accelerators."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from optkit.record import Record

Count = Annotated[int, Field(ge=1)]
Amount = Annotated[int, Field(ge=0)]


class Instances(Record):
    """The number of model instances. With `kind: gpu` it applies to each GPU in `gpus`, or to all GPUs if `gpus` is empty."""

    count: Count = 1
    kind: Literal["cpu", "gpu"] = "cpu"
    gpus: tuple[Amount, ...] = ()

    @model_validator(mode="after")
    def _gpus_need_their_kind(self) -> Self:
        if self.gpus and self.kind != "gpu":
            raise ValueError(
                f"gpus: {list(self.gpus)} is set with kind {self.kind!r}; expected kind: gpu. Set it, or remove gpus."
            )
        if len(set(self.gpus)) != len(self.gpus):
            raise ValueError(
                f"gpus: {list(self.gpus)} contains a GPU twice; expected each GPU once. Use count for more instances."
            )
        return self


class VersionPolicy(Record):
    """The versions that the server loads: the newest, all, or specific ones. Exactly one of the three is set."""

    latest: Count | None = None
    all: bool = False
    specific: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("latest", "all", "specific") if getattr(self, key)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"got {found}; expected one of latest: 1, all: true, specific: [1, 2]")
        return self

    def loads(self, version: int, versions: set[int]) -> bool:
        """Return whether the server loads `version` if these `versions` exist."""
        if self.latest:
            return version in sorted(versions)[-self.latest :]
        return self.all or version in self.specific


class QueuePolicy(Record):
    """The limits of the request queue. `max_size` 0 means no limit, and `timeout_us` 0 means no timeout."""

    timeout_action: Literal["reject", "delay"] = "reject"
    timeout_us: Amount = 0
    allow_timeout_override: bool = False
    max_size: Amount = 0


class Priorities(Record):
    """Priority levels; 1 is the highest. `default` applies to requests without a priority. `queues` sets the queue policy of a level."""

    levels: Count
    default: Count
    queues: dict[Count, QueuePolicy] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _levels_exist(self) -> Self:
        beyond = [level for level in (self.default, *self.queues) if level > self.levels]
        if beyond:
            raise ValueError(f"level {beyond[0]}: does not exist; expected 1 to {self.levels}")
        return self


class Accelerator(Record):
    """An execution provider that runs parts of the graph for the ONNX backend, with its parameters."""

    name: Literal["tensorrt", "openvino"]
    parameters: dict[str, str] = Field(default_factory=dict)

    @property
    def kind(self) -> Literal["cpu", "gpu"]:
        """The kind of instances that it needs."""
        return "cpu" if self.name == "openvino" else "gpu"


class Optimization(Record):
    """Optimizations of the backend. Only the TensorRT backend reads `cuda_graphs`."""

    cuda_graphs: bool = False
    accelerators: tuple[Accelerator, ...] = ()
