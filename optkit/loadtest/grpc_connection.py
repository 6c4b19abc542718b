"""gRPC calls with serialized requests. All callers share one channel, so they share a connection, as in Triton's own clients."""

from typing import Any

from optkit.loadtest.connection import Connection, Connector, RequestFailed, short

INFER = "/inference.GRPCInferenceService/ModelInfer"
_UNLIMITED = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


class GrpcConnection(Connection):
    """One caller on the shared channel."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def request(self, content: bytes) -> bytes:
        """Call ModelInfer with a serialized message."""
        import grpc

        try:
            response: bytes = await self._call(content)
        except grpc.aio.AioRpcError as e:
            raise _failure(e) from e
        return response

    @property
    def closed(self) -> bool:
        """Always False: the channel reconnects by itself."""
        return False

    def close(self) -> None:
        """Do nothing: a cancelled call frees its resources."""


class GrpcConnector(Connector):
    """A channel to one address."""

    def __init__(self, address: str) -> None:
        import grpc

        self._channel = grpc.aio.insecure_channel(address, options=_UNLIMITED)

    async def open(self) -> GrpcConnection:
        """Return another caller; the first call connects the channel."""
        return GrpcConnection(self._channel.unary_unary(INFER))

    async def call(self, method: str, request: Any, response_type: Any) -> Any:
        """Call another method of Triton's service and return its response as a `response_type` message.

        Raises:
            RequestFailed: the server refused the call, or it is not a Triton server.
        """
        import grpc

        call = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response_type.FromString,
        )
        try:
            return await call(request)
        except grpc.aio.AioRpcError as e:
            raise _failure(e) from e

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def _failure(error: Any) -> RequestFailed:
    """Return the reason of a failed call; Triton itself sends INVALID_ARGUMENT, NOT_FOUND and similar codes."""
    code = error.code().name
    no_server = code in ("UNAVAILABLE", "UNIMPLEMENTED", "UNKNOWN", "CANCELLED")
    return RequestFailed(short(f"{code}: {error.details() or 'no details'}"), refused=not no_server)
