"""Requests as bytes. They are encoded before the load, so that encoding is not measured."""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np

from optkit.artifact.tensors import Feed
from optkit.loadtest.target import Target


def triton_http(target: Target, feed: Feed) -> bytes:
    """Return an HTTP request with binary input and output tensors.

    https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
    """
    from tritonclient.utils import np_to_triton_dtype

    arrays = {name: np.ascontiguousarray(array) for name, array in feed.items()}
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": np_to_triton_dtype(array.dtype),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    header = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = header + b"".join(array.tobytes() for array in arrays.values())
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(header)),
    }
    return http_request(target, f"/v2/{target.triton_path}/infer", headers, body)


def triton_grpc(target: Target, feed: Feed) -> bytes:
    """Return a serialized ModelInferRequest."""
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.utils import np_to_triton_dtype

    message = messages.ModelInferRequest(model_name=target.model, model_version=target.version)
    for name, array in feed.items():
        message.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        message.raw_input_contents.append(np.ascontiguousarray(array).tobytes())
    serialized: bytes = message.SerializeToString()
    return serialized


def torchserve(target: Target, body: bytes, content_type: str, headers: Mapping[str, str]) -> bytes:
    """Return a prediction request."""
    version = f"/{quote(target.version, safe='')}" if target.version else ""
    path = f"/predictions/{quote(target.model, safe='')}{version}"
    return http_request(target, path, {"Content-Type": content_type, **headers}, body)


def torchserve_body(feed: Feed) -> bytes:
    """Return one sample as JSON for optkit's handler: input name -> nested lists."""
    return json.dumps({name: array.tolist() for name, array in feed.items()}).encode()


def http_request(target: Target, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a POST request; HTTP/1.1 keeps the connection open by default."""
    fields = {"Host": target.address, **headers, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def no_outputs(target: Target, response: bytes) -> bool:
    """Return whether a successful response holds no output values. A Triton backend with an incompatible numpy sends such responses."""
    if target.server == "torchserve":
        return not response
    if target.scheme == "grpc":
        from tritonclient.grpc import service_pb2 as messages

        return not any(messages.ModelInferResponse.FromString(response).raw_output_contents)
    try:
        header, end = json.JSONDecoder().raw_decode(response.decode("latin-1"))
    except RecursionError as e:
        raise ValueError("the response is nested too deeply") from e
    outputs: Sequence[object] = header.get("outputs", ()) if isinstance(header, dict) else ()
    return not outputs or len(response) <= end
