"""The cost of a load test's client: the CPU time of the client for one request, for several clients of one Triton.

    python benchmarks/load_client.py [--requests 2000] [--rounds 5]

Eight callers send one sample of a small linear model in closed loops. The result is the CPU time of this process divided by the number of
requests; other processes change it little. Clients alternate in rounds, each in a new event loop; a result is the median over the rounds. Needs
OPTKIT_TRITON (tests/support/servers/install_triton.sh) and the extra `serving`.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
CALLERS = 8
FEED = {"x": np.ones((1, 64), np.float32)}
Ask = Callable[[], Awaitable[object]]


def main() -> int:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=HERE.parent / "results" / "load_client.json")
    options = parser.parse_args()
    from optkit.benchmark import load_average, this_machine
    from optkit.serving.triton.server import TritonServer, find_triton

    load = load_average()
    with tempfile.TemporaryDirectory(prefix="load-client-") as folder:
        write_model(Path(folder))
        with TritonServer(find_triton(), Path(folder)) as server:
            found = measure(server.http, server.grpc, options.requests, options.rounds)
    document = {"us": found, "callers": CALLERS, "machine": this_machine().model_dump(), "load_average": load}
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps(document, indent=2) + "\n")
    text = table(document)
    options.results.with_suffix(".md").write_text(text)
    print(text)
    return 0


def write_model(folder: Path) -> None:
    """Write a repository with a linear model of 64 numbers to 8, as ONNX."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(np.ones((64, 8), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "linear/1").mkdir(parents=True)
    onnx.save(model, folder / "linear/1/model.onnx")
    (folder / "linear/config.pbtxt").write_text(
        'platform: "onnxruntime_onnx" max_batch_size: 8 instance_group { kind: KIND_CPU } dynamic_batching {}\n'
        'input { name: "x" data_type: TYPE_FP32 dims: 64 } output { name: "y" data_type: TYPE_FP32 dims: 8 }\n'
    )


def measure(http: str, grpc: str, requests: int, rounds: int) -> dict[str, float]:
    """Return client -> CPU time of one request in us."""
    clients = {
        "optkit, HTTP": lambda: ours(f"http://{http}"),
        "optkit, gRPC (grpc.aio with bytes)": lambda: ours(f"grpc://{grpc}"),
        "asyncio streams, HTTP": lambda: streams(http),
        "aiohttp": lambda: by_aiohttp(http),
        "tritonclient.http.aio": lambda: by_tritonclient("http", http),
        "tritonclient.grpc.aio": lambda: by_tritonclient("grpc", grpc),
    }
    times: dict[str, list[float]] = {name: [] for name in clients}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(clients), len(clients)):
            times[name].append(asyncio.run(drive(clients[name], requests)))
    return {name: statistics.median(all_) for name, all_ in times.items()}


async def drive(client: Callable[[], Any], requests: int) -> float:
    """Return the CPU time of one request in us; the first 10 % of the requests are not counted."""
    async with client() as asks:
        left = 0

        async def call(ask: Ask) -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await ask()

        for count in (requests // 10, requests):
            left, before = count, time.process_time()
            await asyncio.gather(*(call(ask) for ask in asks))
        return (time.process_time() - before) / requests * 1e6


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[list[Ask]]:
    """Our lines."""
    from optkit.loadtest import parse_target
    from optkit.loadtest.job import lines_to
    from optkit.loadtest.payloads import triton_grpc, triton_http

    target = parse_target(url, "linear")
    payload = (triton_grpc if target.scheme == "grpc" else triton_http)(target, FEED)
    lines = lines_to(target)

    async def ask(line: Any) -> None:
        async with asyncio.timeout(30):  # as in the loops
            await line.ask(payload)

    opened = [await lines.open() for _ in range(CALLERS)]
    yield [lambda line=line: ask(line) for line in opened]
    await lines.close()


@asynccontextmanager
async def streams(address: str) -> AsyncIterator[list[Ask]]:
    """Asyncio's StreamReader and StreamWriter, with a minimal reader of responses."""
    from optkit.loadtest import parse_target
    from optkit.loadtest.http_connection import parse_head
    from optkit.loadtest.payloads import triton_http

    payload = triton_http(parse_target(f"http://{address}", "linear"), FEED)
    host, _, port = address.partition(":")
    opened = [await asyncio.open_connection(host, int(port)) for _ in range(CALLERS)]

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(30):
            writer.write(payload)
            head = parse_head((await reader.readuntil(b"\r\n\r\n"))[:-4])
            await reader.readexactly(head.length or 0)

    yield [lambda pair=pair: ask(*pair) for pair in opened]
    for _, writer in opened:
        writer.close()


@asynccontextmanager
async def by_aiohttp(address: str) -> AsyncIterator[list[Ask]]:
    """Aiohttp, with a body that is made once."""
    import aiohttp

    from optkit.loadtest import parse_target
    from optkit.loadtest.payloads import triton_http

    head, _, body = triton_http(parse_target(f"http://{address}", "linear"), FEED).partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    headers = {name: fields[name] for name in ("Content-Type", "Inference-Header-Content-Length")}
    async with aiohttp.ClientSession() as session:

        async def ask() -> None:
            async with session.post(f"http://{address}/v2/models/linear/infer", data=body, headers=headers) as answer:
                answer.raise_for_status()
                await answer.read()

        yield [ask] * CALLERS


@asynccontextmanager
async def by_tritonclient(scheme: str, address: str) -> AsyncIterator[list[Ask]]:
    """NVIDIA's client, which makes each request again from its inputs."""
    import importlib

    library = importlib.import_module(f"tritonclient.{scheme}.aio")
    tensor = library.InferInput("x", [1, 64], "FP32")
    tensor.set_data_from_numpy(FEED["x"])
    client = library.InferenceServerClient(address)
    yield [lambda: client.infer("linear", [tensor])] * CALLERS
    await client.close()


def table(document: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    machine, found = document["machine"], document["us"]
    best = min(found.values())
    rows = [f"| {name} | {us:.0f} | {us / best:.1f}x |" for name, us in found.items()]
    return "\n".join(
        [
            "# What a client of a load test costs",
            "",
            f"Written by `benchmarks/load_client.py`: processor time of the client for one request of 64 floats to a local Triton, {CALLERS} "
            f"callers, medians of alternating rounds.",
            "",
            "| client | us a request | |",
            "|---|---|---|",
            *rows,
            "",
            f"{machine['cpu']}, {machine['cores']} cores, load average {document['load_average'] or 0:.1f}; Python {machine['python']}.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
