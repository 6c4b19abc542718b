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
from optkit.untrusted.paths import is_file

if TYPE_CHECKING:
    import numpy as np


class Device(StrEnum):
    """The device that an artifact runs on."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclasses.dataclass(frozen=True)
class CallPlan:
    """The duration of a block: calls continue until both the shortest time and the fewest calls are reached."""

    drop_s: float
    drop_calls: int
    block_s: float
    block_calls: int


@dataclasses.dataclass(frozen=True)
class OwnTimes:
    """The times that a runtime in another process measured: of each counted call, and the number of dropped calls before them."""

    times_ms: tuple[float, ...]
    dropped_calls: int


@dataclasses.dataclass(frozen=True)
class Placement:
    """The nodes of a graph on the CPU although the device is a GPU: operator -> number of nodes; `nodes` is the number of all."""

    on_cpu: dict[str, int]
    nodes: int


class Runner(abc.ABC):
    """A context manager: the constructor loads nothing, `with` loads the artifact, and its end frees it.

    A subclass implements `_load`, `_free`, `_infer` and `_bind`; names, shapes and state are checked here.
    """

    def __init__(
        self,
        artifact: Artifact,
        device: Device = Device.CPU,
        threads: int | None = None,
        streams: int = 1,
        cuda_graph: bool = False,
    ) -> None:
        """Store the artifact and the settings.

        Args:
            artifact: the artifact to run.
            device: the device; a runner never falls back to another one.
            threads: threads of one inference on a CPU; None uses the runtime's default.
            streams: the number of CUDA streams for concurrent calls.
            cuda_graph: whether a bound call replays a captured CUDA graph.
        """
        self.artifact = artifact
        self.device = device
        self.threads = threads
        self.streams = streams
        self.cuda_graph = cuda_graph
        self._loaded = False

    def __enter__(self) -> Self:
        if not is_file(self.artifact.path):
            raise RunnerError(f"{self.artifact.path}: no such file")
        self._load()
        self._loaded = True
        return self

    def __exit__(self, *_: object) -> None:
        self._loaded = False
        self._free()

    @property
    def title(self) -> str:
        """The name of the artifact in messages."""
        return self.artifact.path.name

    @property
    @abc.abstractmethod
    def provider(self) -> str:
        """The provider that runs the artifact, such as `CPUExecutionProvider`; known after loading."""

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
        """Place the inputs once; return a function that runs one inference and waits for its end, with the least overhead.

        Call the function inside `calling`. The outputs stay in the runtime's buffers. It is valid until the runner is closed.

        Raises:
            FeedError: a name, dtype or shape does not fit.
            RunnerError: the artifact is not loaded.
        """
        self._check(feed)
        return self._bind(feed)

    def calling(self) -> contextlib.AbstractContextManager[object]:
        """Return a context that a thread enters once before calling the bound function; entering it for each call would be slow."""
        return contextlib.nullcontext()

    def parts(self, feed: Feed) -> tuple[CallParts, ...]:  # noqa: ARG002 - used by subclasses
        """Return the parts of a call's time as one value; empty where the runtime cannot measure them, as on a CPU."""
        return ()

    def placement(self) -> Placement | None:
        """Return the nodes that run on the CPU although the device is a GPU; None on a CPU, and where they are not known."""
        return None

    def why_not_concurrent(self) -> str | None:
        """Return the reason why several threads cannot call bound functions at once; None where they can."""
        return None

    def own_times(self, feed: Feed, plan: CallPlan) -> OwnTimes | None:  # noqa: ARG002 - for runtimes in another process
        """Time calls on bound inputs inside the runtime's process; None where the caller can time the bound function itself.

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
