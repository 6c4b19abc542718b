"""Progress of long loops, independent of its display.

A loop wraps its iterable in `track`. A caller that displays progress installs a `Sink` with `reporting`.
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Protocol, Self, TypeVar

T = TypeVar("T")


class Sink(Protocol):
    """Receives the progress of loops; loops may be nested."""

    def begin(self, description: str, total: int | None) -> None:
        """A loop of `total` iterations starts; None if the number is unknown."""

    def advance(self) -> None:
        """One iteration of the innermost loop has finished."""

    def end(self) -> None:
        """The innermost loop has ended, with or without an error."""


_sink: ContextVar[Sink | None] = ContextVar("progress_sink", default=None)


@contextlib.contextmanager
def reporting(sink: Sink) -> Iterator[None]:
    """Send the progress of all loops inside the block to `sink`."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


@contextlib.contextmanager
def doing(description: str) -> Iterator[None]:
    """Report the work inside the block as one loop of unknown length."""
    yield from track([None], description)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items; report an iteration as finished when the loop requests the next item."""
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
    """Progress phases that another process reports. On exit, the context manager ends all open phases."""

    def __enter__(self) -> Self:
        self._sink = _sink.get()
        self._open: list[str] = []
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self.end(self._open[-1])

    def begin(self, name: str, total: int) -> None:
        """A phase starts inside the innermost open phase."""
        if self._sink:
            self._sink.begin(name, total)
        self._open.append(name)

    def advance(self, name: str) -> None:
        """A phase has finished one step; only the innermost phase is reported."""
        if self._sink and self._open[-1:] == [name]:
            self._sink.advance()

    def end(self, name: str) -> None:
        """A phase ends, together with the phases inside it."""
        while name in self._open:
            self._open.pop()
            if self._sink:
                self._sink.end()
