"""Before a load: the target asked what it is, the requests made as bytes, and one tried."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from optkit.artifact.tensors import Feed, TensorSpec, batch_dim
from optkit.errors import ArtifactError, RecipeError, RunnerError
from optkit.loadtest import payloads
from optkit.loadtest.connection import RequestFailed
from optkit.loadtest.job import Job, lines_to, run
from optkit.loadtest.record import Batching
from optkit.loadtest.settings import LoadSettings
from optkit.loadtest.target import Target
from optkit.loadtest.triton_statistics import Json, TritonControl
from optkit.loadtest.values import BATCH, golden_of, specs_of, values_of
from optkit.record import refused_as


@dataclasses.dataclass(frozen=True)
class Source:
    """What requests are made of.

    `repository` is a Triton repository with golden samples; `data` real samples; `inputs` declares those of a model on TorchServe, which
    does not tell them; `body` is a whole request for TorchServe as it is.
    """

    data: str | None = None
    repository: Path | None = None
    repository_model: str | None = None  # where it has another name there
    inputs: tuple[TensorSpec, ...] = ()
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def prepared(target: Target, settings: LoadSettings, source: Source) -> tuple[Target, Batching | None, Job]:
    """Ask the target what it is and make the requests.

    Raises:
        RunnerError, RecipeError, FeedError: as `load_test`.
    """
    if target.server == "torchserve":
        return target, None, _torchserve_job(target, settings, source)
    if source.body is not None:
        raise RecipeError("--body: is for TorchServe; give --data or --repository for Triton")
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
    lines = lines_to(target)
    try:
        if not target.model:
            models = await TritonControl(target, lines, limit_s).models()
            if len(models) != 1:
                raise RecipeError(f"{target.url}: has {', '.join(models) or 'no model'}; name one with --model")
            target = dataclasses.replace(target, model=models[0])
        control = TritonControl(target, lines, limit_s)
        return target, await control.inputs(), await control.batching()
    finally:
        await lines.close()


def _torchserve_job(target: Target, settings: LoadSettings, source: Source) -> Job:
    if settings.batch > 1:
        raise RecipeError(
            f"--batch {settings.batch}: a request to optkit's handler for TorchServe is one sample; expected 1"
        )
    if source.body is not None:
        request = payloads.torchserve(target, source.body, source.content_type, source.headers)
        return Job(target, settings, (request,))
    golden = golden_of(source.repository, source.repository_model or target.model, "") if source.repository else None
    specs = source.inputs or _specs_like(golden.inputs if golden else {})
    if not specs:
        raise RecipeError(
            f"{target.url}: TorchServe does not tell a model's inputs. Give --input 'name:dtype[batch,...]' with --data, "
            f"--repository of the same model for Triton, or --body FILE."
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
    """Send one request, whose answer must hold something.

    Raises:
        RunnerError: it is not answered so.
    """
    lines = lines_to(job.target)
    where = f"{job.target.where}: the first request"
    try:
        async with asyncio.timeout(job.settings.limit_s):
            line = await lines.open()
            answer = await line.ask(job.payloads[0])
            line.close()
        empty = payloads.no_outputs(job.target, answer)
    except TimeoutError as e:
        raise RunnerError(f"{where}: no answer within {job.settings.limit_s:g} s") from e
    except RequestFailed as e:
        raise RunnerError(f"{where}: {e}") from e
    except Exception as e:  # what json and protobuf raise for other bytes shares no base
        raise RunnerError(f"{where}: the answer cannot be read ({e})") from e
    finally:
        await lines.close()
    if empty:
        raise RunnerError(f"{where}: answered without any output; expected the model's. Look at the server's log.")


def _specs_like(feed: Feed) -> tuple[TensorSpec, ...]:
    """Return the inputs that a feed shows; its first dimension is the batch where all arrays share it."""
    firsts = {array.shape[:1] for array in feed.values()}
    batched = len(firsts) == 1 and () not in firsts
    with refused_as(ArtifactError, "golden samples"):
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
