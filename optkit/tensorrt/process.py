"""The process that works with TensorRT, as its parent sees it: started, listened to, cancelled; its death becomes an error."""

import contextlib
import dataclasses
import functools
import json
import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from optkit.errors import OptkitError, RunnerError
from optkit.progress import Phases

logger = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("tensorrt_worker.py")
# As `python WORKER JOB`, but from the compiled file where there is one, which saves 3 MiB; nothing is imported from the current folder.
_START = """
import importlib.util, sys
sys.path[:] = filter(None, sys.path)
spec = importlib.util.spec_from_file_location("tensorrt_worker", sys.argv[1])
sys.modules[spec.name] = worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
worker.run(*sys.argv[2:])
"""
_GRACE_S = 10.0  # that a cancelled build has before it is killed
_NO_ROOM = (
    "the folder for temporary files cannot be written ({}); the TensorRT process gets its job there. Free space, "
    "or name another folder in TMPDIR."
)


class WorkerFault(OptkitError):
    """What the worker could not do, with the nodes that TensorRT refused, if that was it."""

    def __init__(self, text: str, nodes: list[dict[str, Any]]) -> None:
        super().__init__(text)
        self.nodes = nodes


@dataclasses.dataclass(frozen=True)
class Here:
    """What would build or run an engine under one interpreter; `no_gpu` says why there is no GPU."""

    gpu: str | None
    target: str | None  # its compute capability, such as sm86
    no_gpu: str
    versions: dict[str, str | None]  # runtime -> its version; None where it is not installed
    pycuda: bool


@functools.cache
def tensorrt_here(python: Path | None = None) -> Here:
    """Ask an interpreter what it has; once a process, since importing TensorRT takes a part of a second.

    Raises:
        RunnerError: it cannot be started, or TensorRT crashed it.
    """
    found = _facts(python, versions=True)
    gpu = found["gpu"] or {}
    return Here(
        gpu=gpu.get("name"),
        target=gpu.get("sm"),
        no_gpu=found["no_gpu"],
        versions=found["versions"],
        pycuda=found["pycuda"],
    )


_no_gpu: dict[Path | None, str] = {}  # what the driver said, by interpreter


def no_gpu_here(python: Path | None = None) -> str:
    """Return why no GPU can be used here, empty where one can: asked of the driver alone, without the cost of TensorRT.

    Raises:
        RunnerError: the interpreter cannot be started.
    """
    if python not in _no_gpu:
        _no_gpu[python] = str(_facts(python, versions=False)["no_gpu"])
    return _no_gpu[python]


def keep_no_gpu(python: Path | None, why: str) -> None:
    """Remember what a worker said of the GPU while it did something else."""
    _no_gpu[python] = why


def forget() -> None:
    """Let the next question about this machine be asked anew."""
    tensorrt_here.cache_clear()
    _no_gpu.clear()


def _facts(python: Path | None, *, versions: bool) -> dict[str, Any]:
    with TensorRtProcess({"task": "facts", "versions": versions}, python) as worker:
        return worker.answer()


