"""gRPC calls for requests that are ready as bytes: one channel, whose calls share a connection as Triton's own clients do."""

from typing import Any

from optkit.loadtest.connection import Line, Lines, RequestFailed, short

INFER = "/inference.GRPCInferenceService/ModelInfer"
_UNLIMITED = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


class GrpcLine(Line):
    """One caller on the shared channel."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def ask(self, request: bytes) -> bytes:
        """Call ModelInfer with a message in its bytes."""
        import grpc

        try:
            answer: bytes = await self._call(request)
        except grpc.aio.AioRpcError as e:
            raise _failure(e) from e
        return answer

    @property
    def closed(self) -> bool:
        """Never: the channel mends itself."""
        return False

    def close(self) -> None:
        """Nothing: a cancelled call frees itself."""


class GrpcLines(Lines):
    """A channel to one address."""

    def __init__(self, address: str) -> None:
        import grpc

        self._channel = grpc.aio.insecure_channel(address, options=_UNLIMITED)

    async def open(self) -> GrpcLine:
        """Return another caller; the channel connects with its first call."""
        return GrpcLine(self._channel.unary_unary(INFER))

    async def call(self, method: str, request: Any, answer: Any) -> Any:
        """Call another method of Triton's service with a message, and return the answer as one of the type `answer`.

        Raises:
            RequestFailed: the server refuses, or is none.
        """
        import grpc

        ask = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            return await ask(request)
        except grpc.aio.AioRpcError as e:
            raise _failure(e) from e

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def _failure(error: Any) -> RequestFailed:
    """Return the reason of a failed call; Triton itself says INVALID_ARGUMENT, NOT_FOUND and the like."""
    code = error.code().name
    nobody = code in ("UNAVAILABLE", "UNIMPLEMENTED", "UNKNOWN", "CANCELLED")
    return RequestFailed(short(f"{code}: {error.details() or 'no details'}"), refused=not nobody)
