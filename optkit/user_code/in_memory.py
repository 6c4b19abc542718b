"""Objects of the caller's in the place of targets: a module, a function, data.

A target is text, so that recipes, passports and messages can hold it. An object in memory gets a target too, such as `memory:Net`. It
means that object while the block that named it runs, and nothing afterwards: no other process can load it.
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
    """Give a function that names an object: `name(obj, "Net")` returns its target, which holds until the block ends.

    Two objects that would have the same target get different ones, also where another thread named the first.
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
    """Return why an object in memory cannot be loaded; None where it can."""
    if target in _objects:
        return None
    return (
        f"{target}: was in the memory of the process that made this, so nothing can load it again. "
        "Name a file in its place: file.py:function."
    )


def object_in_memory(target: str) -> object:
    """Return the object that a target names.

    Raises:
        ModelError: it is not in the memory of this process any more.
    """
    if fault := in_memory_fault(target):
        raise ModelError(fault)
    return _objects[target]


def function_sha256(function: object) -> str:
    """Return a hash of what a function or class computes, as far as its own code says: its source, or its bytecode where there is none.

    What it calls and what it closes over are not followed.
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
    """Return the instructions and constants of a function, without its place in a file."""
    constants = [_bytecode(c) if isinstance(c, CodeType) else repr(c).encode() for c in code.co_consts]
    return b"\0".join([code.co_code, *constants, *(name.encode() for name in code.co_names)])
