"""The model that a Python file defines, found from its text: the file is not run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optkit.errors import ModelError, first_line
from optkit.untrusted.paths import is_file

_BASES = ("Module", "Sequential", "LightningModule", "PreTrainedModel")


@dataclass(frozen=True)
class _Found:
    """The name of a model, and the other names in its code."""

    name: str
    mentions: frozenset[str]


def the_model(file: Path) -> str:
    """Return the name of the only model of a file: a subclass of nn.Module, a function that returns a module, or a module.

    A model that another one uses is only a part of it.

    Raises:
        ModelError: there is no such file, no model, or several models; the message has the text to write for each.
    """
    if not is_file(file):
        raise ModelError(f"{file}: no such file; expected a Python file, as in model.py or model.py:build")
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except SyntaxError as e:
        raise ModelError(f"{file}:{e.lineno}: {e.msg}") from e
    except (OSError, ValueError, RecursionError, MemoryError) as e:  # the last two: nested too deeply
        raise ModelError(f"{file}: cannot be read as Python ({first_line(e)})") from e
    found = _models(body)
    whole = [
        model.name for model in found if not any(model.name in other.mentions for other in found if other is not model)
    ]
    names = whole or [model.name for model in found]
    if len(names) == 1:
        return names[0]
    if not names:
        raise ModelError(
            f"{file}: defines no subclass of nn.Module and no function that returns a module; name the function or class, as in {file}:build"
        )
    lines = "".join(f"\n  {file}:{name}" for name in names)
    raise ModelError(f"{file}: defines several models; expected one. Give one of these instead:{lines}")


def _models(body: list[ast.stmt]) -> list[_Found]:
    classes: set[str] = set()
    found: list[_Found] = []
    for node in body:
        name = None
        if isinstance(node, ast.ClassDef) and any(_last(base) in (*_BASES, *classes) for base in node.bases):
            classes.add(node.name)
            name = node.name
        elif isinstance(node, ast.FunctionDef) and not _required(node) and _returns_model(node, classes):
            name = node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_model(node.value, classes):
            name = node.targets[0].id
        if name and not name.startswith("_"):
            found.append(_Found(name, frozenset(_names(node))))
    return found


def _last(node: ast.expr) -> str:
    """Return the last part of a dotted name; empty for other expressions."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _names(node: ast.AST) -> Iterator[str]:
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load))


def _required(node: ast.FunctionDef) -> bool:
    arguments = node.args
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return positional > 0 or any(default is None for default in arguments.kw_defaults)


def _is_model(node: ast.expr | None, classes: set[str]) -> bool:
    """Whether an expression builds a module: `Net(...)`, `nn.Sequential(...)`, or one of these followed by `.eval()` or similar."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    if isinstance(called, ast.Attribute) and _last(called.value) == "nn":
        return called.attr[:1].isupper() and not called.attr.endswith("Loss")
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Call):
        return _is_model(called.value, classes)
    return _last(called) in classes


def _returns_model(node: ast.FunctionDef, classes: set[str]) -> bool:
    if node.returns is not None and _last(node.returns) in (*_BASES, *classes):
        return True
    built = {
        target.id
        for part in ast.walk(node)
        if isinstance(part, ast.Assign) and _is_model(part.value, classes)
        for target in part.targets
        if isinstance(target, ast.Name)
    }
    returned = [part.value for part in ast.walk(node) if isinstance(part, ast.Return)]
    return any(_is_model(value, classes) or (isinstance(value, ast.Name) and value.id in built) for value in returned)
