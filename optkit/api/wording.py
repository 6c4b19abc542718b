"""Rewriting of messages for Python: arguments and functions instead of options and commands."""

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from optkit.errors import OptkitError

P = ParamSpec("P")
T = TypeVar("T")

_OPTION = re.compile(r"--(?P<name>[a-z][a-z0-9-]*)(?:[ =](?P<value>\"[^\"]*\"|'[^']*'|(?!-)[^\s,;()]*[^\s,;().:]))?")
# Adjacent options become arguments of one call, separated by a comma.
_TOGETHER = re.compile(r"(--[a-z-]+ (?:\"[^\"]*\"|[^\s-]\S*[=:]\S*)) (?=--)")
# Words that may follow an option in a sentence and are not its value.
_WORDS = frozenset(
    [
        "again",
        "all",
        "and",
        "applies",
        "are",
        "as",
        "at",
        "because",
        "below",
        "both",
        "by",
        "does",
        "for",
        "from",
        "has",
        "if",
        "in",
        "instead",
        "is",
        "it",
        "need",
        "needs",
        "of",
        "on",
        "once",
        "only",
        "or",
        "refuses",
        "so",
        "than",
        "that",
        "the",
        "there",
        "to",
        "which",
        "with",
        "without",
    ]
)
_FLAGS = frozenset(
    [
        "across-machines",
        "allow-batch-dependence",
        "cuda-graph",
        "doctor",
        "fix",
        "force",
        "freezing",
        "fresh",
        "github",
        "keep-first-last",
        "locked",
        "max-autotune",
        "refit",
        "response-cache",
        "same-answers",
        "self-test",
        "start",
        "strict",
        "strip",
        "tf32",
        "version-compatible",
    ]
)
_ARGUMENTS = {
    "batch": "batches",
    "dim": "dims",
    "exclude-op": "exclude_ops",
    "extra-file": "extra_files",
    "input": "inputs",
    "keep-op": "keep_ops",
    "op": "op_types",
    "output-name": "outputs",
    "profile": "profiles",
    "set": "args",
    "step": "step",
    "url": "urls",
}
_COMMANDS = {
    "optkit bench --json": "the record of optkit.bench",
    "optkit convert fp16": "optkit.convert_fp16",
    "optkit export onnx": "optkit.export_onnx",
    "optkit export torchscript": "optkit.export_torchscript",
    "optkit package triton-python": "optkit.package_triton_python",
    "optkit package triton": "optkit.package_triton",
    "optkit package torchserve": "optkit.package_torchserve",
    "optkit build-engine": "optkit.build_engine",
    "optkit compile": "optkit.compile_aoti",
    "optkit quantize-torch": "optkit.quantize_torch",
    "optkit loadtest": "optkit.load_test",
    "or another name with -o": "or give another output",
}
_FUNCTION = re.compile(
    r"\boptkit (ab|bench|check|compare|diff|doctor|inspect|lint|migrate|quantize|run|smoke|verify)\b"
)


def for_python(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function so that its error messages name arguments instead of options."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except OptkitError as e:
            added = f" Add {arguments(e.add)}." if e.add and e.add not in str(e) else ""
            e.args = (python_words(str(e)) + added,)
            e.add = ""
            raise

    return wrapped


def python_words(message: str) -> str:
    """Return a message with options replaced by arguments, and commands replaced by functions."""
    for command, function in _COMMANDS.items():
        message = message.replace(command, function)
    message = _FUNCTION.sub(r"optkit.\1", message)
    message = _TOGETHER.sub(r"\1, ", message)
    return _OPTION.sub(_argument, message)


def arguments(options: str) -> str:
    """Return options as arguments, separated by commas."""
    return ", ".join(_argument(match) for match in _OPTION.finditer(options))


def _argument(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"]
    argument = _ARGUMENTS.get(name, name.replace("-", "_"))
    if name in _FLAGS:
        rest = f" {value}" if value else ""
        return f"{argument}=True{rest}"
    if value is None or value in _WORDS:
        return argument + (f" {value}" if value else "")
    return f"{argument}={_value(argument, value.strip(chr(34)).strip(chr(39)))}"


def _value(argument: str, value: str) -> str:
    """Return the value of an option as Python source."""
    if argument in ("inputs", "returns"):
        name, _, spec = value.partition(":")
        return f'{{"{name}": "{spec}"}}'
    if argument in ("dims", "args", "require"):
        name, _, given = value.partition("=")
        numbers = ", ".join(given.split(":"))
        return f'{{"{name}": ({numbers})}}' if argument == "dims" else f'{{"{name}": {given}}}'
    if value.isupper() or re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value):
        return value
    return f'"{value}"'
