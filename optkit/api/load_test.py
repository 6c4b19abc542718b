"""`optkit loadtest`: put load on a running server, and derive advice on dynamic batching."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from optkit.api.arguments import Data, Inputs, Progress, StrPath, ToFeed, as_inputs, call, settings
from optkit.errors import FeedError, RecipeError
from optkit.loadtest import LoadRecord, LoadSettings, Source, parse_target, with_advice
from optkit.loadtest import load_test as run_load_test
from optkit.untrusted.reading import MAX_BODY_BYTES, read_bytes

_CONCURRENCY = (1, 2, 4, 8, 16)  # the default if neither concurrency nor rate is given


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
    """Load-test a model on a running server: latency, throughput, formed batches, and advice on dynamic batching.

    Args:
        url: `http://host:port` or `grpc://host:port` for Triton, `http://host:port/predictions/NAME` for TorchServe.
        model: name of the model on Triton; None uses the only model.
        version: version of the model on Triton; None lets the server choose.
        concurrency: closed loop: numbers of concurrent callers; empty uses 1, 2, 4, 8 and 16 if no rate is given.
        rate: open loop: requests per second, for example [50, 100].
        arrivals: distribution of arrivals for `rate`: poisson or constant.
        tool: load generator: auto (perf-analyzer if it is installed), perf-analyzer or asyncio (the client of optkit).
        batch: samples per request.
        duration_s: measured time of each load, in seconds.
        warmup_s: warm-up time of each load, in seconds; not measured.
        limit_s: time limit for a response, in seconds.
        max_requests: maximum number of requests of each load.
        seed: seed of random inputs and Poisson arrivals.
        repository: Triton model repository with golden samples.
        data: real samples; None uses the golden samples of `repository`; without `repository`, seeded random values.
        to_feed: function that converts one item of `data` to a feed.
        inputs: inputs of a model on TorchServe, for example `{"image": "float32[batch,3,224,224]"}`.
        body: body of the requests to TorchServe, as bytes or as a file.
        content_type: content type of `body`.
        token: inference key of TorchServe.
        against: for the advice: the record of a test of the same model without (or with) dynamic batching.
        max_latency_ms: for the advice: latency limit of a request, in milliseconds; None sets no limit.
        arrivals_per_s: for the advice: expected samples per second; None uses the throughput at the knee.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the measurements of all loads; `failures` lists the failed requests.

    Raises:
        OptkitError: no server responds, the requests cannot be created, or the server rejects the first request.
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
    with call(progress) as api_call:
        source = Source(
            data=api_call.data(data, to_feed),
            repository=Path(repository) if repository else None,
            inputs=as_inputs(inputs),
            body=body
            if body is None or isinstance(body, bytes)
            else read_bytes(Path(body), "a request body", MAX_BODY_BYTES, FeedError),
            content_type=content_type,
            headers=_authorization(token),
        )
        record = run_load_test(target, load, source)
    return with_advice(record, earlier, max_latency_ms, arrivals_per_s)


def _authorization(token: str | None) -> Mapping[str, str]:
    if token and not (token.isascii() and token.isprintable()):
        raise RecipeError(
            "--token: contains invalid characters; expected the inference key from TorchServe's key_file.json"
        )
    return {"Authorization": f"Bearer {token}"} if token else {}
