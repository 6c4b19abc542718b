"""TensorRT and TensorRT-RTX engines on the GPU, in a worker process; only the worker imports TensorRT."""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.artifact import Artifact
from optkit.artifact.engine import EngineFacts, LayerShare, load_refusal
from optkit.artifact.findings import CallParts
from optkit.artifact.tensors import Feed
from optkit.errors import FeedError, RunnerError
from optkit.runners.base import CallPlan, Device, OwnTimes, Runner
from optkit.tensorrt.installed import ENVIRONMENT, find_installed, is_named, why_no_gpu
from optkit.tensorrt.process import TensorRtProcess, WorkerFault

if TYPE_CHECKING:
    import numpy as np

_COMPUTES = (
    "fp8",
    "int8",
    "fp16",
    "bf16",
    "fp32",
)  # a layer computes in the lowest type that it reads or writes
# Layers that only move or reshape data.
_MOVES = frozenset({"Reformat", "Constant", "NoOp", "Shuffle", "ShapeHostToDevice", "signal", "wait", "shape_call"})


class TensorRtRunner(Runner):
    """One engine in its own process; with several `streams`, one execution context for each. It ignores `threads`."""

    @property
    def provider(self) -> str:
        """The release and the GPU."""
        return f"{self._engine.runtime} {self._about['version']} on {self._about['gpu']['name']}"

    @property
    def _engine(self) -> EngineFacts:
        if self.artifact.engine is None:
            raise RunnerError(f"{self.artifact.path}: its passport has no facts on the engine. Build it with optkit.")
        return self.artifact.engine

    def _load(self) -> None:
        if self.device is not Device.CUDA:
            raise RunnerError(f"device {str(self.device)!r}: an engine needs a GPU. Use --device cuda.")
        why_not = why_engine_not_runnable(self.artifact)
        if why_not:
            raise RunnerError(f"{self.artifact.path.name}: {why_not}")
        job = {
            "task": "run",
            "runtime": self._engine.runtime,
            "plan": str(self.artifact.path),
            "streams": self.streams,
            "version_compatible": self._engine.version_compatible,
        }
        self._worker = TensorRtProcess(job, _python(self._engine))
        self._worker.__enter__()
        try:
            self._about = self._worker.answer()
            self._check_contract()
        except BaseException as e:
            self._worker.__exit__(type(e), e, e.__traceback__)
            if isinstance(e, WorkerFault):
                raise RunnerError(f"{self.artifact.path.name}: {e}") from e
            raise

    def _check_contract(self) -> None:
        """Compare names, dtypes and profiles of the engine with those of its passport."""
        engine = self._engine
        for end, specs in (("inputs", engine.inputs), ("outputs", engine.outputs)):
            found = {t["name"]: t["dtype"] for t in self._about[end]}
            wanted = {spec.name: str(spec.dtype) for spec in specs}
            if found != wanted:
                raise RunnerError(
                    f"{self.artifact.path.name}: the engine has the {end} {found}; its passport says {wanted}"
                )
        built = [{name: [list(r.min), list(r.opt), list(r.max)] for name, r in p.items()} for p in engine.profiles]
        there = [
            {name: shapes for name, shapes in there.items() if name in wanted}
            for there, wanted in zip(
                self._about["profiles"], built, strict=False
            )  # a static engine has one default profile
        ]
        if there != built:
            raise RunnerError(
                f"{self.artifact.path.name}: the engine has the profiles {there}; its passport says {built}"
            )

    def _free(self) -> None:
        self._worker.__exit__(None, None, None)

    def _infer(self, feed: Feed) -> "dict[str, np.ndarray]":
        import numpy as np

        answer = self._request("infer", feed)
        folder = self._worker.folder
        found = [np.load(folder / f"output_{i}.npy", allow_pickle=False) for i in range(len(answer["outputs"]))]
        by_name = dict(zip(answer["outputs"], found, strict=True))
        # TensorRT 8.6 returns INT32 where the contract has INT64.
        return {spec.name: by_name[spec.name].astype(spec.dtype.numpy, copy=False) for spec in self.artifact.outputs}

    def _bind(self, feed: Feed) -> Callable[[], None]:
        def call() -> None:
            self._request("infer", feed)

        return call

    def why_not_concurrent(self) -> str | None:
        """Return a reason: the process answers one request at a time."""
        return "the process of an engine answers one call at a time. benchmarks/gpu measures several streams"

    def own_times(self, feed: Feed, plan: CallPlan) -> OwnTimes:
        """Time calls inside the worker, so that no time includes messages between processes."""
        self._check(feed)
        answer = self._request("time", feed, cuda_graph=self.cuda_graph, **dataclasses.asdict(plan))
        self.per_second: float | None = answer.get("per_second")
        return OwnTimes(tuple(answer["times_ms"]), answer["dropped_calls"])

    def parts(self, feed: Feed) -> tuple[CallParts, ...]:
        """Return the medians of enqueue, copy in, compute and copy out, from events on the stream."""
        self._check(feed)
        return (CallParts.model_validate(self._request("parts", feed, cuda_graph=self.cuda_graph)),)

    def layer_shares(self, feed: Feed) -> tuple[LayerShare, ...]:
        """Return the share of layers, and of their time, that compute in each precision."""
        self._check(feed)
        return layer_shares(self._request("layers", feed)["layers"])

    def _request(self, what: str, feed: Feed, **more: Any) -> dict[str, Any]:
        import numpy as np

        for i, array in enumerate(feed.values()):
            np.save(self._worker.folder / f"input_{i}.npy", array)
        try:
            return self._worker.request({"do": what, "inputs": list(feed), "folder": str(self._worker.folder), **more})
        except WorkerFault as e:
            kind = FeedError if "no profile of the engine fits" in str(e) else RunnerError
            raise kind(f"{self.artifact.path.name}: {e}") from e


