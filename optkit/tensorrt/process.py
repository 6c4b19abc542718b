"""The parent's side of the TensorRT process: it starts, reads and cancels the worker, and turns its death into an error."""

import contextlib
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

WORKER = Path(__file__).with_name("worker")
_GRACE_S = 10.0  # the time before a cancelled build is killed
_NO_ROOM = (
    "the folder for temporary files cannot be written ({}); the TensorRT process needs it. Free space, or set TMPDIR to "
    "another folder."
)


class WorkerFault(OptkitError):
    """A job that the worker could not do; `nodes` are the nodes that TensorRT does not support, if that was the reason."""

    def __init__(self, text: str, nodes: list[dict[str, Any]]) -> None:
        super().__init__(text)
        self.nodes = nodes


class TensorRtProcess:
    """A worker with one job; a context manager that ends the worker."""

    def __init__(self, job: Mapping[str, Any], python: Path | None = None) -> None:
        """Store the job.

        Args:
            job: in the form that `worker/jobs.py` reads.
            python: the interpreter that has TensorRT; None uses this one.
        """
        self._job = job
        self._python = python or Path(sys.executable)

    def __enter__(self) -> Self:
        """Start the process.

        Raises:
            RunnerError: the process cannot be started.
        """
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="optkit-tensorrt-")
            self.folder = Path(self._folder.name)
            job_file = self.folder / "job.json"
            job_file.write_text(json.dumps(self._job), encoding="utf-8")
            self._stderr: IO[bytes] = (self.folder / "stderr").open("w+b")
        except OSError as e:
            raise RunnerError(_NO_ROOM.format(e.strerror)) from e
        try:
            self._process = subprocess.Popen(
                [self._python, WORKER, job_file],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # only the parent receives Ctrl-C; it then cancels the worker
            )
        except OSError as e:
            self._stderr.close()
            self._folder.cleanup()
            raise RunnerError(
                f"{self._python}: cannot be started ({e.strerror}); expected a Python with TensorRT"
            ) from e
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=_GRACE_S)  # closes its input, which cancels the worker
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.communicate()
        self._stderr.close()
        self._folder.cleanup()

    def request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request to a worker that runs an engine, and return its answer.

        Raises:
            WorkerFault: the request failed.
            RunnerError: the worker died.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the worker died; the missing answer reports it
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for the worker's answer, and show its progress meanwhile.

        Raises:
            WorkerFault: the job failed; the message has the reason.
            RunnerError: the worker died; the message says how, and what to do.
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
        raise RunnerError(self._describe_death())

    def _messages(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def _describe_death(self) -> str:
        """Return a description of how the worker ended without an answer, and what to do."""
        code = self._process.wait()
        self._stderr.seek(0)
        printed = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f" Its last line of output: {printed[-1]}" if printed else ""
        if code >= 0:
            return f"the TensorRT process ended with exit code {code} and no answer.{last}"
        name = signal.Signals(-code).name
        advice = {
            "SIGKILL": "Usually the system killed it because memory ran out: free memory, or lower --workspace-mib.",
            "SIGSEGV": "TensorRT crashed: try another --optimization-level or another release, and report it to NVIDIA.",
        }.get(name, "Run it again with -vv to see what TensorRT logged.")
        return f"the TensorRT process was killed by {name}; nothing was written. {advice}{last}"
