"""The source of a generated client: a module of this folder up to a mark, followed by the class of the model.

Names come from files of others. In code a name is a literal (`quoted`) or becomes a name of Python (`identifier`); in a docstring it stands
as it is only where it can neither end the docstring nor be read as an escape (`in_words`).
"""

import builtins
import importlib.resources
import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from optkit.artifact.tensors import Dim, TensorSpec
from optkit.untrusted.quoting import is_python_name

_MARK = "# Below: the model. Everything above is the same in every client.\n"
_NAME = re.compile(r"^(?:class|def) (\w+)|^([A-Za-z_]\w*)(?::[^=]+)? =|^(?:from [\w.]+ )?import (.+)$", re.MULTILINE)

_TENSORS = "ClassVar[tuple[Tensor, ...]]"
_CLASS = string.Template('''

class $class_name($base):
    """The model `$model`.

    Takes$takes.
    Gives$gives.
    """

    name: ClassVar[str] = $name
$fields

    def infer(self, $parameters) -> $returns:
        """Return the $result."""
        return $call


if __name__ == "__main__":
    sys.exit(main($class_name))
''')
_INIT = string.Template('''"""A client of the model `$model`, and a router between its versions or other models. Written by optkit."""

from .client import $names
from .router import Router, VariantStats

__all__ = [$listed]
''')


@dataclass(frozen=True)
class ClientMethod:
    """The parts of a client's method: `infer(self, PARAMETERS) -> RETURNS: return CALL`. `result` is for its docstring."""

    parameters: str
    returns: str
    result: str
    call: str


@dataclass(frozen=True)
class ModelClass:
    """The class of one model: its module and base class, its docstring, its fields as Python source, and its method."""

    module: str  # triton_template or torchserve_template
    base: str
    model: str
    takes: str
    gives: str
    fields: tuple[str, ...]
    method: ClientMethod

    @property
    def name(self) -> str:
        """The name of the class: derived from the model's name, and different from all names in the module."""
        words = re.split(r"[^A-Za-z0-9]+", self.model)
        name = "".join(word[:1].upper() + word[1:] for word in words if word)
        name = f"Model{name}" if not name or name[0].isdigit() else name
        return f"{name}Model" if name in _taken(self.module) else name

    def text(self) -> bytes:
        """Return the source of client.py."""
        body = _CLASS.substitute(
            class_name=self.name,
            base=self.base,
            model=in_words(self.model),
            takes=self.takes,
            gives=self.gives,
            name=quoted(self.model),
            fields="\n".join(f"    {field}" for field in self.fields),
            parameters=self.method.parameters,
            returns=self.method.returns,
            result=self.method.result,
            call=self.method.call,
        )
        return (_head(self.module) + body).encode()

    def init(self) -> bytes:
        """Return the source of __init__.py."""
        names = sorted(["InputError", "ServerError", self.name])
        every = sorted([*names, "Router", "VariantStats"])
        listed = ", ".join(map(quoted, every))
        return _INIT.substitute(model=in_words(self.model), names=", ".join(names), listed=listed).encode()


def own_code(name: str, package: str = __package__) -> str:
    """Return the source of a module of a package; without a package, of this folder."""
    return importlib.resources.files(package).joinpath(f"{name}.py").read_text(encoding="utf-8")


def _head(module: str) -> str:
    text, mark, _ = own_code(module).partition(_MARK)
    return text + mark


def _taken(module: str) -> set[str]:
    """Return the names that the module defines or imports, the built-in names of Python, and the public names of the router."""
    found = {"Router", "VariantStats", *dir(builtins)}
    for defined, assigned, imported in _NAME.findall(_head(module)):
        found |= {defined or assigned, *re.findall(r"\w+", imported)}
    return found


def identifier(name: str) -> str:
    """Return a valid Python name that is as similar to a name as possible."""
    found = re.sub(r"\W", "_", name, flags=re.ASCII)
    found = f"_{found}" if not found or found[0].isdigit() else found
    return found if is_python_name(found) and found != "self" else f"{found}_"


def parameters(names: Iterable[str]) -> dict[str, str]:
    """Return input -> parameter name. Equal names get numbers."""
    found: dict[str, str] = {}
    for name in names:
        wanted, number = identifier(name), 2
        while wanted in found.values():
            wanted, number = f"{identifier(name)}_{number}", number + 1
        found[name] = wanted
    return found


def tensors_text(specs: Sequence[TensorSpec]) -> str:
    """Return a tuple of tensors as Python source."""
    return _tuple(f"Tensor({quoted(spec.name)}, {quoted(spec.dtype)}, {_shape_text(spec.shape)})" for spec in specs)


def sizes_text(sizes: Mapping[str, range]) -> str:
    """Return the sizes of dimensions as Python source."""
    return "{" + ", ".join(f"{quoted(dim)}: {allowed!r}" for dim, allowed in sizes.items()) + "}"


def names_text(names: Iterable[str]) -> str:
    """Return a tuple of strings as Python source."""
    return _tuple(map(quoted, names))


def field(name: str, kind: str, value: str) -> str:
    """Return the line of a class variable."""
    return f"{name}: ClassVar[{kind}] = {value}"


def description(specs: Sequence[TensorSpec], sizes: Mapping[str, range] | None = None) -> str:
    """Return a description of tensors and of the sizes of their dimensions, for a docstring."""
    ranges = "".join(f"; {in_words(dim)} {r[0]} to {r[-1]}" for dim, r in (sizes or {}).items())
    shapes = [",".join(in_words(dim) if isinstance(dim, str) else str(dim) for dim in spec.shape) for spec in specs]
    tensors = (f"{in_words(spec.name)} {spec.dtype}[{shape}]" for spec, shape in zip(specs, shapes, strict=True))
    return ", ".join(tensors) + ranges


def in_words(text: str) -> str:
    """Return a text for a docstring. If it has a quote, a backslash or an unprintable character, return a Python name instead."""
    return text if text.isprintable() and not set(text) & {'"', "\\"} else identifier(text)


def quoted(text: str) -> str:
    """Return a Python string literal, in double quotes if the text is printable."""
    return (
        json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)
    )  # JSON's escapes are valid in Python too


def _shape_text(shape: Sequence[Dim]) -> str:
    return _tuple(quoted(dim) if isinstance(dim, str) else str(dim) for dim in shape)


def _tuple(parts: Iterable[str]) -> str:
    items = list(parts)
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
