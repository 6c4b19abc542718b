"""The messages between the worker and its parent process, and the errors that become messages.

The worker reads one JSON file, its job. It writes one JSON object a line to the standard output that it was given: `progress` and `log` while it
works, and at the end `result`, `fault` or `cancelled`. A worker that runs an engine then reads one request a line from its standard input, and
answers each with `result` or `fault`. The end of its standard input means that nobody waits any more: a build is cancelled, and a session ends.
"""

from __future__ import annotations

import json
import os
import threading
from typing import Any, Dict, Sequence

Json = Dict[str, Any]


class FaultError(Exception):
    """An error that the user can fix; `nodes` are the nodes that TensorRT does not support."""

    def __init__(self, text: str, nodes: Sequence[Json] = ()) -> None:
        super().__init__(text)
        self.nodes = list(nodes)


class CancelledError(Exception):
    """The build was cancelled from outside."""


class Channel:
    """The messages to the parent process; C++ output to the standard output goes to the standard error instead."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send one message."""
        with self._lock:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()
