"""The reason of an exporter's failure for the user: the cause in a sentence, the line of the model, and the usual fix."""

import contextlib
import ctypes
import io
import linecache
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence

from optkit import user_code
from optkit.artifact.tensors import TensorSpec
from optkit.errors import first_line

# torch.export's message when a dynamic dimension became a constant. Until torch 2.13 it names the input, from 2.14 on it gives its position.
_SPECIALIZED = re.compile(
    r"static shape of (?P<size>\d+) for dimension inputs\[(?:'(?P<name>\w+)'|(?P<position>\d+))\]\.shape\[(?P<axis>\d+)\]"
)

# The text of an error, and the usual fix; `{0}` is the first group.
_FIXES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"GuardOnDataDependentSymNode|data-dependent|control flow"),
        "The model branches on the values of a tensor: use torch.where or torch.cond there; or use --exporter "
        "script, which keeps branches.",
    ),
    (
        # Both exporters have the operator itself; torch.argsort calls torch.sort.
        re.compile(r"op='aten\.sort', overload='stable'|operator Sort, Out parameter is not supported"),
        "ONNX has torch.sort and torch.argsort, but not their argument stable=True: leave it out, or use torch.topk.",
    ),
    (
        re.compile(r"No ONNX function found for <OpOverload\(op='([^']+', overload='(?!default)[^']+)'"),
        "ONNX has no form of this overload of the operator ('{0}'): call it with other arguments, or use another --opset.",
    ),
    (
        re.compile(r"operator (threshold), non-zero threshold"),
        "The TorchScript exporter has F.{0} only with threshold=0 and value=0: use torch.where, or --exporter dynamo.",
    ),
    (
        re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'|operator '([^']+)' to ONNX opset"),
        "ONNX has no operator for {0} at this opset: replace it by other operators, or use another --opset.",
    ),
    (
        re.compile(r"must have the same dtype|expected scalar type|to have the same dtype"),
        "Two dtypes are mixed: return model.float() from the factory, or declare the inputs in the dtype of the weights.",
    ),
    (
        re.compile(r"Only tuples, lists and Variables|not supported as JIT|unsupported type"),
        "The tracer supports tensors, and tuples, lists and dicts of tensors: return one of these from forward.",
    ),
)


def refusal(
    error: BaseException, inputs: Sequence[TensorSpec], log: str = "", number_lines: Mapping[str, str] | None = None
) -> str:
    """Return the cause of an exporter's error, the line of the user's model, and the usual fix.

    Args:
        error: the exporter's error; torch wraps the cause in its own errors.
        inputs: of the model, in the order of the call.
        log: the exporter's output; the TorchScript exporter prints the line.
        number_lines: the lines of the model where a dimension became a number, by its size.
    """
    chain = [error]
    while (inner := chain[-1].__cause__) is not None:
        chain.append(inner)
    cause = chain[-1]
    found = _SPECIALIZED.search(str(cause))
    spec = _named(found, inputs) if found else None
    if found and spec:
        return lost_dimension("input", spec, int(found["axis"]), found["size"], (number_lines or {}).get(found["size"]))
    text = user_code.describe(cause)
    line = user_code.last_line_in("\n".join([log, *(str(e) for e in chain), *map(_translated_node, chain)]))
    if line and not text.startswith(line.partition(":")[0]):
        text = f"{line}: {text}"
    return f"{text.rstrip('.')}.{_fix(text)}"


def _named(found: re.Match[str], inputs: Sequence[TensorSpec]) -> TensorSpec | None:
    """Return the input that torch.export's message names or gives the position of."""
    if found["name"]:
        return next((spec for spec in inputs if spec.name == found["name"]), None)
    return inputs[int(found["position"])] if int(found["position"]) < len(inputs) else None


def _fix(message: str) -> str:
    for pattern, text in _FIXES:
        if match := pattern.search(message):
            name = next((group for group in match.groups() if group), "")
            return f" {text.format(name)}"
    return ""


def lost_dimension(kind: str, spec: TensorSpec, axis: int, size: str, line: str | None = None) -> str:
    """Return the sentence for a dynamic dimension that became a constant, with the line of the model if it is known."""
    where = f"{line}: " if line else ""
    lost = (
        f"{where}{kind} {spec.name!r} lost its dynamic dimension {spec.shape[axis]!r}: axis {axis} is fixed to {size}."
    )
    if line and _is_loop(line):
        return (
            f"{lost} The Python loop there was unrolled for that size: compute without a loop, or use --exporter script, which keeps "
            f"loops."
        )
    return f"{lost} The model uses that size as a constant (int(), a loop, a literal); compute with x.shape[{axis}] instead."


def _is_loop(line: str) -> bool:
    file, _, number = line.rpartition(":")
    text = linecache.getline(file, int(number))
    return "range(" in text and "for " in text


def script_reason(error: BaseException) -> str:
    """Return the cause and the user's line for an error of the TorchScript compiler."""
    line = re.search(r'File "([^"]+)", line (\d+)', str(error))
    return f"{first_line(error).rstrip(':')}{f' ({line[1]}:{line[2]})' if line else ''}"


def _translated_node(error: BaseException) -> str:
    """Return the user's line of the node that dynamo was translating; dynamo's errors name only the node."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        trace = getattr(frame.f_locals.get("node"), "meta", {}).get("stack_trace")
        if trace:
            return str(trace)
    return ""


def _flush_c() -> None:
    """Flush the output buffers of C++; otherwise the text would appear at the end of the process."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no such handle on Windows
        ctypes.CDLL(None).fflush(None)


@contextlib.contextmanager
def captured_output() -> Iterator[io.StringIO]:
    """Capture the log and the output of exporters, including C++; the text is complete after the block."""
    kept = io.StringIO()
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.ERROR)
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        saved = [(fd, os.dup(fd)) for fd in (1, 2)]
        for fd, _ in saved:
            os.dup2(file.fileno(), fd)
        try:
            with contextlib.redirect_stderr(kept), contextlib.redirect_stdout(kept):
                yield kept
        finally:
            _flush_c()
            for fd, copy in saved:
                os.dup2(copy, fd)
                os.close(copy)
            log.setLevel(level)
            file.seek(0)
            kept.write(file.read().decode(errors="replace"))