class TensorRtProcess:
    """A worker with one job; a context manager, whose end ends the worker."""

    def __init__(
        self, job: Mapping[str, Any] | None, python: Path | None = None, *, preload: str | None = None
    ) -> None:
        """Remember the job.

        Args:
            job: as `tensorrt_worker` reads it; None where `begin` brings it later.
            python: the interpreter that has TensorRT; None takes this one.
            preload: the runtime that the process imports while its job is still being written, for `begin`.
        """
        self._job = job
        self._python = python or Path(sys.executable)
        self._preload = preload
        self._started = False

    def __enter__(self) -> Self:
        if not self._started:
            self.start()
        return self

    def start(self) -> None:
        """Start the process ahead of the `with` that ends it.

        Raises:
            RunnerError: it cannot be started.
        """
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="optkit-tensorrt-")
            self.folder = Path(self._folder.name)
            self._write(self._job)
            self._stderr: IO[bytes] = (self.folder / "stderr").open("w+b")
        except OSError as e:
            raise RunnerError(_NO_ROOM.format(e.strerror)) from e
        try:
            self._process = subprocess.Popen(
                [self._python, "-c", _START, WORKER, self._job_file, *([self._preload] if self._preload else ())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C comes to the parent, which then cancels
            )
        except OSError as e:
            self._stderr.close()
            self._folder.cleanup()
            raise RunnerError(
                f"{self._python}: cannot be started ({e.strerror}); expected a Python with TensorRT"
            ) from e
        self._started = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=_GRACE_S)  # closes its input, which tells the worker that nobody waits
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.communicate()
        self._stderr.close()
        self._folder.cleanup()

    def discard(self) -> None:
        """End a process that has no job, without waiting for what it imports."""
        self._process.kill()
        self.__exit__(None, None, None)

    @property
    def _job_file(self) -> Path:
        return self.folder / "job.json"

    def _write(self, job: Mapping[str, Any] | None) -> None:
        self._job_file.write_text(json.dumps(job), encoding="utf-8")

    def begin(self, job: Mapping[str, Any]) -> None:
        """Give a process that was started with `preload` its job; its death is told by the answer that does not come."""
        try:
            self._write(job)
        except OSError as e:
            raise RunnerError(_NO_ROOM.format(e.strerror)) from e
        with contextlib.suppress(BrokenPipeError):
            self._in.write("\n")
            self._in.flush()

    @property
    def _in(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _out(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request to a worker that runs an engine, and return its answer.

        Raises:
            WorkerFault: it could not do it.
            RunnerError: it died.
        """
        with contextlib.suppress(BrokenPipeError):  # its death is told by the answer that does not come
            self._in.write(json.dumps(request) + "\n")
            self._in.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for the worker's answer, and show its progress meanwhile.

        Raises:
            WorkerFault: it could not do its job; says why.
            RunnerError: it died; says how, and what to do.
        """
        with Phases() as phases:
            for message in self._messages():
                match message:
                    case {"result": dict(result)}:
                        return result
                    case {"fault": str(text), "nodes": list(nodes)}:
                        raise WorkerFault(text, nodes)
                    case {"log": str(line)}:
                        logger.debug("TensorRT %s", line)
                    case {"progress": "start", "phase": str(name), "steps": int(steps)}:
                        phases.begin(name, steps)
                    case {"progress": "step", "phase": str(name)}:
                        phases.advance(name)
                    case {"progress": "finish", "phase": str(name)}:
                        phases.end(name)
        raise RunnerError(self._death())

    def _messages(self) -> Iterator[dict[str, Any]]:
        for line in self._out:
            yield json.loads(line)

    def _death(self) -> str:
        """Return how the worker ended without an answer."""
        code = self._process.wait()
        self._stderr.seek(0)
        printed = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f" Its last words: {printed[-1]}" if printed else ""
        if code >= 0:
            return f"the TensorRT process ended with exit code {code} and no answer.{last}"
        name = signal.Signals(-code).name
        told = {
            "SIGKILL": "Most often the system killed it because memory ran out: give it more, or a smaller --workspace-mib.",
            "SIGSEGV": "TensorRT itself crashed: try another --optimization-level or another release, and report it to NVIDIA.",
        }.get(name, "Run it again with -vv to see what TensorRT logged.")
        return f"the TensorRT process was ended by {name}; nothing was written. {told}{last}"


_early: dict[tuple[Path | None, str], TensorRtProcess] = {}  # by interpreter and runtime


@contextlib.contextmanager
def started_early(python: Path | None, runtime: str) -> Iterator[None]:
    """Let a process import a runtime while the block does something else; `preloaded` takes it, and it ends with the block at last."""
    process = TensorRtProcess(None, python, preload=runtime)
    try:
        process.start()
    except RunnerError:  # told where the process is wanted
        yield
        return
    _early[python, runtime] = process
    try:
        yield
    finally:
        if _early.pop((python, runtime), None):
            process.discard()


def preloaded(python: Path | None, runtime: str) -> TensorRtProcess:
    """Return a process for `begin` that imports a runtime meanwhile, to be used in `with`: the one that was started early, or a new one."""
    return _early.pop((python, runtime), None) or TensorRtProcess(None, python, preload=runtime)
