"""The parent's side of the TensorRT process: it starts, reads and cancels the worker, and turns its death into an error."""

import contextlib
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from optkit.errors import OptkitError, RunnerError
from optkit.progress import Phases
from optkit.system.child import ChildProcess, death
from optkit.system.supervisor import patience_s
from optkit.system.temporary import temporary_folder

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
        with contextlib.ExitStack() as opened:
            self.folder = opened.enter_context(temporary_folder())
            job_file = self.folder / "job.json"
            try:
                job_file.write_text(json.dumps(self._job), encoding="utf-8")
            except OSError as e:
                raise RunnerError(_NO_ROOM.format(e.strerror)) from e
            try:
                self._child = ChildProcess([self._python, WORKER, job_file], pipes=True)
            except RunnerError as e:
                raise RunnerError(f"{e}; expected a Python with TensorRT") from e
            self._opened = opened.pop_all()
        self._process = self._child.process
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        grace_s = patience_s(_GRACE_S) if kind is KeyboardInterrupt else _GRACE_S
        try:
            self._process.communicate(timeout=grace_s)  # closes its input, which cancels the worker
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
        self._child.stop()
        self._opened.close()

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
        printed = self._child.last_lines()
        last = f" Its last line of output: {printed}" if printed else ""
        if code >= 0:
            return f"the TensorRT process {death(code)} and no answer.{last}"
        advice = {
            "SIGKILL": "Usually the system killed it because memory ran out: free memory, or lower --workspace-mib.",
            "SIGSEGV": "TensorRT crashed: try another --optimization-level or another release, and report it to NVIDIA.",
        }.get(signal.Signals(-code).name, "Run it again with -vv to see what TensorRT logged.")
        return f"the TensorRT process {death(code)}; nothing was written. {advice}{last}"
