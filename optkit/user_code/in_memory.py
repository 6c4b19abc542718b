"""The caller's objects as targets: a module, a function, data.

A target is text, so that recipes, passports and messages can contain it. An object in memory gets a target too, such as `memory:Net`. It
is valid until the block that named it ends; no other process can load it.
"""

import contextlib
import hashlib
import inspect
import threading
from collections.abc import Callable, Iterator
from types import CodeType

from optkit.errors import ModelError

PREFIX = "memory:"

_objects: dict[str, object] = {}  # target -> the object, while a block that named it runs
_lock = threading.Lock()


@contextlib.contextmanager
def in_memory() -> Iterator[Callable[[object, str], str]]:
    """Yield a function that names an object: `name(obj, "Net")` returns its target, which is valid until the block ends.

    Two objects never have the same target, even if another thread named the first.
    """
    named: list[str] = []

    def name(obj: object, title: str) -> str:
        with _lock:
            same = next((target for target in named if _objects[target] is obj), None)
            if same:
                return same
            target, number = f"{PREFIX}{title}", 2
            while target in _objects:
                target, number = f"{PREFIX}{title}#{number}", number + 1
            _objects[target] = obj
        named.append(target)
        return target

    try:
        yield name
    finally:
        with _lock:
            for target in named:
                del _objects[target]


def is_in_memory(target: str) -> bool:
    """Whether a target names an object in memory."""
    return target.startswith(PREFIX)


def in_memory_fault(target: str) -> str | None:
    """Return the reason why an object in memory cannot be loaded; None where it can."""
    if target in _objects:
        return None
    return (
        f"{target}: was in the memory of another process, so it cannot be loaded again. "
        "Name a file instead: file.py:function."
    )


def object_in_memory(target: str) -> object:
    """Return the object that a target names.

    Raises:
        ModelError: the object is not in the memory of this process.
    """
    if fault := in_memory_fault(target):
        raise ModelError(fault)
    return _objects[target]


def function_sha256(function: object) -> str:
    """Return the hash of the code of a function or class: its source, or its bytecode where there is no source.

    Called functions and closures are not included.
    """
    wrapped = inspect.unwrap(function) if callable(function) else function
    with contextlib.suppress(OSError, TypeError):
        return hashlib.sha256(inspect.getsource(wrapped).encode()).hexdigest()  # type: ignore[arg-type]  # refused by TypeError
    code = getattr(wrapped, "__code__", None)
    if code is None:  # an object with __call__, or a partial
        code = getattr(type(wrapped).__call__, "__code__", None)
    content = _bytecode(code) if code else type(wrapped).__qualname__.encode()
    return hashlib.sha256(content).hexdigest()


def _bytecode(code: CodeType) -> bytes:
    """Return the instructions and constants of a function, without its position in a file."""
    constants = [_bytecode(c) if isinstance(c, CodeType) else repr(c).encode() for c in code.co_consts]
    return b"\0".join([code.co_code, *constants, *(name.encode() for name in code.co_names)])
