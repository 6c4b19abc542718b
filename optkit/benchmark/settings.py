"""The settings of a benchmark, and the input sizes that it measures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from pydantic import Field, model_validator

from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange, TensorSpec, batch_dim
from optkit.benchmark.machine import usable_cores
from optkit.errors import FeedError
from optkit.record import Record
from optkit.runners import Device


class BenchSettings(Record):
    """The `bench` key of a recipe.

    The defaults were tuned with `benchmarks/ab_null.py`. Blocks are short, because other load comes in bursts: both blocks of a pair then
    run under the same load. A narrow interval or the time limit normally ends a benchmark; `max_blocks` is a last limit. Fewer than
    `min_blocks` blocks give no reliable interval. An interval narrower than the noise between sessions only costs time.
    """

    batches: tuple[int, ...] = Field(default=(), description="none: min, opt and max of the batch dimension")
    concurrency: tuple[int, ...] = Field(default=(), description="numbers of callers at once; none: not measured")
    threads: int | None = Field(default=None, ge=1)  # of each runtime; None uses every usable core
    device: Device = Device.CPU
    cuda_graph: bool = Field(default=False, description="whether calls replay a captured CUDA graph; on device cuda")
    seed: int = Field(default=0, ge=0)  # of the random order
    block_s: float = Field(default=0.02, ge=0)  # the shortest time of a block's counted calls
    block_calls: int = Field(default=5, ge=1)  # the fewest counted calls of a block
    drop_s: float = Field(default=0.01, ge=0)  # the shortest time of the dropped calls after a switch
    drop_calls: int = Field(default=1, ge=0)  # the fewest dropped calls, in addition to the first call of a session
    min_blocks: int = Field(default=10, ge=1)
    max_blocks: int = Field(default=400, ge=1)
    half_width: float = Field(default=0.015, gt=0, le=1)  # relative, of a speed-up's 95 % interval; the goal
    time_limit_s: float = Field(default=30.0, gt=0)  # no new block starts after it

    @property
    def threads_used(self) -> int:
        """The threads of each runtime: `threads`, or one for each usable core."""
        return self.threads or usable_cores()

    @property
    def equal_within(self) -> float:
        """The largest distance of an interval's ends from 1 for `no difference`: twice the target half-width."""
        return 2 * self.half_width

    def measured(self, inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange]) -> tuple[int, ...]:
        """The batch sizes that are measured of a model with these inputs: those named, or min, opt and max of its batch dimension."""
        allowed = _batch_range(inputs, dims)
        return self.batches or ((allowed.min, allowed.opt, allowed.max) if allowed else (1,))

    def faults(self, inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange]) -> Iterator[str]:
        """Yield batch sizes that a model with these inputs does not take."""
        dim, allowed = batch_dim(inputs), _batch_range(inputs, dims)
        for batch in self.batches:
            if allowed and not allowed.min <= batch <= allowed.max:
                yield f"batches: {batch}; {dim!r} is declared from {allowed.min} to {allowed.max}"
            elif not allowed and batch != 1:
                yield f"batches: {batch}; the inputs share no batch dimension, so only 1 can be measured"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_blocks > self.max_blocks:
            raise ValueError(f"min_blocks: {self.min_blocks}; expected at most max_blocks, {self.max_blocks}")
        if any(callers < 1 for callers in self.concurrency):
            raise ValueError(f"concurrency: {', '.join(map(str, self.concurrency))}; every number must be at least 1")
        if self.cuda_graph and self.device is not Device.CUDA:
            raise ValueError(f"cuda_graph: needs device cuda; the device is {self.device}")
        return self


def _batch_range(inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange]) -> DimRange | None:
    dim = batch_dim(inputs)
    return dims.get(dim) if dim else None


def bench_points(artifact: Artifact, batches: Sequence[int]) -> list[dict[str, int]]:
    """Return the sizes to measure at: each batch size, the other dimensions at opt.

    Raises:
        FeedError: a batch size outside the declared range, or batch sizes for a model without a batch dimension.
    """
    opt = {name: r.opt for name, r in artifact.dims.items()}
    dim = batch_dim(artifact.inputs)
    if dim is None or dim not in artifact.dims:
        if set(batches) - {1}:
            raise FeedError(
                f"bench: batch sizes {', '.join(map(str, batches))}; the model's inputs share no batch dimension. Leave out the batch sizes."
            )
        return [opt]
    r = artifact.dims[dim]
    outside = [batch for batch in batches if not r.min <= batch <= r.max]
    if outside:
        raise FeedError(f"bench: batch {', '.join(map(str, outside))}; {dim!r} is declared from {r.min} to {r.max}")
    return [opt | {dim: batch} for batch in dict.fromkeys(batches) or sorted({r.min, r.opt, r.max})]
