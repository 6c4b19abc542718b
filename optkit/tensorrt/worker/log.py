"""TensorRT's log, the only source of its reasons for a failure."""

from __future__ import annotations

from typing import Any, Sequence

from .protocol import Channel

# A part of an error's text, and the usual fix.
_ADVICE = (
    ("for Turing (SM75): FP32", "TensorRT-RTX computes matrix products in FP16 only on sm_75: use --precision fp16."),
    ("workspace limit", "Raise it with --workspace-mib."),
    ("out of memory", "Free memory on the GPU, or lower --workspace-mib and the max of the profile."),
    ("invalid weights", "A weight contains NaN or infinity: fix the model."),
)


def make_logger(trt: Any, channel: Channel, kept: list[str]) -> Any:
    """Return a logger that adds each warning and error to `kept` once, and sends every line to the parent; `-vv` shows them."""
    verbose = trt.ILogger.Severity.VERBOSE

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity == verbose:  # ten thousand lines for ResNet-50
                return
            name = severity.name
            line = "{}: {}".format(name.lower().replace("internal_error", "error"), message.strip())
            if name in ("WARNING", "ERROR", "INTERNAL_ERROR") and line not in kept:
                kept.append(line)
            channel.send(log=line)

    return Log()


def first_error(kept: Sequence[str]) -> str:
    """Return the first error of the log, because later ones are its consequences."""
    errors = [line.partition(": ")[2] for line in kept if line.startswith("error: ") and "cudaError 35" not in line]
    return errors[0] if errors else "TensorRT gives no reason"


def advice(kept: Sequence[str]) -> str:
    """Return the usual fix for a build that failed with these errors; empty where no fix is known."""
    text = "\n".join(kept)
    return next((f". {fix}" for sign, fix in _ADVICE if sign in text), "")
