"""The keys of a Triton entry under `serve:` beyond its batching: queues, priorities, instances, versions, accelerators."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from optkit.record import Record

Count = Annotated[int, Field(ge=1)]
Amount = Annotated[int, Field(ge=0)]


class Instances(Record):
    """How many copies of the model run at once; with `kind: gpu`, on each of `gpus`, or on every GPU when none is named."""

    count: Count = 1
    kind: Literal["cpu", "gpu"] = "cpu"
    gpus: tuple[Amount, ...] = ()

    @model_validator(mode="after")
    def _gpus_need_their_kind(self) -> Self:
        if self.gpus and self.kind != "gpu":
            raise ValueError(f"gpus {list(self.gpus)}: given with kind {self.kind!r}; set kind: gpu, or leave gpus out")
        if len(set(self.gpus)) != len(self.gpus):
            raise ValueError(
                f"gpus {list(self.gpus)}: one is named twice; name each once, and use count for more copies"
            )
        return self


class VersionPolicy(Record):
    """Which versions the server loads: the newest ones, all, or those named; exactly one is given."""

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
        """Say whether the server would load `version` where these `versions` lie."""
        if self.latest:
            return version in sorted(versions)[-self.latest :]
        return self.all or version in self.specific


class QueuePolicy(Record):
    """What becomes of requests that wait: `max_size` 0 has no limit, `timeout_us` 0 waits for ever."""

    timeout_action: Literal["reject", "delay"] = "reject"
    timeout_us: Amount = 0
    allow_timeout_override: bool = False
    max_size: Amount = 0


class Priorities(Record):
    """Levels of priority, 1 first; `default` is that of a request that names none, `queues` replace the queue of a level."""

    levels: Count
    default: Count
    queues: dict[Count, QueuePolicy] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _levels_exist(self) -> Self:
        beyond = [level for level in (self.default, *self.queues) if level > self.levels]
        if beyond:
            raise ValueError(f"level {beyond[0]}: there are {self.levels}; use 1 to {self.levels}")
        return self


class Accelerator(Record):
    """An execution provider that the ONNX backend hands parts of the graph to, with its parameters."""

    name: Literal["tensorrt", "openvino"]
    parameters: dict[str, str] = Field(default_factory=dict)

    @property
    def kind(self) -> Literal["cpu", "gpu"]:
        """On which instances it runs."""
        return "cpu" if self.name == "openvino" else "gpu"


class Optimization(Record):
    """What the backend does to run faster; CUDA graphs are read by the TensorRT backend alone."""

    cuda_graphs: bool = False
    accelerators: tuple[Accelerator, ...] = ()
