"""Positions of fields in the text of a config.pbtxt, which protobuf's parser does not report, and edits of single fields.

The grammar is https://protobuf.dev/reference/protobuf/textformat-spec. This module reads only text that protobuf's parser accepts.
"""

import bisect
import dataclasses
import re
from collections.abc import Iterator, Sequence

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?P<word>[\w.+\-/]+)|(?P<mark>.)""",
    re.DOTALL,
)
_CLOSING = {"{": "}", "<": ">", "[": "]"}


@dataclasses.dataclass(frozen=True)
class Edit:
    """Replace text[start:end]."""

    start: int
    end: int
    replacement: str


@dataclasses.dataclass(frozen=True)
class Value:
    """One value of a field: a scalar, or a message with its fields. Its text is text[start:end]."""

    start: int
    end: int
    fields: "tuple[Statement, ...] | None" = None


@dataclasses.dataclass(frozen=True)
class Statement:
    """One statement of a field: `dims: [1, 2]` is one statement with two values, and `dims: 1 dims: 2` are two statements."""

    name: str
    start: int
    end: int
    values: tuple[Value, ...]
    listed: bool


@dataclasses.dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


class Tree:
    """The statements of a text, accessible by field name and index like the parsed message."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = [
            _Token(str(match.lastgroup), match.group(), match.start(), match.end())
            for match in _TOKEN.finditer(text)
            if match.lastgroup != "skip"
        ]
        self._at = 0
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._values: dict[tuple[int, str], list[Value]] = {}  # by the identity of the message, which this tree keeps
        self.root = Value(0, len(text), self._fields(None))

    def line(self, offset: int) -> int:
        """Return the line of an offset, counted from 1."""
        return bisect.bisect_left(self._line_ends, offset) + 1

    def find(self, *path: str | int) -> Value | None:
        """Return the value at a path such as `"input", 1, "dims", 0`. A missing index means 0."""
        value: Value | None = self.root
        steps = [*path, 0]
        i = 0
        while value is not None and i < len(steps) - 1:
            name, following = steps[i], steps[i + 1]
            index = following if isinstance(following, int) else 0
            found = self.values(value, str(name))
            value = found[index] if index < len(found) else None
            i += 2 if isinstance(following, int) and i + 1 < len(path) else 1
        return value

    def line_of(self, *path: str | int) -> int | None:
        """Return the line of the value at a path or, if it does not exist, of the nearest enclosing value."""
        for length in range(len(path), 0, -1):
            if isinstance(path[length - 1], str) or length == len(path):
                value = self.find(*path[:length])
                if value is not None:
                    return self.line(value.start)
        return None

    def entry(self, field: str, key: str, *path: str | int) -> int | None:
        """Return the line of a map entry in the message at a path or, if the entry does not exist, of the message."""
        message = self.find(*path) if path else self.root
        for entry in self.values(message, field) if message else ():
            keys = self.values(entry, "key")
            if keys and self.text[keys[0].start : keys[0].end].strip("\"'") == key:
                return self.line(entry.start)
        return self.line_of(*path)

    def values(self, message: Value, name: str) -> list[Value]:
        """Return the values of a field in the order of the parsed message."""
        key = (id(message), name)
        if key not in self._values:  # every problem asks for a line, and a field may have thousands of values
            self._values[key] = [value for statement in self.statements(message, name) for value in statement.values]
        return self._values[key]

    def statements(self, message: Value, name: str) -> list[Statement]:
        """Return the statements of a field in a message."""
        return [statement for statement in message.fields or () if statement.name == name]

    def replace_list(self, message: Value, name: str, items: Sequence[object]) -> list[Edit]:
        """Return the edits that replace the values of a repeated number field, at its first statement."""
        first, *others = self.statements(message, name)
        if first.listed:
            inner = self.text.index("[", first.start) + 1
            edits = [Edit(inner, first.end - 1, f" {', '.join(map(str, items))} ")]
        else:
            edits = [Edit(first.start, first.end, f"{name}: [ {', '.join(map(str, items))} ]")]
        return [*edits, *(self.removal(statement) for statement in others)]

    def removal(self, statement: Statement) -> Edit:
        """Return the edit that removes a statement, and its line if nothing else is on it."""
        before = self.text.rfind("\n", 0, statement.start) + 1
        after = self.text.find("\n", statement.end)
        after = len(self.text) if after < 0 else after + 1
        alone = not self.text[before : statement.start].strip() and not self.text[statement.end : after].strip(
            " \t\n,;"
        )
        return Edit(before, after, "") if alone else Edit(statement.start, statement.end, "")

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _accept(self, *texts: str) -> _Token | None:
        token = self._peek()
        return self._next() if token is not None and token.kind == "mark" and token.text in texts else None

    def _fields(self, closing: str | None) -> tuple[Statement, ...]:
        found = []
        while (token := self._peek()) is not None and token.text != closing:
            if self._accept(",", ";"):
                continue
            found.append(self._statement())
        return tuple(found)

    def _statement(self) -> Statement:
        name = self._next()
        self._accept(":")
        opening = self._accept("[")
        values = tuple(self._list()) if opening else (self._value(),)
        return Statement(name.text, name.start, self._tokens[self._at - 1].end, values, opening is not None)

    def _list(self) -> Iterator[Value]:
        while not self._accept("]"):
            if not self._accept(","):
                yield self._value()

    def _value(self) -> Value:
        first = self._next()
        if first.text in _CLOSING and first.kind == "mark":
            fields = self._fields(_CLOSING[first.text])
            return Value(first.start, self._next().end, fields)
        last = first
        while first.kind == "string" and (token := self._peek()) is not None and token.kind == "string":
            last = self._next()  # adjacent strings are one
        if first.text == "-":
            last = self._next()
        return Value(first.start, last.end)


def apply(text: str, edits: Sequence[Edit]) -> str:
    """Return the edited text. If two edits overlap, only the first is applied."""
    made, at = [], 0
    for edit in sorted(set(edits), key=lambda edit: (edit.start, -edit.end)):
        if edit.start < at:
            continue
        made += [text[at : edit.start], edit.replacement]
        at = edit.end
    return "".join([*made, text[at:]])