def why_engine_not_runnable(artifact: Artifact) -> str | None:
    """Return the reason why an engine cannot run here, from its passport, without loading it; None where it can."""
    engine = artifact.engine
    if engine is None:
        return "its passport has no facts on the engine. Build it with optkit."
    if engine.python and not is_named(Path(engine.python)):
        return (
            f"its passport says that it needs the TensorRT of {engine.python}; a passport may name any program, so it was not started. "
            f"If you know this interpreter, set {ENVIRONMENT}={shlex.quote(engine.python)}"
        )
    no_gpu = why_no_gpu(_python(engine))  # first, because it does not cost the import of TensorRT
    installed = None if no_gpu else find_installed(_python(engine))
    if installed is None or installed.target is None:
        return f"an engine needs a GPU: {no_gpu}"
    version = installed.versions[engine.runtime]
    if version is None:
        return f"{engine.runtime} is not installed. Run: pip install 'optkit[{engine.runtime}]'"
    if not installed.pycuda:
        return "pycuda, which runs engines, is not installed. Run: pip install pycuda"
    return load_refusal(engine, engine.runtime, version, installed.target)


def layer_shares(layers: list[dict[str, Any]]) -> tuple[LayerShare, ...]:
    """Count the layers that compute something, by the lowest type that they read or write."""
    counted = [
        (next(kind for kind in _COMPUTES if kind in layer["types"]), layer["ms"])
        for layer in layers
        if layer["type"] not in _MOVES and set(layer["types"]) & set(_COMPUTES)
    ]
    total_ms = sum(ms for _, ms in counted)
    return tuple(
        LayerShare(
            precision=kind,
            layers=sum(k == kind for k, _ in counted) / len(counted),
            time=sum(ms for k, ms in counted if k == kind) / total_ms if total_ms else 0.0,
        )
        for kind in _COMPUTES
        if any(k == kind for k, _ in counted)
    )


def _python(engine: EngineFacts) -> Path | None:
    return Path(engine.python) if engine.python else None
