"""Parsing of config.pbtxt with Triton's schema (T101 to T107)."""

import difflib
import re
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from pathlib import Path
from typing import Any

from optkit.errors import ArtifactError
from optkit.serving.triton.lint.repository import CONFIG, Model
from optkit.serving.triton.lint.rules import Problem, problem
from optkit.untrusted.paths import is_file
from optkit.untrusted.reading import MAX_CONFIG_BYTES, read_text

_MARK = "\ufeff"
_KINDS = (
    (re.compile(r'has no field named "(?P<word>\w+)"'), "T104"),
    (re.compile(r'Enum type "(?P<type>[\w.]+)" has no value (?:named|with number) "?(?P<word>[\w-]+)"?'), "T105"),
    (re.compile(r"is specified along with|should not have multiple"), "T107"),
    (re.compile(r"Expected string|Expected .true.|Couldn't parse|Value out of range"), "T106"),
)


def read_model(folder: Path) -> tuple[Model, list[Problem]]:
    """Read the configuration in one model folder. Return the model, and the problems if it cannot be read."""
    path = folder / CONFIG
    if not is_file(path):
        return Model(folder), []
    file = f"{folder.name}/{CONFIG}"
    try:
        text = read_text(path, "text", MAX_CONFIG_BYTES)
    except ArtifactError as e:
        return Model(folder), [problem("T103", folder.name, file, str(e).removeprefix(f"{path}: "))]
    if text.startswith(_MARK):
        said = "begins with a byte order mark (EF BB BF), which Triton's parser refuses; expected UTF-8 without one"
        return Model(folder), [problem("T103", folder.name, file, said, 1)]
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    try:
        config = text_format.Parse(text, schema.ModelConfig())
    except text_format.ParseError as e:
        return Model(folder, text), [_syntax_fault(folder.name, file, e)]
    except ValueError as e:  # an enum number above 32 bits
        return Model(folder, text), [problem("T106", folder.name, file, str(e))]
    model = Model(folder, text, config)
    unknown = [
        model.fault("T105", f"{path[-1]} is {number}; {kind} has no such value", *path)
        for path, kind, number in _unknown_numbers(config, ())
    ]
    return (Model(folder, text), unknown) if unknown else (model, [])


def _unknown_numbers(message: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str, int]]:
    """Yield the path, enum type and number of every enum value that does not exist."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"].message_type
            for part in value.values() if inner is not None else ():
                yield from _unknown_numbers(part, (*path, field.name))
            continue
        parts = list(value) if isinstance(value, Sequence | MutableSequence) and not isinstance(value, str) else [value]
        for i, part in enumerate(parts):
            if field.message_type is not None:
                yield from _unknown_numbers(part, (*path, field.name, i))
            elif field.enum_type is not None and part not in field.enum_type.values_by_number:
                yield (*path, field.name), field.enum_type.name, part


def _syntax_fault(model: str, file: str, error: Any) -> Problem:
    said = re.sub(r"^\d+:\d+ : ", "", str(error).strip())
    matches = ((pattern.search(said), rule) for pattern, rule in _KINDS)
    match, rule = next(((match, rule) for match, rule in matches if match), (None, "T103"))
    near = _near(match) if match else ""
    return problem(rule, model, file, f"{said}{near}", error.GetLine())


def _near(match: re.Match[str]) -> str:
    """Return ` (did you mean X?)` for a field or an enum value."""
    word = match.groupdict().get("word")
    if word is None:
        return ""
    candidates: Iterable[str] = _values(match["type"]) if "type" in match.groupdict() else _field_names()
    close = difflib.get_close_matches(word, list(candidates), 1, 0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _values(type_name: str) -> Iterable[str]:
    from tritonclient.grpc import model_config_pb2 as schema

    pool = schema.DESCRIPTOR.pool
    try:
        return [value.name for value in pool.FindEnumTypeByName(type_name).values]
    except KeyError:
        return []


def _field_names() -> set[str]:
    """Return the names of all fields of a configuration and of its messages."""
    from tritonclient.grpc import model_config_pb2 as schema

    names: set[str] = set()
    waiting, seen = [schema.ModelConfig.DESCRIPTOR], set()
    while waiting:
        message = waiting.pop()
        if message.full_name in seen:
            continue
        seen.add(message.full_name)
        for field in message.fields:
            names.add(field.name)
            if field.message_type is not None:
                waiting.append(field.message_type)
    return names
