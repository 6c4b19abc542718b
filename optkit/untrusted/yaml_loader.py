"""PyYAML's safe loader with limits, and with a line for every value that it cannot read. Imported only where YAML is read."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from optkit.errors import first_line
from optkit.untrusted.paths import shown

MAX_YAML_BYTES = 256 * 2**10
MAX_YAML_DEPTH = 50
MAX_NODES = (
    20_000  # in the text, and once more after every alias was replaced by what it stands for; read in about a second
)
_TAG = "tag:yaml.org,2002:"


class DuplicateKeys(yaml.YAMLError):
    """Keys that are in one mapping twice, with the line of the second. PyYAML would keep the last one in silence."""

    def __init__(self, found: list[tuple[str, int]]) -> None:
        super().__init__(found)
        self.found = found


def load(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the nodes and the content of a text with at most one document; None and None if it has none.

    Raises:
        yaml.YAMLError: it is not YAML, is over a limit, or has a key twice or a value that cannot be read.
    """
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        return None, None
    _size(node, {})
    if found := list(_duplicates(node)):
        raise DuplicateKeys(found)
    return node, loader.construct_document(node)


class _Loader(yaml.SafeLoader):
    """Reads 1:4:8 as the text that it is; YAML 1.1 takes it for a number in base 60."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node within the limits."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._over_limit(f"it has more than {MAX_NODES} values")
        self._depth += 1
        if self._depth > MAX_YAML_DEPTH:
            raise self._over_limit(_DEEP)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _over_limit(self, what: str) -> yaml.YAMLError:
        return _over_limit(what, self.peek_event())  # type: ignore[no-untyped-call]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value. PyYAML's constructors raise errors of any kind for a text that does not fit its tag."""
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as e:
            what = f"{shown(str(node.value))} cannot be read as {node.tag.removeprefix(_TAG)} ({first_line(e)})"
            raise yaml.constructor.ConstructorError(
                None, None, f"{what}. Quote it if it is text", node.start_mark
            ) from e


_BASE_60 = (f"{_TAG}str", re.compile(r"\d+(:\d+)+$"))
_Loader.yaml_implicit_resolvers = {
    first: [_BASE_60, *resolvers] if first.isdigit() else resolvers
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_DEEP = f"it is nested deeper than {MAX_YAML_DEPTH} levels"


def _over_limit(what: str, at: Any) -> yaml.YAMLError:
    error: yaml.YAMLError = yaml.composer.ComposerError(None, None, what, at.start_mark)
    return error


class _Size(NamedTuple):
    nodes: int
    depth: int


def _size(node: yaml.Node, known: dict[int, _Size | None]) -> _Size:
    """Return the size of a node with every alias replaced by what it stands for.

    An alias comes after its anchor, so the recursion is never deeper than the text is nested.

    Raises:
        yaml.YAMLError: the size is over the limits, or the node contains itself.
    """
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise _over_limit("an alias stands for a value that contains it", node)
        return found
    known[id(node)] = None
    nodes, depth = 1, 0
    for part in _parts(node):
        inner = _size(part, known)
        nodes, depth = nodes + inner.nodes, max(depth, inner.depth)
        if nodes > MAX_NODES:
            raise _over_limit(f"its aliases stand for more than {MAX_NODES} values", part)
    if depth >= MAX_YAML_DEPTH:
        raise _over_limit(_DEEP, node)
    known[id(node)] = found = _Size(nodes, depth + 1)
    return found


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _duplicates(node: yaml.Node, seen: set[int] | None = None) -> Iterator[tuple[str, int]]:
    """Yield keys that are in one mapping twice, with the line of the second."""
    seen = set() if seen is None else seen
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    yield key.value, key.start_mark.line + 1
                keys.add(key.value)
    for part in _parts(node):
        yield from _duplicates(part, seen)
