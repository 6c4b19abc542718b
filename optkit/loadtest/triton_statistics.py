"""Queries to a Triton server: its models, and the inputs, configuration and statistics of a model.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_statistics.html
"""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from optkit.errors import RunnerError
from optkit.loadtest.connection import Connector, RequestFailed
from optkit.loadtest.grpc_connection import GrpcConnector
from optkit.loadtest.http_connection import HttpConnector
from optkit.loadtest.load_record import Batching, FormedBatch, ServerSide
from optkit.loadtest.target import Target
from optkit.untrusted.documents import parse_response

T = TypeVar("T")
Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class StatisticsSnapshot:
    """The server's counters since it started; times are in ns."""

    inferences: int
    executions: int
    requests: int
    failed: int
    queue_ns: int
    compute_ns: int
    batches: Mapping[int, tuple[int, int]]  # size -> executions, total ns

    @classmethod
    def of(cls, models: list[Json]) -> "StatisticsSnapshot":
        """Add up the statistics of all versions of a model. Over gRPC, numbers arrive as text and zeros are missing."""
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

    def since(self, before: "StatisticsSnapshot", *, includes_warmup: bool) -> ServerSide | None:
        """Return the counts since an earlier snapshot, or None if nothing was executed."""
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


class TritonQueries:
    """Queries one server about one model, with a time limit for each query."""

    def __init__(self, target: Target, connector: Connector, limit_s: float) -> None:
        self._target = target
        self._connector = connector
        self._limit_s = limit_s

    async def models(self) -> list[str]:
        """Return the names of the models that are ready.

        Raises:
            RunnerError: no Triton server responds.
        """
        return await self._query("POST", "repository/index", "RepositoryIndex", _ready)

    async def inputs(self) -> list[Json]:
        """Return the model's inputs, each with `name`, `datatype` and `shape`.

        Raises:
            RunnerError: no server responds, or it does not have the model.
        """
        return await self._query(
            "GET", self._target.triton_path, "ModelMetadata", lambda response: [dict(one) for one in response["inputs"]]
        )

    async def batching(self) -> Batching:
        """Return the batching settings in the model's configuration.

        Raises:
            RunnerError: as `inputs`.
        """
        return await self._query("GET", f"{self._target.triton_path}/config", "ModelConfig", _batching)

    async def snapshot(self) -> StatisticsSnapshot:
        """Return the model's statistics.

        Raises:
            RunnerError: as `inputs`.
        """
        path = f"{self._target.triton_path}/stats"
        return await self._query(
            "GET", path, "ModelStatistics", lambda response: StatisticsSnapshot.of(response["model_stats"])
        )

    async def _query(self, verb: str, path: str, method: str, read: Callable[[Any], T]) -> T:
        where, no_server = self._target.where, "no working Triton server"
        try:
            async with asyncio.timeout(self._limit_s):
                if isinstance(self._connector, HttpConnector):
                    response = await self._by_http(self._connector, f"{verb} /v2/{path} HTTP/1.1")
                else:
                    response = await self._by_grpc(cast(GrpcConnector, self._connector), method)
        except TimeoutError as e:
            raise RunnerError(f"{where}: {no_server}: no response within {self._limit_s:g} s") from e
        except RequestFailed as e:
            raise RunnerError(f"{where}: {e}" if e.refused else f"{where}: {no_server}: {e}") from e
        except ValueError as e:
            raise RunnerError(f"{where}: {no_server}: the response to {path} is not JSON ({e})") from e
        try:
            return read(response)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise RunnerError(f"{where}: {no_server}: the response to {path} cannot be read ({e!r})") from e

    async def _by_http(self, connector: HttpConnector, first: str) -> Any:
        connection = await connector.open()
        try:
            head = f"{first}\r\nHost: {self._target.address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            return parse_response(await connection.request(head.encode()))
        finally:
            connection.close()

    async def _by_grpc(self, connector: GrpcConnector, method: str) -> Any:
        from google.protobuf.json_format import MessageToDict
        from tritonclient.grpc import service_pb2 as messages

        request = getattr(messages, f"{method}Request")()
        if method != "RepositoryIndex":
            request.name, request.version = self._target.model, self._target.version
        response = await connector.call(method, request, getattr(messages, f"{method}Response"))
        return MessageToDict(response, preserving_proto_field_name=True)


def _ready(response: Any) -> list[str]:
    entries = response if isinstance(response, list) else response["models"]
    return sorted({entry["name"] for entry in entries if entry.get("state") == "READY"})


def _batching(response: Json) -> Batching:
    config: Json = response.get("config", response)
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
