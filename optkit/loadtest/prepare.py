"""Preparation of a load test: read the model's inputs from the server, encode the requests, and send one as a probe."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from optkit.artifact.tensors import Feed, TensorSpec, batch_dim
from optkit.errors import ArtifactError, RecipeError, RunnerError
from optkit.loadtest import payloads
from optkit.loadtest.connection import RequestFailed
from optkit.loadtest.job import Job, connector_to, run
from optkit.loadtest.load_record import Batching
from optkit.loadtest.settings import LoadSettings
from optkit.loadtest.target import Target
from optkit.loadtest.triton_statistics import Json, TritonQueries
from optkit.loadtest.values import BATCH, golden_of, specs_of, values_of
from optkit.record import validation_error_as


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of the requests.

    `repository` is a Triton repository with golden samples. `data` names real samples. `inputs` declares the inputs of a model on
    TorchServe, because the server does not report them. `body` is the complete body of a request to TorchServe.
    """

    data: str | None = None
    repository: Path | None = None
    repository_model: str | None = None  # the model's name in the repository, if it differs
    inputs: tuple[TensorSpec, ...] = ()
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def prepare(target: Target, settings: LoadSettings, source: Source) -> tuple[Target, Batching | None, Job]:
    """Read the model's inputs and configuration from the server, and encode the requests.

    Raises:
        RunnerError, RecipeError, FeedError: as `load_test`.
    """
    if target.server == "torchserve":
        return target, None, _torchserve_job(target, settings, source)
    if source.body is not None:
        raise RecipeError("--body: works with TorchServe only. Give --data or --repository for Triton.")
    target, inputs, batching = run(_triton_facts(target, settings.limit_s))
    specs = specs_of(inputs)
    golden = (
        golden_of(source.repository, source.repository_model or target.model, target.version)
        if source.repository
        else None
    )
    values = values_of(specs, settings.batch, data=source.data, golden=golden, seed=settings.seed)
    make = payloads.triton_grpc if target.scheme == "grpc" else payloads.triton_http
    requests = tuple(make(target, feed) for feed in values.feeds)
    return target, batching, Job(target, settings, requests, values, server_batches=batching.max_batch_size > 0)


async def _triton_facts(target: Target, limit_s: float) -> tuple[Target, Sequence[Json], Batching]:
    connector = connector_to(target)
    try:
        if not target.model:
            models = await TritonQueries(target, connector, limit_s).models()
            if len(models) != 1:
                raise RecipeError(
                    f"{target.url}: serves {', '.join(models) or 'no model'}; expected exactly one model. Name one with --model."
                )
            target = dataclasses.replace(target, model=models[0])
        queries = TritonQueries(target, connector, limit_s)
        return target, await queries.inputs(), await queries.batching()
    finally:
        await connector.close()


def _torchserve_job(target: Target, settings: LoadSettings, source: Source) -> Job:
    if settings.batch > 1:
        raise RecipeError(
            f"--batch {settings.batch}: a request to optkit's TorchServe handler holds one sample; expected 1"
        )
    if source.body is not None:
        request = payloads.torchserve(target, source.body, source.content_type, source.headers)
        return Job(target, settings, (request,))
    golden = golden_of(source.repository, source.repository_model or target.model, "") if source.repository else None
    specs = source.inputs or _specs_like(golden.inputs if golden else {})
    if not specs:
        raise RecipeError(
            f"{target.url}: TorchServe does not report the inputs of a model. Give --input 'name:dtype[batch,...]' with --data, "
            f"or --repository with the same model for Triton, or --body FILE."
        )
    values = values_of(specs, 1, data=source.data, golden=golden, seed=settings.seed)
    batched = batch_dim(specs) is not None
    bodies = [{name: array[0] if batched else array for name, array in feed.items()} for feed in values.feeds]
    made = [
        payloads.torchserve(target, payloads.torchserve_body(body), "application/json", source.headers)
        for body in bodies
    ]
    return Job(target, settings, tuple(made), values)


async def probe(job: Job) -> None:
    """Send one request and check that the response holds output values.

    Raises:
        RunnerError: there is no such response.
    """
    connector = connector_to(job.target)
    where = f"{job.target.where}: the first request"
    try:
        async with asyncio.timeout(job.settings.limit_s):
            connection = await connector.open()
            response = await connection.request(job.payloads[0])
            connection.close()
        empty = payloads.no_outputs(job.target, response)
    except TimeoutError as e:
        raise RunnerError(f"{where}: no response within {job.settings.limit_s:g} s") from e
    except RequestFailed as e:
        raise RunnerError(f"{where}: {e}") from e
    except Exception as e:  # the errors of json and protobuf have no common base class
        raise RunnerError(f"{where}: the response cannot be read ({e})") from e
    finally:
        await connector.close()
    if empty:
        raise RunnerError(
            f"{where}: the response holds no outputs; expected the model's outputs. Look at the server's log."
        )


def _specs_like(feed: Feed) -> tuple[TensorSpec, ...]:
    """Return input specs for a feed. The first dimension is the batch dimension if it is equal in all arrays."""
    firsts = {array.shape[:1] for array in feed.values()}
    batched = len(firsts) == 1 and () not in firsts
    with validation_error_as(ArtifactError, "golden samples"):
        return tuple(
            TensorSpec.model_validate(
                {
                    "name": name,
                    "dtype": array.dtype.name,
                    "shape": (BATCH, *array.shape[1:]) if batched else array.shape,
                }
            )
            for name, array in feed.items()
        )
