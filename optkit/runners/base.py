"""Runner: loads one artifact on one device and runs it. Parity, accuracy, benchmark and calibration all go through it."""

import abc
import contextlib
import dataclasses
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from optkit.artifact import Artifact
from optkit.artifact.findings import CallParts
from optkit.artifact.tensors import Feed, check_feed
from optkit.errors import FeedError, RunnerError, first_line

if TYPE_CHECKING:
    import numpy as np


class Device(StrEnum):
    """Where an artifact runs."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclasses.dataclass(frozen=True)
class CallPlan:
    """How long calls go on: until both their shortest time and their fewest number are reached; the first ones are dropped."""

    drop_s: float
    drop_calls: int
    block_s: float
    block_calls: int


@dataclasses.dataclass(frozen=True)
class OwnTimes:
    """What a runtime in another process measured of itself: the time of each counted call, and how many were dropped before."""

    times_ms: tuple[float, ...]
    dropped_calls: int


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the nodes of a graph run: operator -> the number of its nodes on the CPU though a GPU was asked for, of `nodes` in all."""

    on_cpu: dict[str, int]
    nodes: int


class Runner(abc.ABC):
    """A context manager: constructing costs nothing, `with` loads the artifact, and its end frees it.

    A subclass writes `_load`, `_free`, `_infer` and `_bind`; names, shapes and state are checked here.
    """

    def __init__(
        self,
        artifact: Artifact,
        device: Device = Device.CPU,
        threads: int | None = None,
        streams: int = 1,
        cuda_graph: bool = False,
    ) -> None:
        """Remember what to load.

        Args:
            artifact: what to run.
            device: where; never another one in its place.
            threads: of one inference on a CPU; None takes the runtime's default.
            streams: CUDA streams that calls may lie on side by side.
            cuda_graph: whether what `bind` gives replays a captured CUDA graph.
        """
        self.artifact = artifact
        self.device = device
        self.threads = threads
        self.streams = streams
        self.cuda_graph = cuda_graph
        self._loaded = False

    def __enter__(self) -> Self:
        if not self.artifact.path.is_file():
            raise RunnerError(f"{self.artifact.path}: no such file")
        self._load()
        self._loaded = True
        return self

    def __exit__(self, *_: object) -> None:
        self._loaded = False
        self._free()

    @property
    def title(self) -> str:
        """What messages call the artifact."""
        return self.artifact.path.name

    @property
    @abc.abstractmethod
    def provider(self) -> str:
        """What really runs the artifact, such as `CPUExecutionProvider`; known once it is loaded."""

    def infer(self, feed: Feed) -> "dict[str, np.ndarray]":
        """Run one inference, host to host.

        Args:
            feed: input name -> array; shapes and dtypes must fit the artifact's inputs.

        Returns:
            output name -> C-contiguous array owned by the caller (never a reused buffer).

        Raises:
            FeedError: a name, dtype or shape does not fit.
            RunnerError: the artifact is not loaded, or failed on this feed.
        """
        import numpy as np

        self._check(feed)
        try:
            outputs = self._infer(feed)
        except (FeedError, RunnerError):
            raise
        except Exception as e:  # every runtime raises types of its own
            raise RunnerError(f"{self.title}: failed on {shapes_text(feed)}: {first_line(e)}") from e
        return {name: np.asarray(array, order="C") for name, array in outputs.items()}

    def bind(self, feed: Feed) -> Callable[[], object]:
        """Place the inputs once; each call of what is returned is one inference, awaited to its end, in the runtime's cheapest form.

        Call it inside `calling`. The outputs stay where the runtime leaves them. Valid until the runner is closed.

        Raises:
            FeedError: a name, dtype or shape does not fit.
            RunnerError: the artifact is not loaded.
        """
        self._check(feed)
        return self._bind(feed)

    def calling(self) -> contextlib.AbstractContextManager[object]:
        """Return what a thread must be inside while it calls what `bind` gave; it stands outside the calls, which it would slow down."""
        return contextlib.nullcontext()

    def parts(self, feed: Feed) -> tuple[CallParts, ...]:  # noqa: ARG002 - for those that can tell
        """Return where the time of a call goes, as one value; nothing where the runtime cannot tell, as on a CPU."""
        return ()

    def placement(self) -> Placement | None:
        """Return which nodes run on the CPU though a GPU was asked for; None where the runtime does not tell, or none was."""
        return None

    def several_callers_obstacle(self) -> str | None:
        """Return why several threads cannot call what `bind` gave at once; None where they can."""
        return None

    def own_times(self, feed: Feed, plan: CallPlan) -> OwnTimes | None:  # noqa: ARG002 - for runtimes in another process
        """Time calls on bound inputs where the runtime lives; None where the caller's own loop around `bind` is exact.

        Raises:
            FeedError: a name, dtype or shape does not fit.
            RunnerError: the artifact is not loaded, or failed.
        """
        return None

    def _check(self, feed: Feed) -> None:
        if not self._loaded:
            raise RunnerError(f"{self.title}: the runner is not open; use it inside `with`")
        check_feed(feed, self.artifact.inputs)

    @abc.abstractmethod
    def _load(self) -> None: ...

    @abc.abstractmethod
    def _free(self) -> None: ...

    @abc.abstractmethod
    def _infer(self, feed: Feed) -> "dict[str, np.ndarray]": ...

    @abc.abstractmethod
    def _bind(self, feed: Feed) -> Callable[[], object]: ...


def shapes_text(feed: Feed) -> str:
    """Return the shapes of a feed as `x [2, 3], mask [2]`."""
    return ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
