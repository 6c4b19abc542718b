"""The jobs of the worker: build an engine, run one, or report the installed packages; then it ends."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback

from .build import build
from .layers import list_layers
from .protocol import CancelledError, Channel, FaultError, Json
from .runtimes import facts
from .session import Session
from .timing import time_calls, time_parts

GRACE_S = 5.0  # between the end of the input and the end of this process, when TensorRT does not return


def run(path: str) -> None:
    """Do one job, and end the process at once: TensorRT's objects may crash in the interpreter's normal shutdown."""
    try:
        _do(path)
        code = 0
    except BaseException:  # the parent reads the last line; a crash during shutdown would hide it
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def _do(path: str) -> None:
    channel = Channel()
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    try:
        if job["task"] == "build":
            cancelled = threading.Event()
            threading.Thread(target=watch_input, args=(cancelled,), daemon=True).start()
            channel.send(result=build(job, channel, cancelled))
        elif job["task"] == "run":
            session = Session(job, channel)
            channel.send(result=session.describe())
            _serve(session, channel)
            session.close()
        else:
            channel.send(result=facts(job))
    except FaultError as e:
        channel.send(fault=str(e), nodes=e.nodes)
    except CancelledError:
        channel.send(cancelled=True)


def watch_input(cancelled: threading.Event) -> None:
    """Set `cancelled` at the end of the input, and end the process when TensorRT does not return in time."""
    sys.stdin.buffer.read()
    cancelled.set()
    time.sleep(GRACE_S)
    os._exit(1)


def _serve(session: Session, channel: Channel) -> None:
    """Answer one request a line until the input ends; a failed request does not end the session."""
    for line in sys.stdin:
        try:
            channel.send(result=_answer(session, json.loads(line)))
        except FaultError as e:
            channel.send(fault=str(e), nodes=[])


def _answer(session: Session, request: Json) -> Json:
    if request["do"] == "infer":
        return session.infer(request)
    return {"time": time_calls, "parts": time_parts, "layers": list_layers}[request["do"]](session, request)
