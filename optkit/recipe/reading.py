"""Reading of recipes: the YAML is validated, and all faults are reported with their lines and with suggestions for misspelled keys.

The plan checks whether a recipe can be run.
"""

import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from optkit.errors import ModelError, RecipeError
from optkit.messages import did_you_mean
from optkit.recipe.keys import Recipe
from optkit.record import Record
from optkit.serving import AnyServing
from optkit.stages import AnyStage
from optkit.untrusted.documents import parse_yaml, read_yaml_text, yaml_with_lines


def load_recipe(path: Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe and make its paths absolute.

    Args:
        path: YAML file.
        overrides: dotted key -> YAML value, for example `model.weights` -> `w.pt`.

    Raises:
        RecipeError: the file cannot be read or is not a valid recipe; the message lists every fault with its line.
    """
    node, content = _parse(path)
    for key, value in (overrides or {}).items():
        _override(content, key, value)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as e:
        errors = e.errors()
        lines = [_fault(path, node, error) for error in errors if not _follows_from_others(error, errors)]
        raise RecipeError("\n".join(lines)) from e
    try:
        return recipe.with_absolute_paths(path.absolute().parent)
    except ModelError as e:
        raise RecipeError(f"{path}: {e}") from e


def _parse(path: Path) -> "tuple[yaml.Node, dict[str, Any]]":
    node, content = yaml_with_lines(read_yaml_text(path, RecipeError), str(path), RecipeError)
    if node is None or not isinstance(content, dict):
        raise RecipeError(f"{path}: contains no keys; expected a recipe with name, model, inputs and steps")
    return node, content


def _override(content: dict[str, Any], key: str, value: str) -> None:
    *folders, last = key.split(".")
    here = content
    for part in folders:
        inner = here.setdefault(part, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {key}: {part!r} is a {type(inner).__name__}; expected a mapping")
        here = inner
    here[last] = parse_yaml(value, f"--set {key}", RecipeError)


def _follows_from_others(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether an error only says that a list is too short, because its invalid items, which have their own errors, do not count."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(e["loc"][: len(loc)] == loc != e["loc"] for e in errors)


def _fault(path: Path, node: yaml.Node, error: ErrorDetails) -> str:
    """Return one fault as `recipe.yaml:12: steps.1.opset: fault. Did you mean ...?`."""
    loc = error["loc"]
    where = ".".join(str(part) for part in loc if not _is_tag(part))
    line = f"{path}:{_line(node, loc)}"
    if not where:  # the message of a fault that concerns several keys names the keys
        return f"{line}: {error['msg'].removeprefix('Value error, ')}"
    known = _keys_at(loc)
    match error["type"]:
        case "extra_forbidden":
            return f"{line}: {where}: unknown key{did_you_mean(str(loc[-1]), known)}"
        case "union_tag_invalid":
            context = error.get("ctx", {})
            tags = [tag.strip(" '") for tag in str(context.get("expected_tags", "")).split(",")]
            return f"{line}: {where}: unknown {str(context.get('tag'))!r}{did_you_mean(str(context.get('tag')), tags)}"
        case "union_tag_not_found":
            tags = list(_tags(AnyStage if loc[0] == "steps" else AnyServing))
            return f"{line}: {where}: has no key {error['ctx']['discriminator']}; expected one of {', '.join(tags)}"
        case "missing":
            return f"{line}: {where}: is missing"
        case _:
            found = error["input"]
            shown = f" (found {found!r})" if isinstance(found, (str, int, float)) else ""
            return f"{line}: {where}: {error['msg'].removeprefix('Value error, ')}{shown}"


def _is_tag(part: int | str) -> bool:
    """Whether a part of a pydantic location is the tag of a union, which is not a key of the file."""
    return isinstance(part, str) and any(part in _tags(union) for union in (AnyStage, AnyServing))


def _tags(union: Any) -> dict[str, type[Record]]:
    members = typing.get_args(typing.get_args(union)[0])
    tags: dict[str, type[Record]] = {}
    for member in members:
        field = member.model_fields.get("stage") or member.model_fields["target"]
        tags[str(field.default)] = member
    return tags


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    """Return the known keys at the end of a location."""
    here: type[Record] = Recipe
    for part in loc[:-1]:
        tagged = _tags(AnyStage) | _tags(AnyServing)
        if isinstance(part, str) and part in tagged:
            here = tagged[part]
        elif isinstance(part, str) and part in here.model_fields:
            here = next(_records(here.model_fields[part].annotation), here)
    return sorted(here.model_fields)


def _records(annotation: Any) -> Iterator[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _records(inner)


def _line(node: yaml.Node, loc: tuple[int | str, ...]) -> int:
    """Return the line of the deepest part of a location that exists in the file."""
    line = node.start_mark.line + 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == part), None)
            if pair is None:
                continue
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
