"""What a Python model says of its tensors and of the models that it calls. Its code is read, not run."""

import ast
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from optkit.errors import ArtifactError
from optkit.untrusted.reading import MAX_CODE_BYTES, read_bytes


@dataclasses.dataclass(frozen=True)
class PythonModel:
    """The tensors that a model.py uses by name: input -> line, output -> line, and what else its configuration depends on.

    `calls` are the models that it calls, by name -> line. `list_at` is the line in which execute returns a list, if it does.
    """

    inputs: dict[str, int]
    outputs: dict[str, int]
    calls: dict[str, int]
    list_at: int | None
    completes: bool  # by auto_complete_config, its own or one that it may inherit


def read_python(path: Path) -> PythonModel:
    """Read a model.py without running it.

    Raises:
        ArtifactError: it is not Python, or has no class TritonPythonModel with a method execute.
    """
    try:
        tree = ast.parse(read_bytes(path, "Python", MAX_CODE_BYTES), filename=path.name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:  # the last two: nested too deeply
        line = f" in line {e.lineno}" if isinstance(e, SyntaxError) else ""
        raise ArtifactError(f"{path.name}: is not valid Python{line} ({getattr(e, 'msg', e)})") from e
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel"]
    if not classes and not any(_brings_the_class(node) for node in ast.walk(tree)):
        raise ArtifactError(f"{path.name}: has no class TritonPythonModel")
    methods = {
        node.name for c in classes for node in c.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    inherits = not classes or any(not (isinstance(base, ast.Name) and base.id == "object") for base in classes[0].bases)
    if not inherits and "execute" not in methods:
        raise ArtifactError(f"{path.name}: TritonPythonModel has no method execute")
    found: dict[str, dict[str, int]] = {"inputs": {}, "outputs": {}, "calls": {}}
    constants = _constants(tree)
    for node in ast.walk(tree):
        used = _used(node, constants) if isinstance(node, ast.Call) else None
        if used:
            found[used[0]].setdefault(used[1], node.lineno)  # type: ignore[attr-defined]  # a Call has it
    execute = next((node for c in classes for node in c.body if _is_function(node, "execute")), None)
    list_at = _list_line(execute) if isinstance(execute, ast.FunctionDef) else None  # nobody waits for a coroutine
    completes = inherits or "auto_complete_config" in methods
    return PythonModel(found["inputs"], found["outputs"], found["calls"], list_at, completes)


def _brings_the_class(node: ast.AST) -> bool:
    """Return whether a statement gives the name TritonPythonModel to a class of another module or name."""
    if isinstance(node, ast.ImportFrom):
        return any("TritonPythonModel" in (alias.asname, alias.name) or alias.name == "*" for alias in node.names)
    targets = node.targets if isinstance(node, ast.Assign) else ()
    return any(isinstance(target, ast.Name) and target.id == "TritonPythonModel" for target in targets)


def _is_function(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the texts that module-level names stand for, if each is set once."""
    found: dict[str, list[str | None]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(_text(node.value, {}))
    return {name: values[0] for name, values in found.items() if len(values) == 1 and values[0] is not None}


def _text(node: ast.expr, constants: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _list_line(function: ast.FunctionDef) -> int | None:
    """Return the line in which a function returns a list: a display, a comprehension, or a name that only stands for one."""
    nodes = list(_own_nodes(function))
    set_to: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    set_to.setdefault(target.id, []).append(node.value)
    lists = {name for name, values in set_to.items() if all(_is_list(value) for value in values)}
    returns = [node for node in nodes if isinstance(node, ast.Return) and node.value is not None]
    for node in returns:
        if _is_list(node.value) or (isinstance(node.value, ast.Name) and node.value.id in lists):
            return node.lineno
    return None


def _is_list(node: ast.expr | None) -> bool:
    return isinstance(node, ast.List | ast.ListComp)


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield the nodes of a function, without those of functions inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _used(call: ast.Call, constants: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the kind and the name of the tensor or model in a call of Triton's Python API, or None if the name is not certain."""
    function = call.func
    name = (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )
    if name == "InferenceRequest":
        value = next((keyword.value for keyword in call.keywords if keyword.arg == "model_name"), None)
        text = _text(value, constants) if value is not None else None
        return ("calls", text) if text is not None else None
    kind, position = {
        "get_input_tensor_by_name": ("inputs", 1),
        "get_input_config_by_name": ("inputs", 1),
        "get_output_config_by_name": ("outputs", 1),
    }.get(name, ("", 0))
    if not kind or len(call.args) <= position:
        return None
    text = _text(call.args[position], constants)
    return (kind, text) if text is not None else None
