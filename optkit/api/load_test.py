"""`optkit loadtest`: load on a running server, and what the figures say about batching."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from optkit.api.arguments import Data, Inputs, Progress, StrPath, ToFeed, as_inputs, call, settings
from optkit.errors import FeedError, RecipeError
from optkit.loadtest import LoadRecord, LoadSettings, Source, parse_target, with_advice
from optkit.loadtest import load_test as put_load
from optkit.untrusted.reading import MAX_BODY_BYTES, read_bytes

_CONCURRENCY = (1, 2, 4, 8, 16)  # where neither concurrency nor rate is given


def load_test(
    url: str,
    *,
    model: str | None = None,
    version: str | None = None,
    concurrency: Sequence[int] = (),
    rate: Sequence[float] = (),
    arrivals: Literal["poisson", "constant"] = "poisson",
    tool: Literal["auto", "perf-analyzer", "asyncio"] = "auto",
    batch: int = 1,
    duration_s: float = 5.0,
    warmup_s: float = 1.0,
    limit_s: float = 10.0,
    max_requests: int = 200_000,
    seed: int = 0,
    repository: StrPath | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    inputs: Inputs | None = None,
    body: StrPath | bytes | None = None,
    content_type: str = "application/json",
    token: str | None = None,
    against: StrPath | LoadRecord | None = None,
    max_latency_ms: float | None = None,
    arrivals_per_s: float | None = None,
    progress: Progress | None = None,
) -> LoadRecord:
    """Put load on a running server: latencies, throughput, the batches that it formed, and what they say about batching.

    Args:
        url: `http://host:port` or `grpc://host:port` of Triton, `http://host:port/predictions/NAME` of TorchServe.
        model: on Triton; None takes the only one.
        version: on Triton; None leaves it to the server.
        concurrency: numbers of requests under way; none: 1, 2, 4, 8 and 16 where no rate is given.
        rate: requests a second, whatever the server does.
        arrivals: of a rate.
        tool: what sends the requests; auto takes perf-analyzer where it is installed.
        batch: samples in one request.
        duration_s: how long each load is counted.
        warmup_s: how long each load runs uncounted before.
        limit_s: how long an answer may take.
        max_requests: of each load.
        seed: of random inputs and Poisson arrivals.
        repository: a Triton repository with golden samples.
        data: real samples; without any those of `repository`, else seeded random values.
        to_feed: makes a feed of one item of `data`.
        inputs: of a model on TorchServe, as `{"image": "float32[batch,3,224,224]"}`.
        body: the bytes of a request to TorchServe, or a file that holds them.
        content_type: of `body`.
        token: the inference key of TorchServe.
        against: the record of the same model without, or with, batching.
        max_latency_ms: what a request may take, for the advice.
        arrivals_per_s: expected samples a second, for the advice; None takes that at the knee.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        every load; `failures` says which requests failed.

    Raises:
        OptkitError: no server answers, the requests cannot be made as asked, or the server refuses the first one.
    """
    target = parse_target(url, model, version)
    load = settings(
        LoadSettings,
        concurrency=tuple(concurrency) or (() if rate else _CONCURRENCY),
        rate=tuple(rate),
        arrivals=arrivals,
        tool=tool,
        batch=batch,
        duration_s=duration_s,
        warmup_s=warmup_s,
        limit_s=limit_s,
        max_requests=max_requests,
        seed=seed,
    )
    earlier = against if against is None or isinstance(against, LoadRecord) else LoadRecord.read(Path(against))
    with call(progress) as given:
        source = Source(
            data=given.data(data, to_feed),
            repository=Path(repository) if repository else None,
            inputs=as_inputs(inputs),
            body=body
            if body is None or isinstance(body, bytes)
            else read_bytes(Path(body), "a request body", MAX_BODY_BYTES, FeedError),
            content_type=content_type,
            headers=_authorization(token),
        )
        record = put_load(target, load, source)
    return with_advice(record, earlier, max_latency_ms, arrivals_per_s)


def _authorization(token: str | None) -> Mapping[str, str]:
    if token and not (token.isascii() and token.isprintable()):
        raise RecipeError(
            "--token: holds characters that no key has; expected the inference key of TorchServe's key_file.json"
        )
    return {"Authorization": f"Bearer {token}"} if token else {}
