"""Reading of YAML and JSON: the one place for both, with limits on size, depth, aliases and values.

Every error names the place and the fault, and no input takes long or much memory.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from optkit.errors import ArtifactError, OptkitError, first_line
from optkit.untrusted.paths import shown
from optkit.untrusted.reading import read_text

if TYPE_CHECKING:
    import yaml

MAX_DEPTH = 50  # lists and mappings inside each other
MAX_JSON_BYTES = 32 * 2**20
MAX_JSON_VALUES = 2_000_000  # read in about two seconds
_LARGEST = 2**64


def read_json(path: Path, kind: type[OptkitError] = ArtifactError) -> Any:
    """Return the content of a JSON file.

    Args:
        path: a file of at most `MAX_JSON_BYTES`.
        kind: the error to raise.

    Raises:
        OptkitError: of this kind. The file cannot be read, or its content is refused by `parse_json`.
    """
    return parse_json(read_text(path, "JSON", MAX_JSON_BYTES, kind), str(path), kind)


def parse_json(text: str, where: str, kind: type[OptkitError] = ArtifactError) -> Any:
    """Return the content of a JSON text; `where` begins the message of an error.

    Raises:
        OptkitError: of this kind. It is not JSON, has a key twice, is nested deeper than `MAX_DEPTH`, or contains NaN or an integer
            of more than 64 bits. Texts may hold anything, as those of optkit's own records do.
    """
    try:
        if sum(map(text.count, "[{,")) > MAX_JSON_VALUES:
            raise ValueError(f"it has more than {MAX_JSON_VALUES} values")
        content = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates)
        _check(content, _check_value)
    except (ValueError, RecursionError) as e:
        raise kind(f"{where}: cannot be read as JSON ({_reason(e)})") from e
    return content


def parse_response(text: str | bytes) -> Any:
    """Return the content of a JSON response of a server, whose numbers may be NaN and whose texts may be anything.

    Raises:
        ValueError: it is not JSON, is nested deeper than `MAX_DEPTH`, or contains an integer of more than 64 bits.
    """
    try:
        content = json.loads(text)
        _check(content, _check_size)
    except RecursionError as e:
        raise ValueError(_reason(e)) from e
    return content


def read_yaml(path: Path, kind: type[OptkitError] = ArtifactError) -> Any:
    """Return the content of a YAML file; None if it is empty.

    Raises:
        OptkitError: of this kind. The file cannot be read, or its content is refused by `parse_yaml`.
    """
    return parse_yaml(read_yaml_text(path, kind), str(path), kind)


def read_yaml_text(path: Path, kind: type[OptkitError] = ArtifactError) -> str:
    """Return the text of a YAML file, for `yaml_with_lines`.

    Raises:
        OptkitError: of this kind. The file cannot be read.
    """
    from optkit.untrusted.yaml_loader import MAX_YAML_BYTES

    return read_text(path, "YAML", MAX_YAML_BYTES, kind)


def parse_yaml(text: str, where: str, kind: type[OptkitError] = ArtifactError) -> Any:
    """Return the content of a YAML text; None if it is empty. `where` begins the message of an error.

    Raises:
        OptkitError: of this kind. It is not YAML, has a key or a value that cannot be read, or is over a limit.
    """
    return yaml_with_lines(text, where, kind)[1]


def yaml_with_lines(text: str, where: str, kind: type[OptkitError] = ArtifactError) -> "tuple[yaml.Node | None, Any]":
    """Return the nodes of a YAML text, which have lines, and its content.

    Raises:
        OptkitError: as `parse_yaml`.
    """
    import yaml

    from optkit.untrusted.yaml_loader import DuplicateKeys, load

    try:
        node, content = load(text)
        _check(content, _check_value, _check_text)
    except DuplicateKeys as e:
        raise kind("\n".join(f"{where}:{line}: key {shown(key)} is given twice" for key, line in e.found)) from e
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark and "\n" in text else ""
        raise kind(f"{where}{line}: cannot be read as YAML ({e.problem or first_line(e)})") from e
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise kind(f"{where}: cannot be read as YAML ({_reason(e)})") from e
    return node, content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"key {shown(twice)} is given twice")
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _reason(error: Exception) -> str:
    return f"it is nested deeper than {MAX_DEPTH} levels" if isinstance(error, RecursionError) else first_line(error)


def _check(content: object, *checks: Callable[[object], None]) -> None:
    """Check the depth and the values of a parsed document.

    Raises:
        ValueError: one is refused.
    """
    level: list[object] = [content]
    for _ in range(MAX_DEPTH + 2):
        for value in level:
            for check in checks:
                check(value)
        level = [part for value in level for part in _parts(value)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list | tuple | set):
        yield from value


def _check_size(value: object) -> None:
    if isinstance(value, int) and not -_LARGEST < value < _LARGEST:
        raise ValueError("it contains an integer of more than 64 bits")


def _check_value(value: object) -> None:
    _check_size(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"it contains the number {value}; expected finite numbers")


def _check_text(value: object) -> None:
    if isinstance(value, str) and not value.isprintable():
        if "\0" in value:
            raise ValueError(f"the text {shown(value)} contains the character NUL")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"the text {shown(value)} is not valid Unicode")
