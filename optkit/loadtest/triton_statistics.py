"""What a Triton server says of itself: its models, a model's inputs and configuration, and its statistics.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_statistics.html
"""

import asyncio
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from optkit.errors import RunnerError
from optkit.loadtest.connection import Lines, RequestFailed
from optkit.loadtest.grpc_connection import GrpcLines
from optkit.loadtest.http_connection import HttpLines
from optkit.loadtest.record import Batching, FormedBatch, ServerSide
from optkit.loadtest.target import Target

T = TypeVar("T")
Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What the server has counted since it started; times in ns."""

    inferences: int
    executions: int
    requests: int
    failed: int
    queue_ns: int
    compute_ns: int
    batches: Mapping[int, tuple[int, int]]  # size -> executions, ns in all

    @classmethod
    def of(cls, models: list[Json]) -> "Snapshot":
        """Add up the statistics of a model's versions. By gRPC numbers are texts, and zeros are left out."""
        stats: list[Json] = [model.get("inference_stats", {}) for model in models]
        batches: dict[int, tuple[int, int]] = {}
        for entry in (entry for model in models for entry in model.get("batch_stats", ())):
            size, count = int(entry["batch_size"]), _number(entry, "compute_infer", "count")
            executions, ns = batches.get(size, (0, 0))
            batches[size] = executions + count, ns + _compute_ns(entry)
        return cls(
            inferences=sum(int(model.get("inference_count", 0)) for model in models),
            executions=sum(int(model.get("execution_count", 0)) for model in models),
            requests=sum(_number(one, "success", "count") for one in stats),
            failed=sum(_number(one, "fail", "count") for one in stats),
            queue_ns=sum(_number(one, "queue", "ns") for one in stats),
            compute_ns=sum(_compute_ns(one) for one in stats),
            batches=batches,
        )

    def since(self, before: "Snapshot", *, includes_warmup: bool) -> ServerSide | None:
        """Return what was counted after an earlier snapshot; None where nothing was executed."""
        executions, requests = self.executions - before.executions, self.requests - before.requests
        if executions < 1 or requests < 1:
            return None
        formed = []
        for size, (count, ns) in sorted(self.batches.items()):
            earlier, earlier_ns = before.batches.get(size, (0, 0))
            if count > earlier:
                mean_ms = (ns - earlier_ns) / (count - earlier) / 1e6
                formed.append(FormedBatch(size=size, executions=count - earlier, execution_ms=mean_ms))
        inferences = self.inferences - before.inferences
        return ServerSide(
            inferences=inferences,
            executions=executions,
            mean_batch=inferences / executions,
            batches=tuple(formed),
            queue_ms=(self.queue_ns - before.queue_ns) / requests / 1e6,
            compute_ms=(self.compute_ns - before.compute_ns) / requests / 1e6,
            failed=self.failed - before.failed,
            includes_warmup=includes_warmup,
        )


class TritonControl:
    """Asks one server about one model, each question within a limit."""

    def __init__(self, target: Target, lines: Lines, limit_s: float) -> None:
        self._target = target
        self._lines = lines
        self._limit_s = limit_s

    async def models(self) -> list[str]:
        """Return the names of the models that are ready.

        Raises:
            RunnerError: there is no Triton server that answers.
        """
        return await self._ask("POST", "repository/index", "RepositoryIndex", _ready)

    async def inputs(self) -> list[Json]:
        """Return the model's inputs, each with `name`, `datatype` and `shape`.

        Raises:
            RunnerError: no server answers, or it does not have the model.
        """
        return await self._ask(
            "GET", self._target.triton_path, "ModelMetadata", lambda found: [dict(one) for one in found["inputs"]]
        )

    async def batching(self) -> Batching:
        """Return what the model's configuration says of batching.

        Raises:
            RunnerError: as `inputs`.
        """
        return await self._ask("GET", f"{self._target.triton_path}/config", "ModelConfig", _batching)

    async def snapshot(self) -> Snapshot:
        """Return the model's statistics.

        Raises:
            RunnerError: as `inputs`.
        """
        path = f"{self._target.triton_path}/stats"
        return await self._ask("GET", path, "ModelStatistics", lambda found: Snapshot.of(found["model_stats"]))

    async def _ask(self, verb: str, path: str, method: str, read: Callable[[Any], T]) -> T:
        where, nobody = self._target.where, "is no Triton server that answers"
        try:
            async with asyncio.timeout(self._limit_s):
                if isinstance(self._lines, HttpLines):
                    found = await self._by_http(self._lines, f"{verb} /v2/{path} HTTP/1.1")
                else:
                    found = await self._by_grpc(cast(GrpcLines, self._lines), method)
        except TimeoutError as e:
            raise RunnerError(f"{where}: {nobody}: no answer within {self._limit_s:g} s") from e
        except RequestFailed as e:
            raise RunnerError(f"{where}: {e}" if e.refused else f"{where}: {nobody}: {e}") from e
        except ValueError as e:
            raise RunnerError(f"{where}: {nobody}: the answer to {path} is no JSON ({e})") from e
        try:
            return read(found)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise RunnerError(f"{where}: {nobody}: the answer to {path} cannot be read ({e!r})") from e

    async def _by_http(self, lines: HttpLines, first: str) -> Any:
        line = await lines.open()
        try:
            head = f"{first}\r\nHost: {self._target.address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            return json.loads(await line.ask(head.encode()))
        finally:
            line.close()

    async def _by_grpc(self, lines: GrpcLines, method: str) -> Any:
        from google.protobuf.json_format import MessageToDict
        from tritonclient.grpc import service_pb2 as messages

        request = getattr(messages, f"{method}Request")()
        if method != "RepositoryIndex":
            request.name, request.version = self._target.model, self._target.version
        answer = await lines.call(method, request, getattr(messages, f"{method}Response"))
        return MessageToDict(answer, preserving_proto_field_name=True)


def _ready(found: Any) -> list[str]:
    entries = found if isinstance(found, list) else found["models"]
    return sorted({entry["name"] for entry in entries if entry.get("state") == "READY"})


def _batching(found: Json) -> Batching:
    config: Json = found.get("config", found)
    dynamic: Json | None = config.get("dynamic_batching")
    return Batching(
        max_batch_size=int(config.get("max_batch_size", 0)),
        dynamic=dynamic is not None,
        preferred_batch_sizes=tuple(int(size) for size in (dynamic or {}).get("preferred_batch_size", ())),
        max_queue_delay_us=int((dynamic or {}).get("max_queue_delay_microseconds", 0)),
        instances=sum(int(group.get("count", 1)) for group in config.get("instance_group", ())) or 1,
    )


def _number(stats: Json, what: str, field: str) -> int:
    return int(stats.get(what, {}).get(field, 0))


def _compute_ns(stats: Json) -> int:
    return sum(_number(stats, part, "ns") for part in ("compute_input", "compute_infer", "compute_output"))
