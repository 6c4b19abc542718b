"""Progress of long loops. A loop reports it without knowing how it is shown.

The API never prints. A loop wraps its iterable in `track`; its caller may install a `Sink` with `reporting`.
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Protocol, Self, TypeVar

T = TypeVar("T")


class Sink(Protocol):
    """Shows the progress of loops."""

    def begin(self, description: str, total: int | None) -> None:
        """A loop of `total` iterations starts; None when their number is not known."""

    def advance(self) -> None:
        """One iteration of the innermost loop is done."""

    def end(self) -> None:
        """The innermost loop has ended, with or without an error."""


_sink: ContextVar[Sink | None] = ContextVar("progress_sink", default=None)


@contextlib.contextmanager
def reporting(sink: Sink) -> Iterator[None]:
    """Send the progress of every loop inside the block to `sink`."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


@contextlib.contextmanager
def doing(description: str) -> Iterator[None]:
    """Report one piece of work of unknown length."""
    yield from track([None], description)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items; report each as done when the loop takes the next one."""
    sink = _sink.get()
    if sink is None:
        yield from items
        return
    sink.begin(description, total)
    try:
        for item in items:
            yield item
            sink.advance()
    finally:
        sink.end()


class Phases:
    """Phases reported by another process; a context manager that ends the phases still open."""

    def __enter__(self) -> Self:
        self._sink = _sink.get()
        self._open: list[str] = []
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self.end(self._open[-1])

    def begin(self, name: str, total: int) -> None:
        """A phase starts inside the last one."""
        if self._sink:
            self._sink.begin(name, total)
        self._open.append(name)

    def advance(self, name: str) -> None:
        """A phase has done one step; only the innermost phase is shown."""
        if self._sink and self._open[-1:] == [name]:
            self._sink.advance()

    def end(self, name: str) -> None:
        """A phase ends, together with the phases inside it."""
        while name in self._open:
            self._open.pop()
            if self._sink:
                self._sink.end()
